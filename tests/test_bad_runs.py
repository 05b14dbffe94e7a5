"""What training, evaluation and export say of bad input, and that nothing is lost by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner

from tests.support import start
from tfrec import evaluate, labels
from tfrec.export import export
from tfrec.features import IDS, Features
from tfrec.runs import Run
from tfrec.strict import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "wide_deap"], "unknown model 'wide_deap'; did you mean 'wide_deep'?"),
        (["--set", "model=wide_deap"], "unknown model 'wide_deap'; did you mean 'wide_deep'?"),
        (["--set", "model={id: dcn_v2, experts: 4}"], "model dcn_v2: several experts need a rank"),
        (["--data", "nowhere"], "nowhere is not there"),
        (["--set", "epoch=1"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["--set", "model.dropuot=0.1"], "unknown key 'dropuot'; did you mean 'dropout'?"),
        (["--set", "labels=[like]"], "no label 'like'"),
        (["--set", "labels=[bought, stars]"], "takes one label"),
        (["--set", "model=mmoe", "--set", "labels=[bought, bought]"], "'bought' is named 2 times"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--seed", "99999999999999"], "seed"),
        (["--set", "labels=[]"], "needs a label"),
        (["--set", "item_loss.negatives=9"], "item_loss: belongs to models that score all items"),
        (
            ["--set", "model=mf", "--set", "loss.kind=focal"],
            "loss: belongs to models that score ex",
        ),
        (["--set", "model=mf", "--set", "labels=[stars]"], "'stars' is a regression: name another"),
        (["--set", "model.activation=foo"], "model: activation"),
        (["--set", "model.dim=0"], "model: dim"),
        (["--set", "model.hidden=[0]"], "model: hidden.0"),
        (["--set", "model.hidden=128"], "model: hidden: input should be a list, not 128"),
        (["--set", "model.dropout=1.5"], "model: dropout"),
        (["--set", "model={id: gru4rec, units: []}"], "model: units"),
    ],
)
def test_wrong_input_gets_one_line_and_leaves_nothing(
    shop: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    output = tmp_path / "run"
    base = ["--data", str(shop), "--model", "wide_deep", "--output", str(output)]
    result = start(*base, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not output.exists()


@pytest.mark.parametrize(("block", "need"), [("histories", "a history"), ("labels", "a label")])
def test_data_without_what_the_model_needs_is_refused(
    shop: Path, tmp_path: Path, block: str, need: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(shop, data)
    values = json.loads((data / "features.json").read_text())
    (data / "features.json").write_text(json.dumps({**values, block: []}))
    result = start("--data", str(data), "--model", "din", "--output", str(tmp_path / "run"))
    assert result.exit_code == 1
    assert f"model din needs {need}" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_truncated_record_is_named(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "_ROWS", 8)  # it is found in training, as in a large file
    data = tmp_path / "data"
    shutil.copytree(shop, data)
    broken = data / "examples" / "train-00001-of-00002.tfrecord"
    broken.write_bytes(broken.read_bytes()[:-20])
    result = start("--data", str(data), "--model", "lr", "--output", str(tmp_path / "run"))
    assert result.exit_code == 1
    last = result.output.strip().splitlines()[-1]
    assert "train-00001-of-00002.tfrecord: truncated or damaged after" in last
    assert not (tmp_path / "run" / "export").exists()
    with pytest.raises(UserError, match="has no checkpoint"):
        Run.load(tmp_path / "run").best_model()


@pytest.fixture
def moved(finished: tuple[Path, str], shop: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The finished run on a copy of its data set, which may be damaged."""
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished[0], run)
    shutil.copytree(shop, data)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": str(data)}))
    return run, data


def evaluated(run: Path) -> str:
    """The one line that `tfrec.evaluate` ends with when it fails."""
    result = CliRunner().invoke(evaluate.main, ["--run", str(run), "--split", "test"])
    assert result.exit_code == 1, result.output
    assert len(result.output.strip().splitlines()) == 1
    return result.output


def test_a_data_set_that_was_made_again_is_refused(moved: tuple[Path, Path]) -> None:
    run, data = moved
    values = json.loads((data / "features.json").read_text())
    (data / "features.json").write_text(json.dumps({**values, "fingerprint": "another"}))
    assert "is not the one of the training" in evaluated(run)
    with pytest.raises(UserError, match="is not the one of the training"):
        export(Run.load(run), Run.load(run).best_model())
    assert sorted(p.name for p in (run / "export").iterdir()) == ["1"]


def test_missing_and_short_files_are_not_passed_over(moved: tuple[Path, Path]) -> None:
    run, data = moved
    path = data / "examples" / "test-00001-of-00002.tfrecord"
    content = path.read_bytes()
    path.unlink()
    assert "test-00001-of-00002.tfrecord is missing" in evaluated(run)
    path.write_bytes(b"")  # a file cut between two records reads as a whole one
    assert "has " in evaluated(run)
    assert "examples, not the" in evaluated(run)
    path.write_bytes(content)
    train_file = data / "examples" / "train-00000-of-00002.tfrecord"
    train_file.write_bytes(b"")
    result = start("--data", str(data), "--model", "lr", "--output", str(run.parent / "new"))
    assert result.exit_code == 1
    assert "fewer training examples" in result.output.strip().splitlines()[-1]


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_ids_outside_their_table_are_named(shop: Path, tmp_path: Path, wrong: int) -> None:
    """A GPU would take rows of zeros for them."""
    data = tmp_path / "data"
    shutil.copytree(shop, data)
    path = str(data / "examples" / "train-00000-of-00002.tfrecord")
    records = [
        tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(path).as_numpy_iterator()
    ]
    records[-1].features.feature[IDS].int64_list.value[0] = wrong
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    first = Features.load(data).packed[IDS][0].name
    result = start("--data", str(data), "--model", "lr", "--output", str(tmp_path / "run"))
    assert result.exit_code == 1
    assert f"feature {first}: an id is outside its table" in result.output.splitlines()[-1]


def test_damaged_checkpoint_and_metrics_are_named(moved: tuple[Path, Path]) -> None:
    run, _ = moved
    best = next((run / "checkpoints" / "best").glob("*.data-*"))
    for path in (run / "checkpoints" / "best").glob("*.data-*"):
        path.write_bytes(best.read_bytes()[:50])
    result = CliRunner().invoke(evaluate.main, ["--run", str(run)])
    assert result.exit_code == 1
    assert "no checkpoint in" in result.output.splitlines()[-1]
    assert "can be read" in result.output.splitlines()[-1]
    (run / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        Run.load(run).metrics()


def test_a_damaged_best_checkpoint_falls_back_with_a_warning(
    moved: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = moved
    best = run / "checkpoints" / "best"
    newest = max(best.glob("*.data-*"), key=lambda path: int(path.name.split("-")[1].split(".")[0]))
    newest.write_bytes(newest.read_bytes()[:50])
    Run.load(run).best_model()
    assert f"warning: checkpoint {best / newest.name.partition('.')[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["bought", "stars"])
def test_weights_that_broke_are_neither_kept_nor_exported(
    shop: Path, tmp_path: Path, label: str
) -> None:
    """The only step of the run breaks them; no later one could tell."""
    output = tmp_path / "run"
    settings = [f"labels=[{label}]", "batch_size=4096", "epochs=1", "model.hidden=[4]"]
    settings += ["optimizers.dense={name: sgd, learning_rate: 1.0e+38}"]
    sets = [part for setting in settings for part in ("--set", setting)]
    result = start("--data", str(shop), "--model", "dnn", "--output", str(output), *sets)
    assert result.exit_code == 1
    assert "step 1: the weight " in result.output.splitlines()[-1]
    assert not list(output.glob("checkpoints/*/*"))
    assert not (output / "export").exists()


@pytest.mark.parametrize("place", ["logs", "export"])
def test_what_cannot_be_written_is_one_clear_line(
    shop: Path, tmp_path: Path, finished: tuple[Path, str], place: str
) -> None:
    output = tmp_path / "run"
    shutil.copytree(finished[0], output)
    shutil.rmtree(output / place)
    (output / place).write_text("a file is where the directory should be")
    metrics = json.loads((output / "metrics.json").read_text())
    (output / "metrics.json").write_text(json.dumps({**metrics, "finished": False}))
    result = start("--config", str(output / "config.yaml"), "--output", str(output))
    assert result.exit_code == 1
    assert f"{output / place}" in result.output.splitlines()[-1]
    assert isinstance(result.exception, SystemExit)


def test_export_without_its_parts_of_the_data_set_is_one_clear_line(
    moved: tuple[Path, Path],
) -> None:
    run, data = moved
    (data / "transform" / "transform_fn" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(UserError, match="transform_fn cannot be loaded"):
        export(Run.load(run), Run.load(run).best_model())
    (data / "sample.tfrecord").unlink()
    with pytest.raises(UserError, match=r"has no sample\.tfrecord"):
        export(Run.load(run), Run.load(run).best_model())
    assert sorted(p.name for p in (run / "export").iterdir()) == ["1"]

"""Steps: made when something has changed, kept while nothing has; recorded; alone or in a chain."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner

from pipeline.__main__ import main
from pipeline.declaration import Declaration
from pipeline.run import STEPS, last_step
from pipeline.workspace import RECORD, Workspace
from tests.pipeline import shop
from tests.pipeline.shop import states, with_blocks
from tfrec.export import export
from tfrec.features import Features
from tfrec.figures import Report
from tfrec.runs import Run
from tfrec.served import ServedEvaluator
from tfrec.strict import UserError

DATA_STEPS = [step.name for step in STEPS][: [step.name for step in STEPS].index("train")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> tuple[Declaration, Path]:
    """The shop's data set, by steps."""
    folder = tmp_path_factory.mktemp("steps")
    source = {"format": "csv", "path": shop.write_csv(shop.events(), folder / "e.csv")}
    declaration = shop.declare(source=source)
    assert states(declaration, folder / "out") == dict.fromkeys(DATA_STEPS, "made")
    return declaration, folder / "out"


def test_nothing_has_changed(made):
    declaration, root = made
    assert states(declaration, root) == dict.fromkeys(DATA_STEPS, "kept")


def test_what_a_change_concerns_is_made_anew(made):
    """A threshold of a vocabulary concerns the transform only."""
    declaration, root = made
    features = {**shop.FEATURES, "item": {**shop.FEATURES["item"], "min_count": 5}}
    assert states(with_blocks(declaration, features=features), root) == {
        **dict.fromkeys(DATA_STEPS, "kept"), "transform": "made"
    }  # fmt: skip
    assert states(declaration, root)["transform"] == "made"
    inputs = {step: Workspace(root).about(step).inputs for step in DATA_STEPS}
    (path,) = inputs["ingest"]
    assert path == declaration.source.path
    assert inputs["statistics"] == {"ingest": Workspace(root).about("ingest").output}


def test_a_changed_file_is_read_again(made, tmp_path: Path):
    """Even when its size and its time are the same."""
    declaration, root = made
    path = Path(declaration.source.path)
    before = path.read_text()
    path.write_text(before.replace(",phone,", ",phony,", 1))
    try:
        assert states(declaration, root)["ingest"] == "made"
    finally:
        path.write_text(before)
    assert states(declaration, root)["ingest"] == "made"


def test_one_step_alone(made, tmp_path: Path):
    declaration, root = made
    assert states(declaration, root, only="statistics", force=True) == {"statistics": "made"}
    with pytest.raises(UserError, match="statistics needs the output of ingest"):
        states(declaration, tmp_path / "new", only="statistics")
    assert not (tmp_path / "new").exists()


def test_force(made):
    declaration, root = made
    assert states(declaration, root, until="ingest", force=True) == {"ingest": "made"}


def test_the_record(made):
    declaration, root = made
    states(declaration, root, until="ingest")
    lines = [json.loads(line) for line in (root / RECORD).read_text().splitlines()]
    assert lines[-1]["state"] == "kept"
    assert lines[-1]["counts"]["rows_read"] == 288
    assert lines[-1]["started"] <= lines[-2]["noted"] <= lines[-1]["noted"]  # it was made before
    assert {"step", "key", "inputs", "output", "started", "seconds", "code", "settings"} < set(
        lines[0]
    )
    shown = CliRunner().invoke(main, ["show", "--output", str(root)])
    assert shown.exit_code == 0
    assert lines[0]["output"][:8] in shown.output
    time = lines[-1]["noted"].replace("T", " ")[:19]
    assert shown.output.splitlines()[-1].startswith(f"{time}  ingest      kept        0.0 s")
    assert "transform" in shown.output
    missing = CliRunner().invoke(main, ["show", "--output", str(root / "ingest")])
    assert missing.exit_code == 1
    assert "no pipeline's output" in missing.output


def test_outputs_without_a_name(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They are in data/, by the name of the data set; what is shown is the newest."""
    declaration, root = made
    assert declaration.output == Path("data/shop")
    assert with_blocks(declaration, name="../My shop").output == Path("data/_My_shop")
    monkeypatch.chdir(tmp_path)
    nothing = CliRunner().invoke(main, ["show"])
    assert nothing.exit_code == 1
    assert "name it with --output" in nothing.output
    for age, name in enumerate(("shop", "older")):
        (tmp_path / "data" / name).mkdir(parents=True)
        record = Path(shutil.copy(root / RECORD, tmp_path / "data" / name))
        os.utime(record, (1_000 - age, 1_000 - age))
    shown = CliRunner().invoke(main, ["show"])
    assert shown.stderr == "data/shop, the newest; there are also data/older\n"
    assert shown.stdout == CliRunner().invoke(main, ["show", "--output", str(root)]).stdout
    source = {"format": "csv", "path": declaration.source.path}
    values = shop.tiny("", source=source).model_dump(mode="json", exclude_unset=True)
    Path("tiny.yaml").write_text(yaml.safe_dump(values))
    done = CliRunner().invoke(main, ["run", "--config", "tiny.yaml", "--until", "ingest"])
    assert done.exit_code == 0, done.output
    assert Path("data/tiny/ingest/report.json").is_file()


def test_two_runs_at_once(made):
    declaration, root = made
    with Workspace(root).at_work(), pytest.raises(UserError, match="another run is at work"):
        states(declaration, root)


def test_what_a_killed_run_has_left_goes(made):
    declaration, root = made
    (root / ".transform.abc.making" / "examples").mkdir(parents=True)
    (root / "ingest").rename(root / ".ingest.old.making")  # killed between two renames
    assert states(declaration, root, until="ingest") == {"ingest": "kept"}
    assert not list(root.glob(".*"))


TRAIN = {
    "model": {"id": "wide_deep", "hidden": [8]}, "labels": ["like"], "batch_size": 64, "epochs": 1
}  # fmt: skip


@pytest.fixture(scope="module")
def pushed(made: tuple[Declaration, Path], tmp_path_factory: Any) -> tuple[Declaration, Path, Path]:
    """A model of the shop, whose export is measured by slice, blessed and pushed."""
    declaration, root = made
    served = tmp_path_factory.mktemp("pushed") / "served"
    whole = with_blocks(
        declaration,
        train=TRAIN,
        evaluate={"slices": ["device", "item_count"]},
        bless=[
            {"metric": "log_loss", "at_most": 10.0, "worse_by": 0.0},
            {"metric": "log_loss", "slice": "item_count=0..9", "at_most": 10.0},
        ],
        push=str(served),
    )
    assert last_step(declaration) == "transform"
    assert last_step(whole) == "push"
    found = states(whole, root, until="push")
    assert [found[s] for s in ("train", "evaluate", "bless", "push")] == ["made"] * 4
    return whole, root, served


def test_from_events_to_a_served_model(pushed):
    """What is pushed answers raw requests, and is pushed once."""
    whole, root, served = pushed
    loaded = tf.saved_model.load(str(served / "1"))
    sample = [r.numpy() for r in tf.data.TFRecordDataset(str(root / "transform/sample.tfrecord"))]
    answer = loaded.signatures["serving_default"](examples=tf.constant(sample))
    assert np.isfinite(answer["like"].numpy()).all()
    assert set(states(whole, root, until="push").values()) == {"kept"}
    assert sorted(p.name for p in served.iterdir()) == [".push.lock", "1"]


def served_versions(served: Path) -> list[str]:
    return sorted(path.name for path in served.iterdir() if path.name.isdigit())


def test_the_export_is_measured_by_slice_beside_baselines(pushed):
    _, root, _ = pushed
    report = Report.load(root / "evaluate" / "evaluation.json")
    assert Workspace(root).about("evaluate").counts["measured"] == "export/1"
    assert {record["name"] for record in report.records} == {
        "wide_deep", "global mean", "item mean"
    }  # fmt: skip
    parts = {record["slice"] for record in report.records}
    assert {None, "item_count=0..9", "device=phone"} <= parts
    whole = report.records[0]
    low, high = whole["intervals"]["log_loss"]
    assert low < whole["metrics"]["log_loss"] < high
    measured = ServedEvaluator(root / "train" / "export", root / "transform", "test")
    alone = measured.measured("export", measured.score, alone=True)
    assert alone.records[0]["metrics"] == whole["metrics"]


def test_what_is_not_blessed_is_not_pushed(pushed):
    """Every broken rule is named; neither a step alone nor --force goes past it."""
    declaration, root, served = pushed
    rules = [
        {"metric": "auc", "at_least": 1.1},
        {"metric": "log_loss", "at_most": 10.0},
        {"metric": "log_loss", "at_most": 0.01, "slice": "item_count=0..9"},
    ]
    strict = with_blocks(declaration, bless=rules)
    before = served_versions(served)
    with pytest.raises(UserError, match="blessed by other rules"):
        states(strict, root, only="push")
    for options in ({"until": "push"}, {"only": "push"}, {"only": "push", "force": True}):
        with pytest.raises(UserError) as caught:
            states(strict, root, **options)
        first, *reasons = str(caught.value).splitlines()
        assert first == "not pushed, since it is not blessed:"
        assert [reason.strip()[:13] for reason in reasons] == ["bless rule 1:", "bless rule 3:"]
        assert "log_loss of like, item_count=0..9, is " in reasons[1]
    verdicts = json.loads((root / "bless" / "verdicts.json").read_text())
    assert [verdict["kept"] for verdict in verdicts] == [False, True, False]
    assert served_versions(served) == before
    last = json.loads((root / RECORD).read_text().splitlines()[-1])
    assert (last["step"], last["state"]) == ("push", "failed")
    unknown = with_blocks(declaration, bless={"metric": "novelty", "at_least": 0.1})
    with pytest.raises(UserError, match=r"no metric 'novelty' of like; known: auc, "):
        states(unknown, root, until="push")
    assert states(declaration, root, until="push")["bless"] == "made"
    assert served_versions(served) == before  # it is the one that is served


def test_another_export_is_not_blessed(pushed):
    """A blessing is of the export that was measured, and of no later one."""
    declaration, root, served = pushed
    before = served_versions(served)
    trained = Run.load(root / "train")
    export(trained, trained.best_model())
    with pytest.raises(UserError, match="export/2 is not the export that was measured and blessed"):
        states(declaration, root, only="push")
    assert served_versions(served) == before
    found = states(declaration, root, until="push")
    assert found["train"] == "kept"
    assert found["evaluate"] == found["bless"] == found["push"] == "made"
    assert len(served_versions(served)) == len(before) + 1
    again = states(declaration, root, until="push")
    assert set(again.values()) == {"kept"}  # it is compared with the one before, not with itself


def test_the_served_model_is_measured_anew(pushed):
    """On the very examples; a new one that is surely worse is not blessed."""
    declaration, root, served = pushed
    versions = served_versions(served)
    before = Report.load(root / "evaluate" / "evaluation.json").records[0]
    trained = Run.load(root / "train")
    wrong = trained.best_model()
    for variable in wrong.trainable_variables:
        variable.assign(-8 * variable)
    worse = export(trained, wrong)
    try:
        with pytest.raises(UserError, match=r"log_loss of like is .*, worse by .* of .*served/\d"):
            states(declaration, root, until="push")
        current = Report.load(root / "bless" / "current.json").records[0]
        assert current["metrics"] == pytest.approx(before["metrics"], abs=1e-6)
    finally:
        shutil.rmtree(worse)
    assert served_versions(served) == versions
    assert states(declaration, root, until="push")["bless"] == "made"


def test_a_served_model_that_cannot_be_asked(pushed):
    declaration, root, served = pushed
    broken = served / "99"
    (broken / "assets.extra").mkdir(parents=True)
    (broken / "saved_model.pb").write_text("no model")
    shutil.copy(served / "1" / "assets.extra" / "features.json", broken / "assets.extra")
    try:
        with pytest.raises(UserError, match=r"served/99 cannot be asked \(cannot be loaded.*once"):
            states(declaration, root, until="push")
    finally:
        shutil.rmtree(broken)


def test_worse_than_what(made):
    declaration, root = made
    alone = with_blocks(declaration, train=TRAIN, bless={"metric": "auc", "worse_by": 0.1})
    with pytest.raises(UserError, match="'push', its directory, is missing in the declaration"):
        states(alone, root, until="bless")


def test_a_step_without_its_block(made):
    declaration, root = made
    with pytest.raises(UserError, match="'train' is missing in the declaration"):
        states(declaration, root, until="push")


def test_the_directory_of_all_steps_is_no_data_set(made):
    """But it is the one that a user names first."""
    _, root = made
    with pytest.raises(UserError) as caught:
        Features.load(root)
    assert str(caught.value).endswith(f"the one that the pipeline has made is {root / 'transform'}")

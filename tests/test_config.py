from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import FEATURES
from tfrec import evaluate
from tfrec.config import OptimizerConfig, TopKConfig, TrainConfig
from tfrec.features import Features
from tfrec.models.registry import find
from tfrec.overrides import check_hyperparameters, from_assignments, merge, over_defaults
from tfrec.strict import UserError

GOOD: dict[str, Any] = {"data": "somewhere", "model": {"id": "dnn"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
        (
            {"optimizers": {"embeding": {}}},
            "unknown key 'optimizers.embeding'; did you mean 'embedding'?",
        ),
        (
            {"optimizers": {"dense": {"learning_rat": 1}}},
            "unknown key 'optimizers.dense.learning_rat'; did you mean 'learning_rate'?",
        ),
        ({"optimizers": {"dense": {"name": "adm"}}}, "optimizers.dense.name"),
        ({"batch_size": 0}, "batch_size: input should be greater than 0, not 0"),
        ({"epochs": "many"}, "not 'many'"),
        ({"clip_norm": float("inf")}, "clip_norm: input should be a finite number"),
        ({"loss": {"kind": "bce", "gamma": 5.0}}, "loss: `gamma` belongs to focal, not to bce"),
        (
            {"optimizers": {"dense": {"schedule": {"kind": "constant", "end": 0.5}}}},
            "optimizers.dense.schedule: `end` belongs to cosine, not to constant",
        ),
        (
            {"optimizers": {"dense": {"schedule": {"kind": "cosine", "steps": 9, "warm_up": 9}}}},
            "`steps` has to be above `warm_up`",
        ),
        (
            {"item_loss": {"kind": "gbce", "negatives": 0, "in_batch": True}},
            "gbce is calibrated by how many items are drawn, and `negatives` is 0",
        ),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        TrainConfig.parse({**GOOD, **changes}, "run.yaml")
    assert str(error.value).startswith("run.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_assignments_nest_and_read_yaml() -> None:
    values = from_assignments(["model.hidden=[256,128]", "model.dropout=0.5", "epochs=3"])
    assert values == {"model": {"hidden": [256, 128], "dropout": 0.5}, "epochs": 3}
    for wrong in ("epochs", "=3", "model.hidden=[1,"):
        with pytest.raises(UserError, match="--set"):
            from_assignments([wrong])


def test_merge_goes_into_blocks() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
    assert merge(base, {"a": {"c": 3}, "d": [4]}) == {"a": {"b": 1, "c": 3}, "d": [4]}
    assert base["a"] == {"b": 1, "c": 2}


def test_user_s_values_go_over_the_model_s_and_those_over_the_general_ones() -> None:
    defaults = {"epochs": 5, "optimizers": {"dense": {"learning_rate": 0.5}}}
    values = over_defaults(defaults, {"optimizers": {"linear": {"l1": 0.2}}})
    config = TrainConfig.parse({**GOOD, **values}, "test")
    assert config.epochs == 5
    assert config.optimizers.dense == OptimizerConfig(name="adam", learning_rate=0.5)
    assert config.optimizers.linear == OptimizerConfig(name="ftrl", learning_rate=1.0, l1=0.2)
    other = over_defaults(defaults, {"optimizers": {"linear": {"name": "sgd"}}})
    config = TrainConfig.parse({**GOOD, **other}, "test")
    assert config.optimizers.linear == OptimizerConfig(name="sgd")  # nothing of ftrl's


def test_another_kind_of_item_loss_takes_what_it_looks_at() -> None:
    defaults = {"item_loss": {"negatives": 512, "temperature": 0.1}}
    for kind, negatives in (("softmax", 256), ("bce", 512)):
        values = over_defaults(defaults, {"item_loss": {"kind": kind}})
        loss = TrainConfig.parse({**GOOD, **values}, "test").item_loss
        assert (loss.kind, loss.negatives, loss.temperature) == (kind, negatives, 0.1)
    values = over_defaults(defaults, {"item_loss": {"kind": "softmax", "negatives": 8}})
    with pytest.raises(UserError, match="`negatives` belongs to"):
        TrainConfig.parse({**GOOD, **values}, "test")


def test_other_candidates_take_nothing_that_they_do_not_look_at() -> None:
    drawn = TopKConfig(candidates="uniform", negatives=10, cutoffs=[10, 50])
    assert evaluate._top_k(drawn, ["top_k.candidates=all"]) == TopKConfig(cutoffs=[10, 50])
    popular = evaluate._top_k(drawn, ["top_k.candidates=popularity"])
    assert (popular.candidates, popular.negatives) == ("popularity", 10)
    every = TopKConfig(remove_seen=False)
    assert evaluate._top_k(every, ["top_k.candidates=uniform"]) == TopKConfig(candidates="uniform")
    for settings, message in (
        (["top_k.remove_seen=false"], "--set top_k: `remove_seen` belongs to all, not to uniform"),
        (["top_k=all"], "--set top_k: expected a mapping of keys, not 'all'"),
        (["epochs=3"], "only top_k"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate._top_k(drawn, settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hiden": [4]}, "did you mean 'hidden'?"),
        ({"dim": "wide"}, "model: dim"),
        ({"hidden": 8}, "model: hidden"),
    ],
)
def test_hyperparameters_are_checked_against_the_model(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        check_hyperparameters(find("dnn").load().__init__, values)
    assert message in str(error.value)


def test_unknown_model_and_missing_needs_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'wide_deep'"):
        find("wide_depe")
    without = Features.from_dict({**FEATURES.to_dict(), "histories": []})
    with pytest.raises(UserError, match="model din needs a history"):
        find("din").check(without)


def test_features_survive_json(tmp_path: Path) -> None:
    FEATURES.save(tmp_path)
    assert Features.load(tmp_path) == FEATURES
    with pytest.raises(UserError, match="is not there"):
        Features.load(tmp_path / "nowhere")
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Features.load(tmp_path)


def test_unknown_label_is_named() -> None:
    with pytest.raises(UserError, match="no label 'lke'; did you mean 'like'"):
        FEATURES.with_labels(["lke"])


@pytest.mark.parametrize(
    "module", ["tfrec.train", "tfrec.evaluate", "tfrec.export", "tfrec.models", "pipeline"]
)
def test_help_imports_no_tensorflow(module: str) -> None:
    """So that it answers at once."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{module}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'apache_beam', 'tf_keras', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize("first", ["import tensorflow as tf", "import tfrec", "import tf_keras"])
def test_import_order_does_not_matter(first: str) -> None:
    code = (
        f"{first}\nimport tfrec\nfrom tfrec.models.ranking.lr import LR\nimport tensorflow as tf\n"
    )
    code += "import tf_keras\nassert tf.keras.layers.Layer is tf_keras.layers.Layer\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

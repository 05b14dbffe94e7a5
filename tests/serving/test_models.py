"""Several models, their base paths, states and labels, as configurations give them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.errors import Code, ServingError
from serving.models import Models, single
from serving.servable import Servable

AVAILABLE, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END


def test_without_versions(halves: Path, base: Path) -> None:
    models = Models()
    models.apply(single("m", base), patient=True)
    assert not models.ready
    with pytest.raises(ServingError, match=r"Latest\(m\)") as raised:
        models.get(ModelSpec(name="m"))
    assert raised.value.code == Code.NOT_FOUND
    with pytest.raises(ServingError, match="Could not find any versions of model m"):
        models.statuses(ModelSpec(name="m"))
    shutil.copytree(halves / "two", base / "1")
    models.poll()
    assert models.get(ModelSpec(name="m"))[0] == 1
    assert models.ready
    assert list(models.statuses(ModelSpec(name="m"))) == [1]


def test_another_base_path_takes_over_once_it_has_a_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    models, spec, other = Models(), ModelSpec(name="m"), base / "other"
    models.apply(single("m", base))

    def serves(offset: float) -> bool:
        number, servable = models.get(spec)
        assert models.statuses(spec)[number].state == AVAILABLE
        output = servable.run("serving_default", {"x": np.zeros(1, np.float32)})
        return output["y"].tolist() == [offset]

    with pytest.raises(ServingError, match=f"name: m, no version is in {other}") as raised:
        models.apply(single("m", other))
    assert raised.value.code == Code.UNKNOWN
    assert serves(2.0)
    other.mkdir()
    models.poll()
    assert serves(2.0)
    (other / "1").mkdir()
    models.poll()
    assert serves(2.0)
    shutil.copytree(halves / "three", other / "1", dirs_exist_ok=True)
    models.poll()
    assert serves(3.0)
    models.apply(single("m", base))
    assert serves(2.0)


def test_models_that_cannot_be_loaded_take_no_requests_from_others(
    halves: Path, base: Path
) -> None:
    shutil.copytree(halves / "two", base / "good" / "1")
    models, config = Models(), ModelServerConfig()
    for name in ("good", "bad"):
        (base / name).mkdir(exist_ok=True)
        config.MergeFrom(single(name, base / name))
    models.apply(config, patient=True)
    assert not models.ready  # a server that has not begun is not all there
    models.apply(single("good", base / "good"))
    assert models.ready
    with pytest.raises(ServingError, match="name: bad, no version is in"):
        models.apply(config)
    assert models.ready
    shutil.rmtree(base / "good" / "1")
    models.poll()
    assert not models.ready


def test_the_status_tells_of_the_first_load(halves: Path, base: Path) -> None:
    config, seen = ModelServerConfig(), []
    for name in ("a", "b"):
        shutil.copytree(halves / "two", base / name / "1")
        config.MergeFrom(single(name, base / name))

    def load(directory: Path) -> Servable:
        seen.append([models.statuses(ModelSpec(name=name))[1].state for name in ("a", "b")])
        return Servable(directory)

    models = Models(load)
    models.apply(config)
    states = ModelVersionStatus
    assert seen == [[states.LOADING, states.START], [states.AVAILABLE, states.LOADING]]


def test_statuses_are_newest_first(halves: Path, base: Path) -> None:
    models = Models()
    for version in ("2", "10"):
        shutil.copytree(halves / "two", base / version)
        models.apply(single("m", base))
    assert list(models.statuses(ModelSpec(name="m"))) == [10, 2]
    assert list(models.statuses(ModelSpec(name="m", version={"value": 2}))) == [2]


def labelled(base: Path, **labels: int) -> ModelServerConfig:
    config = single("m", base)
    for label, version in labels.items():
        config.model_config_list.config[0].version_labels[label] = version
    return config


@pytest.mark.parametrize("early", [False, True])
def test_labels_need_loaded_versions(halves: Path, base: Path, early: bool) -> None:
    shutil.copytree(halves / "two", base / "1")
    models = Models(early_labels=early)
    if early:
        models.apply(labelled(base, stable=1))
    else:
        with pytest.raises(ServingError, match="assign label to version 1 of model m") as raised:
            models.apply(labelled(base, stable=1))
        assert raised.value.code == Code.FAILED_PRECONDITION
        assert not models.known("m")
        models.apply(single("m", base))
        models.apply(labelled(base, stable=1))
    shutil.copytree(halves / "three", base / "2")
    with pytest.raises(ServingError, match="assign label to version 2 of model m"):
        models.apply(labelled(base, stable=2))
    spec = ModelSpec(name="m", version_label="stable")
    assert models.get(spec)[0] == 1
    models.poll()
    models.apply(labelled(base, stable=2))
    assert models.get(spec)[0] == 2

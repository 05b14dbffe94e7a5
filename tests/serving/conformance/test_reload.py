"""Configurations by HandleReloadConfigRequest: models, policies and labels that come and go."""

from __future__ import annotations

from typing import Any

import pytest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig, ModelType

from tests.serving.conformance.conftest import Added, Folder
from tests.serving.conformance.test_grpc import Status, error_of
from tests.serving.process import DEADLINE, until


def refused(folder: Folder, config: ModelServerConfig, code: Any) -> str:
    """The message of a configuration's refusal, after which all is as it was."""
    method = folder.server.models.HandleReloadConfigRequest
    error = error_of(code, method, ReloadConfigRequest(config=config), timeout=DEADLINE)
    for label, version in (("stable", 2), ("canary", 3)):
        path = f"/v1/models/versions/labels/{label}"
        reply = folder.server.predict({"instances": [0]}, path)
        assert reply == (200, {"predictions": [version]})
    return error


def listed(config: ModelServerConfig, name: str) -> Any:
    (found,) = (one for one in config.model_config_list.config if one.name == name)
    return found


def test_a_model_comes_and_goes(unlisted: Added) -> None:
    server, path = unlisted.folder.server, f"/v1/models/{unlisted.name}"
    missing = f"Servable not found for request: Latest({unlisted.name})"
    assert server.predict({"instances": [0]}, path) == (404, {"error": missing})
    unlisted.folder.reload(unlisted.config())
    assert unlisted.offset() == 1  # it is loaded when the answer comes
    unlisted.folder.reload(unlisted.folder.config)
    until(lambda: unlisted.states() == {1: "END"})
    assert server.predict({"instances": [0]}, path) == (404, {"error": missing})
    unlisted.folder.reload(unlisted.config())
    assert unlisted.offset() == 1
    assert unlisted.states() == {1: "AVAILABLE"}


def test_the_same_configuration_again_changes_nothing(folder: Folder) -> None:
    before = folder.server.call("GET", "/v1/models/versions")
    folder.reload(folder.config)
    assert folder.server.call("GET", "/v1/models/versions") == before


def test_policies_that_change(unlisted: Added) -> None:
    unlisted.add(2)
    unlisted.add(3)
    for policy, states in (
        ("", {3: "AVAILABLE"}),
        ("latest { num_versions: 2 }", {3: "AVAILABLE", 2: "AVAILABLE"}),
        ("all {}", {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}),
        ("specific { versions: 1 }", {3: "END", 2: "END", 1: "AVAILABLE"}),
        ("specific { versions: 1 versions: 3 }", {3: "AVAILABLE", 2: "END", 1: "AVAILABLE"}),
        ("specific { versions: 9 }", {3: "END", 2: "END", 1: "END"}),
        ("latest { num_versions: 1 }", {3: "AVAILABLE", 2: "END", 1: "END"}),
    ):
        unlisted.folder.reload(unlisted.config(policy))
        until(lambda states=states: unlisted.states() == states)


def test_another_base_path(unlisted: Added, folder: Folder) -> None:
    folder.reload(unlisted.config())
    assert unlisted.offset() == 1
    config = unlisted.config()
    listed(config, unlisted.name).base_path += "/other"
    unlisted.add(3)
    (unlisted.path / "other").mkdir()
    (unlisted.path / "3").rename(unlisted.path / "other" / "4")
    folder.reload(config)
    until(lambda: unlisted.states().get(4) == "AVAILABLE")
    assert unlisted.offset() == 3


def test_labels_move(folder: Folder) -> None:
    config = folder.changed()
    labels = listed(config, "versions").version_labels
    labels["stable"] = 3
    labels["old"] = 1
    del labels["canary"]
    folder.reload(config)
    for label, version in (("stable", 3), ("old", 1)):
        path = f"/v1/models/versions/labels/{label}"
        reply = folder.server.predict({"instances": [0]}, path)
        assert reply == (200, {"predictions": [version]})
    gone = folder.server.predict({"instances": [0]}, "/v1/models/versions/labels/canary")
    assert gone == (400, {"error": "Unrecognized servable version label: canary"})


def test_a_label_does_not_move_to_a_version_that_is_not_loaded(folder: Folder) -> None:
    config = folder.changed()
    listed(config, "versions").version_labels["stable"] = 9
    assert refused(folder, config, Status.FAILED_PRECONDITION) == (
        "Request to assign label to version 9 of model versions, which is not currently available "
        "for inference"
    )


def test_a_new_label_may_come_before_its_version(unlisted: Added) -> None:
    """By the flag that the server was started with."""
    server, path = unlisted.folder.server, f"/v1/models/{unlisted.name}/labels/next"
    unlisted.folder.reload(unlisted.config(labels={"next": 2}))
    error = f"Servable not found for request: Specific({unlisted.name}, 2)"
    assert server.predict({"instances": [0]}, path) == (404, {"error": error})
    unlisted.add(2)
    until(lambda: unlisted.offset() == 2)
    assert unlisted.offset("/labels/next") == 2


@pytest.mark.parametrize("config", [ModelServerConfig(), {"custom_model_config": {}}])
def test_only_lists_of_models(folder: Folder, config: Any) -> None:
    if isinstance(config, dict):
        config = ModelServerConfig(**config)
    assert refused(folder, config, Status.INVALID_ARGUMENT) == (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList "
        "is currently supported"
    )


def test_a_name_twice(folder: Folder) -> None:
    config = folder.changed()
    config.model_config_list.config.add().CopyFrom(listed(config, "some"))
    error = "Illegal to list model some multiple times in config list"
    assert refused(folder, config, Status.INVALID_ARGUMENT) == error


# Of models that are there already: a new one of such a kind would make TF Serving refuse all
# configurations that come after it.
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"model_platform": ""},
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        ),
        (
            {"model_type": ModelType.TENSORFLOW},
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform.",
        ),
        (
            {"model_platform": "", "model_type": ModelType.OTHER},
            "ModelServerConfig::model_type choice 2 not supported.",
        ),
        (
            {"model_platform": "caffe"},
            "Illegal to change a model's platform. For model some platform was tensorflow and new "
            "platform requested is caffe",
        ),
        (
            {"base_path": "some/where"},
            "Expected model some to have an absolute path or URI; got base_path()=some/where",
        ),
    ],
    ids=["neither", "both", "other type", "platform", "relative"],
)
def test_entries_that_cannot_be(folder: Folder, changes: dict[str, Any], error: str) -> None:
    config = folder.changed()
    for field, value in changes.items():
        setattr(listed(config, "some"), field, value)
    assert refused(folder, config, Status.INVALID_ARGUMENT) == error


def test_the_old_name_of_the_platform(unlisted: Added) -> None:
    config = unlisted.config()
    entry = listed(config, unlisted.name)
    entry.model_platform, entry.model_type = "", ModelType.TENSORFLOW
    unlisted.folder.reload(config)
    assert unlisted.offset() == 1


@pytest.mark.embedded  # TF Serving refuses all configurations from then on
def test_a_platform_that_is_not_served(unlisted: Added) -> None:
    config = unlisted.config()
    listed(config, unlisted.name).model_platform = "caffe"
    error = f"Model {unlisted.name} requests unsupported platform caffe"
    assert refused(unlisted.folder, config, Status.INVALID_ARGUMENT) == error


@pytest.mark.embedded  # TF Serving waits for ever, and all that ask it to reload wait with it
def test_a_new_model_without_a_version_that_loads(unlisted: Added) -> None:
    (unlisted.path / "1").rename(unlisted.path / "hidden")
    error = refused(unlisted.folder, unlisted.config(), Status.UNKNOWN)
    assert error.startswith("1 model(s) did not become available: {{name: added-")
    assert "no version is in" in error
    unlisted.folder.reload(unlisted.folder.config)
    (unlisted.path / "1").mkdir()
    error = refused(unlisted.folder, unlisted.config(), Status.UNKNOWN)
    assert f"{{name: {unlisted.name} version: 1 due to error: " in error

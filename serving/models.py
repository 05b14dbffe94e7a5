"""The models of a server, by the configurations that it is given."""

from __future__ import annotations

import threading
from collections.abc import Container
from pathlib import Path

from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import (
    ModelConfig,
    ModelServerConfig,
    ModelType,
)

from serving.errors import Code, ServingError, invalid
from serving.model import RETRIES, Load, Model, Retries, VersionStatus, not_found
from serving.servable import Servable

PLATFORM = "tensorflow"


class Models:
    """All models of a server, by name.

    Args:
        load: makes a servable of a version's directory.
        early_labels: whether a label may name a version that is not loaded yet. One that is moved
            needs a loaded version all the same.
        retries: of versions that fail to load.
    """

    def __init__(
        self, load: Load = Servable, early_labels: bool = False, retries: Retries = RETRIES
    ) -> None:
        self._load, self.early_labels, self._retries = load, early_labels, retries
        self._models: dict[str, Model] = {}
        self._ended: dict[str, Model] = {}  # of which only the states are left
        self.config = ModelServerConfig()  # that was applied last
        self._applying = threading.Lock()
        self._begun = False  # whether all models had a version at one time

    def apply(self, config: ModelServerConfig, patient: bool = False) -> None:
        """Serves what a configuration lists, and nothing else, once new models are loaded.

        A model whose base path is another one keeps its versions until one of that path is loaded.

        Args:
            config: a list of models.
            patient: whether models may wait for versions that are not there yet.

        Raises:
            ServingError: as `check`, and nothing has changed; or UNKNOWN, a model that is new, or
                whose base path is, has no version that loads.
        """
        with self._applying:
            listed = self.check(config)
            self.config = config
            before = {name: model.base_path for name, model in self._models.items()}
            paths = {name: Path(one.base_path) for name, one in listed.items()}
            new = {
                name: Model(name, path, load=self._load, retries=self._retries)
                for name, path in paths.items()
                if name not in before
            }
            self._models = {**self._models, **new}  # before they load, so that their status tells
            models = {name: self._models[name] for name in listed}
            for name, model in models.items():
                model.configure(paths[name], listed[name].model_version_policy)
            for model in models.values():
                model.look()
            for model in models.values():
                model.poll(look=False)
            gone = {name: model for name, model in self._models.items() if name not in listed}
            self._ended |= gone
            self._models = models
            for name, one in listed.items():
                models[name].labels = dict(one.version_labels)
            for model in gone.values():
                model.end()
            self._note()
            changed = [models[name] for name, path in paths.items() if path != before.get(name)]
            missing = [model for model in changed if not model.settled]
            if missing and not patient:
                causes = ", ".join(f"{{{model.why_unsettled}}}" for model in missing)
                raise ServingError(
                    Code.UNKNOWN, f"{len(missing)} model(s) did not become available: {{{causes}}}"
                )

    def check(self, config: ModelServerConfig) -> dict[str, ModelConfig]:
        """The models of a configuration, by name.

        Labels are looked at before anything is loaded, as TF Serving does it: a version and its
        label cannot come in one change.

        Raises:
            ServingError: INVALID_ARGUMENT, it cannot be; or FAILED_PRECONDITION, a label's version
                is not loaded.
        """
        listed = checked(config, self._models)
        for name, one in listed.items():
            model = self._models.get(name)
            for label, version in one.version_labels.items():
                moved = model is not None and model.labels.get(label, version) != version
                if self.early_labels and not moved:
                    continue
                if model is None or not model.has(version):
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, which is "
                        "not currently available for inference",
                    )
        return listed

    def poll(self, look: bool = True) -> None:
        """Looks for new versions of every model, or only tries again what failed to load."""
        for model in list(self._models.values()):
            model.poll(look)
        self._note()

    def close(self) -> None:
        """Ends the runs that still go on."""
        for model in [*self._models.values(), *self._ended.values()]:
            model.close()

    @property
    def ready(self) -> bool:
        """Whether requests should come: every model had a version once, and any has one now.

        So a model that is added later, and cannot be loaded, takes no requests from the others.
        """
        return self._begun and any(model.available for model in list(self._models.values()))

    @property
    def names(self) -> list[str]:
        """Of the models, as they are configured."""
        return list(self._models)

    def known(self, name: str) -> bool:
        """Whether there is a model of this name."""
        return name in self._models

    def get(self, spec: ModelSpec) -> tuple[int, Servable]:
        """A loaded version of a model.

        Raises:
            ServingError: NOT_FOUND, or INVALID_ARGUMENT, no name or an unknown label.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        model = self._models.get(spec.name)
        version = self._version(spec)
        if model is None:
            raise not_found(spec.name, version)
        return model.get(version)

    def statuses(self, spec: ModelSpec) -> dict[int, VersionStatus]:
        """States of a model's versions, newest first; of all, where a label is asked for.

        TF Serving does not look at labels here, and so does not know an unknown one either.

        Raises:
            ServingError: NOT_FOUND.
        """
        version = spec.version.value if spec.HasField("version") else None
        model = self._models.get(spec.name) or self._ended.get(spec.name)
        known = model.statuses if model else {}
        found = {v: s for v, s in sorted(known.items(), reverse=True) if version in (None, v)}
        if not found:
            which = (
                f"any versions of model {spec.name}"
                if version is None
                else f"version {version} of model {spec.name}"
            )
            raise ServingError(Code.NOT_FOUND, f"Could not find {which}")
        return found

    def _note(self) -> None:
        models = list(self._models.values())
        self._begun |= bool(models) and all(model.available for model in models)

    def _version(self, spec: ModelSpec) -> int | None:
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            model = self._models.get(spec.name)
            labels = model.labels if model else {}
            if spec.version_label not in labels:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            return labels[spec.version_label]
        return spec.version.value if choice == "version" else None


def single(name: str, base_path: Path) -> ModelServerConfig:
    """The configuration of one model."""
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path.absolute()), model_platform=PLATFORM
    )
    return config


def checked(config: ModelServerConfig, known: Container[str] = ()) -> dict[str, ModelConfig]:
    """The models of a configuration, by name.

    Args:
        config: a list of models.
        known: names of the models that there are.

    Raises:
        ServingError: INVALID_ARGUMENT, it cannot be.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise invalid("ModelServer does not yet support custom model config.")
    listed: dict[str, ModelConfig] = {}
    for one in config.model_config_list.config:
        if one.name in listed:
            raise invalid(f"Illegal to list model {one.name} multiple times in config list")
        if one.model_type and one.model_platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                "ModelServerConfig::model_platform."
            )
        if one.model_type not in (ModelType.MODEL_TYPE_UNSPECIFIED, ModelType.TENSORFLOW):
            raise invalid(f"ModelServerConfig::model_type choice {one.model_type} not supported.")
        platform = one.model_platform or (PLATFORM if one.model_type else "")
        if not platform:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform."
            )
        if platform != PLATFORM and one.name in known:
            raise invalid(
                f"Illegal to change a model's platform. For model {one.name} platform was "
                f"{PLATFORM} and new platform requested is {platform}"
            )
        if platform != PLATFORM:
            raise invalid(f"Model {one.name} requests unsupported platform {platform}")
        if not one.name or not one.base_path:
            raise invalid(f"Model {one.name!r} needs a name and a base_path")
        if not Path(one.base_path).is_absolute():
            raise invalid(
                f"Expected model {one.name} to have an absolute path or URI; got "
                f"base_path()={one.base_path}"
            )
        listed[one.name] = one
    return listed

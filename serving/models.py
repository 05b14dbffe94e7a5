"""The models of a server: which versions are loaded, and what is said of their state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.file_system_storage_path_source_pb2 import (
    FileSystemStoragePathSourceConfig,
)
from tensorflow_serving.config.model_server_config_pb2 import (
    ModelConfig,
    ModelServerConfig,
    ModelType,
)

from serving.errors import Code, ServingError, from_tensorflow, invalid
from serving.servable import Servable
from serving.versions import versions

PLATFORM = "tensorflow"

log = logging.getLogger("serving")

Content = dict[str, tuple[int, int]]  # size and time of change of files
State = ModelVersionStatus.State
Policy: TypeAlias = FileSystemStoragePathSourceConfig.ServableVersionPolicy
Load = Callable[[Path], Servable]


@dataclass
class VersionStatus:
    """State of one version, as GetModelStatus reports it."""

    state: Any
    code: Code = Code.OK
    message: str = ""


class Model:
    """The versions of one model under its base path.

    A new version is loaded and warmed before an old one goes; one that fails to load leaves the
    old one serving, and is tried again when its files change: it may have been half copied.

    Args:
        name: of the model.
        base_path: directory of numbered versions.
        policy: which of them are served; the latest one by default.
        load: makes a servable of a version's directory.
    """

    def __init__(
        self, name: str, base_path: Path, policy: Policy | None = None, load: Load = Servable
    ) -> None:
        self.name, self.base_path, self._load_one = name, base_path, load
        self.policy = policy or Policy()
        self.labels: dict[str, int] = {}
        self.statuses: dict[int, VersionStatus] = {}
        self._loaded: dict[int, Servable] = {}
        self._failed: dict[int, Content] = {}
        self._lock = threading.Lock()
        self._waiting = False

    def poll(self) -> None:
        """Loads the versions that should be served, then drops the others."""
        with self._lock:
            found = self._found()
            if not found:
                if not self._waiting:
                    log.warning("%s has no numbered version yet; waiting", self.base_path)
                self._waiting = True
                return
            self._waiting = False
            wanted = self._wanted(found)
            for version in wanted:
                if version not in self._loaded:
                    self._load(version, found[version])
            if any(version in self._loaded for version in wanted):
                self._unload(set(self._loaded) - set(wanted))

    def close(self) -> None:
        """Ends the runs that still go on."""
        for servable in list(self._loaded.values()):
            servable.close()

    def end(self) -> None:
        """Drops all versions."""
        with self._lock:
            self.labels = {}
            self._unload(set(self._loaded))

    def has(self, version: int) -> bool:
        """Whether a version is loaded."""
        return version in self._loaded

    @property
    def available(self) -> bool:
        """Whether any version is."""
        return bool(self._loaded)

    @property
    def why_unavailable(self) -> str:
        """The version that failed last, or that there is none."""
        failed = [(v, s.message) for v, s in sorted(self.statuses.items()) if s.code != Code.OK]
        if not failed:
            return f"name: {self.name}, no version is in {self.base_path}"
        version, message = failed[-1]
        return f"name: {self.name} version: {version} due to error: {message}"

    def get(self, version: int | None = None) -> tuple[int, Servable]:
        """A loaded version; the latest for None.

        Raises:
            ServingError: NOT_FOUND.
        """
        loaded = self._loaded.copy()
        if version is None and loaded:
            version = max(loaded)
        if version not in loaded or version is None:
            raise _not_found(self.name, version)
        return version, loaded[version]

    def _found(self) -> dict[int, Path]:
        try:
            return versions(self.base_path)
        except OSError:
            return {}

    def _wanted(self, found: dict[int, Path]) -> list[int]:
        choice = self.policy.WhichOneof("policy_choice")
        if choice == "all":
            return sorted(found)
        if choice == "specific":
            return sorted(set(self.policy.specific.versions) & set(found))
        return sorted(found)[-(self.policy.latest.num_versions or 1) :]

    def _load(self, version: int, directory: Path) -> None:
        content = _content(directory)
        if self._failed.get(version) == content:
            return
        self.statuses[version] = VersionStatus(State.LOADING)
        try:
            self._loaded[version] = self._load_one(directory)
        except Exception as error:  # whatever is wrong with it, the server goes on
            self._failed[version] = content
            status = _failure(error)
            self.statuses[version] = status
            log.error("%s version %d failed to load: %s", self.name, version, status.message)
        else:
            self._failed.pop(version, None)
            self.statuses[version] = VersionStatus(State.AVAILABLE)
            log.info("loaded %s version %d from %s", self.name, version, directory)

    def _unload(self, gone: Iterable[int]) -> None:
        for version in gone:
            del self._loaded[version]
            self.statuses[version] = VersionStatus(State.END)
            log.info("unloaded %s version %d", self.name, version)


class Models:
    """All models of a server, by name.

    Args:
        load: makes a servable of a version's directory.
        early_labels: whether a label may name a version that is not loaded yet. One that is moved
            needs a loaded version all the same.
    """

    def __init__(self, load: Load = Servable, early_labels: bool = False) -> None:
        self._load, self.early_labels = load, early_labels
        self._models: dict[str, Model] = {}
        self._ended: dict[str, Model] = {}  # of which only the states are left
        self._applying = threading.Lock()

    def apply(self, config: ModelServerConfig, patient: bool = False) -> None:
        """Serves what a configuration lists, and nothing else, once new models are loaded.

        Args:
            config: a list of models.
            patient: whether models may wait for versions that are not there yet.

        Raises:
            ServingError: as `check`, and nothing has changed; or UNKNOWN, a new model has no
                version that loads.
        """
        with self._applying:
            listed = self.check(config)
            new = {}
            for name, one in listed.items():
                model = self._models.get(name)
                if model is None or model.base_path != Path(one.base_path):
                    model = Model(name, Path(one.base_path), load=self._load)
                    new[name] = model
                model.policy = one.model_version_policy
                model.poll()
            gone = [model for name, model in self._models.items() if name not in listed]
            replaced = [self._models[name] for name in new if name in self._models]
            self._ended |= {model.name: model for model in gone}
            self._models = {n: new.get(n) or self._models[n] for n in listed}
            for name, one in listed.items():
                self._models[name].labels = dict(one.version_labels)
            for model in (*gone, *replaced):
                model.end()
            missing = [model for model in new.values() if not model.available]
            if missing and not patient:
                causes = ", ".join(f"{{{model.why_unavailable}}}" for model in missing)
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

    def poll(self) -> None:
        """Looks for new versions of every model."""
        for model in list(self._models.values()):
            model.poll()

    def close(self) -> None:
        """Ends the runs that still go on."""
        for model in list(self._models.values()):
            model.close()

    @property
    def ready(self) -> bool:
        """Whether every model has a version to answer with."""
        models = list(self._models.values())
        return bool(models) and all(model.available for model in models)

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
            raise _not_found(spec.name, version)
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


def _not_found(name: str, version: int | None) -> ServingError:
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")


def _failure(error: Exception) -> VersionStatus:
    if isinstance(error, tf.errors.OpError):
        error = from_tensorflow(error)
    code = error.code if isinstance(error, ServingError) else Code.UNKNOWN
    if isinstance(error, FileNotFoundError):
        code = Code.NOT_FOUND
    message = (str(error).splitlines() or [type(error).__name__])[0]
    return VersionStatus(State.END, code, message)


def _content(directory: Path) -> Content:
    """Changes with every file that is written below."""
    try:
        stats = {str(path): path.stat() for path in directory.rglob("*")}
    except OSError:  # a file went while we looked
        return {}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}

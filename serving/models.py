"""SavedModels: loading, versions, and running their signatures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.errors import Code, ServingError, from_tensorflow, invalid
from serving.versions import versions

DEFAULT_SIGNATURE = "serving_default"
WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARM_UP_RECORDS = 1_000

log = logging.getLogger("serving")

Arrays = dict[str, np.ndarray[Any, Any]]
Content = dict[str, tuple[int, int]]  # size and time of change of files
State = ModelVersionStatus.State


class Servable:
    """One loaded version of a model.

    Args:
        directory: of the SavedModel.

    Raises:
        Exception: it cannot be loaded, or a warm-up record cannot be answered.
    """

    def __init__(self, directory: Path) -> None:
        self.signature_defs = _signature_defs(directory)
        self._model = tf.saved_model.load(str(directory))
        self._warm_up(directory / WARM_UP)

    def run(self, signature: str, inputs: Mapping[str, Any]) -> Arrays:
        """Runs a signature.

        Args:
            signature: its name.
            inputs: arrays by name, exactly those of the signature.

        Raises:
            ServingError: names, dtypes or shapes that do not fit, or the model's own error.
        """
        definition = self.signature_defs[signature]
        _check_names(set(inputs), set(definition.inputs))
        tensors = {}
        for name, value in inputs.items():
            dtype = tf.dtypes.as_dtype(definition.inputs[name].dtype)
            if tf.dtypes.as_dtype(value.dtype) != dtype and not (
                dtype == tf.string and value.dtype.kind in "OSU"
            ):
                raise invalid(
                    f"Expects arg[{name}] to be {dtype.name} but {value.dtype} is provided"
                )
            shape = tf.TensorShape(definition.inputs[name].tensor_shape)
            if not shape.is_compatible_with(value.shape):
                raise invalid(
                    f"Expects arg[{name}] to have shape {shape} but {value.shape} is provided"
                )
            tensors[name] = tf.constant(value, dtype)
        try:
            outputs = self._model.signatures[signature](**tensors)
            return {name: _array(outputs[name]) for name in definition.outputs}
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from None

    def _warm_up(self, path: Path) -> None:
        if not path.is_file():
            return
        count = 0
        for record in tf.data.TFRecordDataset(str(path)):
            count += 1
            if count > MAX_WARM_UP_RECORDS:
                raise invalid(
                    "Number of warmup records exceeds the maximum "
                    f"({MAX_WARM_UP_RECORDS}) at {path}"
                )
            self._replay(prediction_log_pb2.PredictionLog.FromString(record.numpy()))
        log.info("warmed up with %d requests of %s", count, path)

    def _replay(self, logged: prediction_log_pb2.PredictionLog) -> None:
        kind = logged.WhichOneof("log_type")
        if kind != "predict_log":
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
        request = logged.predict_log.request
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature not in self.signature_defs:
            raise ServingError(
                Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.'
            )
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        self.run(signature, inputs)


def _signature_defs(directory: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return {
                name: definition
                for name, definition in graph.signature_def.items()
                if not name.startswith("__")
            }
    raise ServingError(Code.NOT_FOUND, f"{directory} has no graph with the tag serve")


def _array(tensor: tf.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(tensor.numpy(), object if tensor.dtype == tf.string else None)


def _check_names(sent: set[str], expected: set[str]) -> None:
    if sent != expected:
        extra, missing = sorted(sent - expected), sorted(expected - sent)
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)}; "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


@dataclass
class VersionStatus:
    """State of one version, as GetModelStatus reports it."""

    state: Any
    code: Code = Code.OK
    message: str = ""


class Model:
    """The versions of one model under its base path; the latest one serves.

    A new version is loaded and warmed before the old one goes; one that fails to load leaves the
    old one serving, and is tried again when its files change: it may have been half copied.

    Args:
        name: of the model.
        base_path: directory of numbered versions.
    """

    def __init__(self, name: str, base_path: Path) -> None:
        self.name, self.base_path = name, base_path
        self.statuses: dict[int, VersionStatus] = {}
        self._loaded: dict[int, Servable] = {}
        self._failed: dict[int, Content] = {}
        self._lock = threading.Lock()
        self._waiting = False

    def poll(self) -> None:
        """Loads the newest version on disk if it is not there yet, then drops older ones."""
        with self._lock:
            found = _versions(self.base_path)
            if not found:
                if not self._waiting:
                    log.warning("%s has no numbered version yet; waiting", self.base_path)
                self._waiting = True
                return
            self._waiting = False
            newest = max(found)
            if newest not in self._loaded:
                self._load(newest, found[newest])
            if newest in self._loaded:
                for version in [v for v in self._loaded if v != newest]:
                    del self._loaded[version]
                    self.statuses[version] = VersionStatus(State.END)
                    log.info("unloaded %s version %d", self.name, version)

    def _load(self, version: int, directory: Path) -> None:
        content = _content(directory)
        if self._failed.get(version) == content:
            return
        self.statuses[version] = VersionStatus(State.LOADING)
        try:
            self._loaded[version] = Servable(directory)
        except Exception as error:  # whatever is wrong with it, the server goes on
            self._failed[version] = content
            status = _failure(error)
            self.statuses[version] = status
            log.error("%s version %d failed to load: %s", self.name, version, status.message)
        else:
            self._failed.pop(version, None)
            self.statuses[version] = VersionStatus(State.AVAILABLE)
            log.info("loaded %s version %d from %s", self.name, version, directory)

    def get(self, version: int | None) -> tuple[int, Servable]:
        """A loaded version; the latest for None.

        Raises:
            ServingError: NOT_FOUND.
        """
        loaded = self._loaded.copy()
        if version is None and loaded:
            version = max(loaded)
        if version not in loaded or version is None:
            wanted = (
                f"Latest({self.name})" if version is None else f"Specific({self.name}, {version})"
            )
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
        return version, loaded[version]


class Models:
    """All models of the server, by name."""

    def __init__(self, models: list[Model]) -> None:
        self._models = {model.name: model for model in models}

    def poll(self) -> None:
        """Looks for new versions of every model."""
        for model in self._models.values():
            model.poll()

    def get(self, name: str, version: int | None = None) -> tuple[int, Servable]:
        """A loaded version of a model.

        Raises:
            ServingError: NOT_FOUND.
        """
        if name not in self._models:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
        return self._models[name].get(version)

    def statuses(self, name: str, version: int | None = None) -> dict[int, VersionStatus]:
        """States of a model's versions, newest first.

        Raises:
            ServingError: NOT_FOUND.
        """
        known = self._models[name].statuses if name in self._models else {}
        found = {v: s for v, s in sorted(known.items(), reverse=True) if version in (None, v)}
        if not found:
            which = (
                f"any versions of model {name}"
                if version is None
                else f"version {version} of model {name}"
            )
            raise ServingError(Code.NOT_FOUND, f"Could not find {which}")
        return found


def _failure(error: Exception) -> VersionStatus:
    if isinstance(error, tf.errors.OpError):
        error = from_tensorflow(error)
    code = error.code if isinstance(error, ServingError) else Code.UNKNOWN
    if isinstance(error, FileNotFoundError):
        code = Code.NOT_FOUND
    message = (str(error).splitlines() or [type(error).__name__])[0]
    return VersionStatus(State.END, code, message)


def _versions(base_path: Path) -> dict[int, Path]:
    try:
        return versions(base_path)
    except OSError:
        return {}


def _content(directory: Path) -> Content:
    """Changes with every file that is written below."""
    try:
        stats = {str(path): path.stat() for path in directory.rglob("*")}
    except OSError:  # a file went while we looked
        return {}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}

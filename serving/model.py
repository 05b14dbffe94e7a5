"""One model of a server: which of its versions are loaded, and what is said of their state."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.file_system_storage_path_source_pb2 import (
    FileSystemStoragePathSourceConfig,
)

from serving.errors import Code, ServingError, from_tensorflow
from serving.servable import Servable
from serving.versions import versions

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


@dataclass(frozen=True)
class Retries:
    """How a version that fails to load is tried again while its files stay the same.

    Attributes:
        times: at most; anew when files change.
        seconds: between them.
    """

    times: int = 5
    seconds: float = 60.0


RETRIES = Retries()


@dataclass
class _Failure:
    content: Content
    status: VersionStatus
    left: int  # tries
    due: float  # time.monotonic of the next one

    def holds(self, content: Content) -> bool:
        """Whether there is nothing to try now."""
        return self.content == content and (self.left == 0 or time.monotonic() < self.due)


class Model:
    """The versions of one model under its base path.

    A new version is loaded and warmed before an old one goes; one that fails to load leaves the
    old one serving, and is tried again when its files change: it may have been half copied. A base
    path that cannot be read changes nothing; one without wanted versions ends those it had.

    Args:
        name: of the model.
        base_path: directory of numbered versions.
        policy: which of them are served; the latest one by default.
        load: makes a servable of a version's directory.
        retries: of versions that fail to load.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        policy: Policy | None = None,
        load: Load = Servable,
        retries: Retries = RETRIES,
    ) -> None:
        self.name, self.base_path, self._load_one = name, base_path, load
        self.policy, self.retries = policy or Policy(), retries
        self.labels: dict[str, int] = {}
        self.statuses: dict[int, VersionStatus] = {}
        self._wanted: dict[int, Path] = {}  # at the last look
        self._loaded: dict[int, Servable] = {}
        self._failed: dict[int, _Failure] = {}  # of those that are wanted
        self._alive: weakref.WeakSet[Servable] = weakref.WeakSet()  # also unloaded ones that run
        self._lock = threading.Lock()
        self._problem = ""

    def configure(self, base_path: Path, policy: Policy) -> None:
        """Other versions to serve, from the next look on."""
        with self._lock:
            self.base_path, self.policy = base_path, policy

    def look(self) -> None:
        """Finds the versions that should be served, without loading them yet."""
        with self._lock:
            self._look()

    def poll(self, look: bool = True) -> None:
        """Loads the versions that should be served, then drops the others.

        Args:
            look: whether to look for them anew, or only to try again what failed to load.
        """
        with self._lock:
            if look:
                self._look()
            for version, directory in self._wanted.items():
                if not self._serves(version):
                    self._load(version, directory)
            self._unload(self._superseded())

    def close(self) -> None:
        """Ends the runs that still go on, those of unloaded versions too."""
        for servable in list(self._alive):
            servable.close()

    def end(self) -> None:
        """Drops all versions."""
        with self._lock:
            self.labels, self._wanted = {}, {}
            self._unload(list(self._loaded))

    def has(self, version: int) -> bool:
        """Whether a version is loaded."""
        return version in self._loaded

    @property
    def available(self) -> bool:
        """Whether any version is."""
        return bool(self._loaded)

    @property
    def settled(self) -> bool:
        """Whether any version of its base path is, and not only of one that it had before."""
        return any(one.directory.parent == self.base_path for one in [*self._loaded.values()])

    @property
    def why_unsettled(self) -> str:
        """The version that failed last, or that there is none."""
        if not self._failed:
            return f"name: {self.name}, no version is in {self.base_path}"
        version, failure = max(self._failed.items())
        return f"name: {self.name} version: {version} due to error: {failure.status.message}"

    def get(self, version: int | None = None) -> tuple[int, Servable]:
        """A loaded version; the latest for None.

        Raises:
            ServingError: NOT_FOUND.
        """
        loaded = self._loaded.copy()
        if version is None and loaded:
            version = max(loaded)
        if version not in loaded or version is None:
            raise not_found(self.name, version)
        return version, loaded[version]

    def _look(self) -> None:
        problem = ""
        try:
            wanted = self._chosen(versions(self.base_path))
        except OSError as error:
            problem = f"{self.base_path} cannot be read: {error.strerror}"
        else:
            if not wanted:
                problem = f"{self.base_path} has no numbered version to serve; waiting"
            self._wanted = wanted
            self._failed = {v: one for v, one in self._failed.items() if v in wanted}
            known = {v: one for v, one in self.statuses.items() if one.state != State.START}
            new = [v for v in wanted if v not in self._loaded and v not in self._failed]
            self.statuses = known | {v: VersionStatus(State.START) for v in new}
        if problem and problem != self._problem:  # once, and not at every look
            log.warning("%s", problem)
        self._problem = problem

    def _chosen(self, found: dict[int, Path]) -> dict[int, Path]:
        chosen = sorted(found)
        if self.policy.WhichOneof("policy_choice") == "specific":
            chosen = sorted(set(self.policy.specific.versions) & set(found))
        elif self.policy.WhichOneof("policy_choice") != "all":
            chosen = chosen[-(self.policy.latest.num_versions or 1) :]
        return {version: found[version] for version in chosen}

    def _serves(self, version: int) -> bool:
        """Whether a wanted version is loaded, from where it is wanted."""
        loaded = self._loaded.get(version)
        return loaded is not None and loaded.directory == self._wanted.get(version)

    def _superseded(self) -> list[int]:
        others = [version for version in self._loaded if not self._serves(version)]
        if not self._wanted:  # those of another base path wait for one of this
            return [v for v in others if self._loaded[v].directory.parent == self.base_path]
        return others if len(others) < len(self._loaded) else []

    def _load(self, version: int, directory: Path) -> None:
        content, failure = _content(directory), self._failed.get(version)
        if failure and failure.holds(content):
            return
        self.statuses[version] = VersionStatus(State.LOADING)
        try:
            self._loaded[version] = self._load_one(directory)
            self._alive.add(self._loaded[version])
        except Exception as error:  # whatever is wrong with it, the server goes on
            same = failure is not None and failure.content == content
            left = failure.left - 1 if failure and same else self.retries.times
            due = time.monotonic() + self.retries.seconds
            status = _failure(error)
            self._failed[version] = _Failure(content, status, left, due)
            # A version of the same number may still be served, from another base path.
            served = version in self._loaded
            self.statuses[version] = VersionStatus(State.AVAILABLE) if served else status
            log.error("%s version %d failed to load: %s", self.name, version, status.message)
        else:
            self._failed.pop(version, None)
            self.statuses[version] = VersionStatus(State.AVAILABLE)
            log.info("loaded %s version %d from %s", self.name, version, directory)

    def _unload(self, gone: Iterable[int]) -> None:
        for version in gone:
            del self._loaded[version]
            failure = self._failed.get(version)
            self.statuses[version] = failure.status if failure else VersionStatus(State.END)
            log.info("unloaded %s version %d", self.name, version)


def not_found(name: str, version: int | None) -> ServingError:
    """A NOT_FOUND; of the latest version for None."""
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

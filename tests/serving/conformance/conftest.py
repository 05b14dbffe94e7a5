"""Against which server the suite runs: one that it starts, or that of `--rest` and `--grpc`."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.serving.conformance.models import CONFIG, make
from tests.serving.process import DEADLINE, Address, Server, until


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rest", help="HOST:PORT of a server's REST API that has the models")
    parser.addoption("--grpc", help="HOST:PORT of its gRPC API")
    parser.addoption(
        "--models", help="the folder of that server's models, for tests that change it"
    )


@pytest.fixture(scope="session")
def remote(request: pytest.FixtureRequest) -> Address | None:
    rest, rpc = (request.config.getoption(f"--{api}", None) for api in ("rest", "grpc"))
    if bool(rest) != bool(rpc):
        raise pytest.UsageError("give both of --rest and --grpc")
    return Address(rest, rpc) if rest and rpc else None


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The folder of the server's models, if it can be changed."""
    if request.config.getoption("--rest", None):
        given = request.config.getoption("--models", None)
        return Path(given) if given else None
    return tmp_path_factory.mktemp("conformance") / "models"


@pytest.fixture(scope="session")
def server(remote: Address | None, place: Path | None) -> Iterator[Address]:
    """One server of all the suite's models, for tests that leave it as it is."""
    if remote:
        yield remote
        return
    assert place is not None  # it is the suite's own
    running = Server(None, place.parent / "log", *make(place))
    try:
        running.wait_for("loaded versions version 3")
        yield running
    finally:
        running.close()


@pytest.fixture(autouse=True)
def _own(request: pytest.FixtureRequest, remote: Address | None) -> None:
    if remote and request.node.get_closest_marker("embedded"):
        pytest.skip("of the embedded server alone")


@dataclass(frozen=True)
class Folder:
    """The folder of a server's models.

    Attributes:
        path: as the suite sees it.
        seen: as the server sees it.
        config: of the models in it.
        server: that serves it.
    """

    path: Path
    seen: Path
    config: ModelServerConfig
    server: Address

    def reload(self, config: ModelServerConfig) -> None:
        """Gives the server another configuration."""
        request = ReloadConfigRequest(config=config)
        reply = self.server.models.HandleReloadConfigRequest(request, timeout=DEADLINE)
        assert (reply.status.error_code, reply.status.error_message) == (0, "")

    def changed(self) -> ModelServerConfig:
        """A copy of the configuration, to change."""
        copy = ModelServerConfig()
        copy.CopyFrom(self.config)
        return copy


@pytest.fixture
def folder(server: Address, place: Path | None) -> Iterator[Folder]:
    """For tests that change what is served; afterwards it is as before."""
    if place is None:
        pytest.skip("the server's folder is needed, to change it: --models DIRECTORY")
    config = text_format.Parse((place / CONFIG).read_text(), ModelServerConfig())
    seen = Path(config.model_config_list.config[0].base_path).parent
    found = Folder(place, seen, config, server)
    yield found
    found.reload(config)


@dataclass(frozen=True)
class Added:
    """A model that a test has for itself: `versions` by and by.

    Attributes:
        folder: in which it is.
        name: of the model.
    """

    folder: Folder
    name: str

    @property
    def path(self) -> Path:
        """Where versions go."""
        return self.folder.path / self.name

    def copy(self, version: int) -> Path:
        """Copies a version to where no server takes it for one."""
        hidden = self.path / f"copy-{version}"
        return shutil.copytree(self.folder.path / "versions" / str(version), hidden)

    def add(self, version: int) -> None:
        """Adds a version (y = x / 2 + its number), whole at once."""
        self.copy(version).rename(self.path / str(version))

    def config(self, policy: str = "", labels: dict[str, int] | None = None) -> ModelServerConfig:
        """A configuration that serves it beside the others."""
        config = self.folder.changed()
        added = config.model_config_list.config.add(
            name=self.name,
            base_path=str(self.folder.seen / self.name),
            model_platform="tensorflow",
            version_labels=labels,
        )
        text_format.Parse(policy, added.model_version_policy)
        return config

    def states(self) -> dict[int, str]:
        """State of each version that the server knows."""
        status, body = self.folder.server.call("GET", f"/v1/models/{self.name}")
        assert status == 200
        return {int(one["version"]): one["state"] for one in body["model_version_status"]}

    def failed(self, version: int) -> None:
        """Waits until a version has failed. TF Serving says LOADING while it tries again."""
        own = isinstance(self.folder.server, Server)
        until(lambda: self.states().get(version) in (("END",) if own else ("LOADING", "END")))

    def offset(self, path: str = "") -> float:
        """What the served version adds, which is its number."""
        base = f"/v1/models/{self.name}{path}"
        status, body = self.folder.server.predict({"instances": [0]}, base)
        assert status == 200, body
        return float(body["predictions"][0])


@pytest.fixture
def unlisted(folder: Folder) -> Iterator[Added]:
    """A model with version 1, which the server is not told of yet."""
    added = Added(folder, f"added-{uuid.uuid4().hex[:8]}")
    added.add(1)
    yield added
    folder.reload(folder.config)
    shutil.rmtree(added.path)


@pytest.fixture
def added(unlisted: Added) -> Added:
    """A model that the server has loaded, with version 1."""
    unlisted.folder.reload(unlisted.config())
    return unlisted

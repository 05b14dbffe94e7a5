"""Against which server the suite runs: one that it starts, or that of `--rest` and `--grpc`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.conformance.models import make
from tests.serving.process import Address, Server

NEEDS_A_FOLDER = "the suite did not start this server, and cannot change its folder"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rest", help="HOST:PORT of a server's REST API that has the models")
    parser.addoption("--grpc", help="HOST:PORT of its gRPC API")


@pytest.fixture(scope="session")
def remote(request: pytest.FixtureRequest) -> Address | None:
    rest, rpc = (request.config.getoption(f"--{api}", None) for api in ("rest", "grpc"))
    if bool(rest) != bool(rpc):
        raise pytest.UsageError("give both of --rest and --grpc")
    return Address(rest, rpc) if rest and rpc else None


@pytest.fixture(scope="session")
def server(remote: Address | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """One server of all the suite's models, for tests that leave it as it is."""
    if remote:
        yield remote
        return
    place = tmp_path_factory.mktemp("conformance") / "models"
    running = Server(None, place.parent / "log", f"--model_config_file={make(place)}")
    try:
        running.wait_for("loaded versions version 3")
        yield running
    finally:
        running.close()


@pytest.fixture(autouse=True)
def _own(request: pytest.FixtureRequest, remote: Address | None) -> None:
    if remote and request.node.get_closest_marker("embedded"):
        pytest.skip("of the embedded server alone")

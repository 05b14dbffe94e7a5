from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serving.process import Server
from tests.serving.saved_models import save_everything, save_half, save_shop


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels to copy from: `two` (y = x / 2 + 2) and `three` (y = x / 2 + 3)."""
    base = tmp_path_factory.mktemp("halves")
    save_half(base / "two", 2.0)
    save_half(base / "three", 3.0)
    return base


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base path with the version 7 of a model with all signatures."""
    base = tmp_path_factory.mktemp("everything")
    save_everything(base / "7")
    return base


@pytest.fixture(scope="session")
def server(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it is."""
    running = Server(everything, tmp_path_factory.mktemp("server") / "log")
    try:
        running.wait_for("loaded model version 7")
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the version 3 of `Shop`."""
    base = tmp_path_factory.mktemp("recommender")
    save_shop(base / "3")
    running = Server(base, tmp_path_factory.mktemp("server") / "log")
    try:
        running.wait_for("loaded model version 3")
        yield running
    finally:
        running.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test."""
    running: list[Server] = []

    def start_one(base_path: Path, *flags: str) -> Server:
        running.append(Server(base_path, tmp_path / f"log{len(running)}", *flags))
        return running[-1]

    yield start_one
    for one in running:
        one.close()

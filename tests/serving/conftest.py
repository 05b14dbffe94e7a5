from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.serving.process import Server
from tests.serving.saved_models import save_everything, save_half, save_shop


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels to copy from: `two` (y = x / 2 + 2) and `three` (y = x / 2 + 3)."""
    base = tmp_path_factory.mktemp("halves")
    save_half(base / "two", 2.0)
    save_half(base / "three", 3.0)
    return base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Where a model's versions are to be."""
    path = tmp_path / "base"
    path.mkdir()
    return path


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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this address that vouches for itself, and its key."""
    place, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(1)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (place / "public.pem").write_bytes(signed.public_bytes(pem))
    (place / "private.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return place / "public.pem", place / "private.pem"

"""Public data sets, from a server of the test: what is fetched, refused and made of it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from pipeline import downloads
from pipeline.__main__ import main
from pipeline.checks import read
from pipeline.scan import scan
from tests.pipeline.conftest import ROOT

GENRES = ["Action|War", "Drama", "Comedy|Drama"]


def archive(files: dict[str, str], encoding: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        for name, text in files.items():
            target.writestr(name, text.encode(encoding))
    return content.getvalue()


def movielens_1m() -> bytes:
    """In the form of the published files, with a sign that is no UTF-8."""
    ratings = "".join(
        f"{u}::{1 + (u * 7 + i) % 9}::{1 + (u + i) % 5}::{978300000 + 60 * i}\n"
        for u in range(1, 31)
        for i in range(12)
    )
    movies = "".join(f"{m}::Amélie {m} ({1990 + m})::{GENRES[m % 3]}\n" for m in range(1, 9))
    users = "".join(
        f"{u}::{'MF'[u % 2]}::{18 + u % 4}::{u % 21}::{48000 + u}\n" for u in range(1, 31)
    )
    files = {"ratings": ratings, "movies": movies, "users": users}
    return archive({f"ml-1m/{name}.dat": text for name, text in files.items()}, "latin-1")


def movielens_25m() -> bytes:
    ratings = "userId,movieId,rating,timestamp\n" + "".join(
        f"{u},{1 + (u * 7 + i) % 9},{0.5 * (1 + (u + i) % 10)},{1147800000 + 60 * i}\n"
        for u in range(1, 31)
        for i in range(12)
    )
    movies = "movieId,title,genres\n" + "".join(
        f'{m},"Amélie, {m} ({1990 + m})",{GENRES[m % 3]}\n' for m in range(1, 9)
    )
    return archive({"ml-25m/ratings.csv": ratings, "ml-25m/movies.csv": movies}, "utf-8")


CONTENT = {"movielens-1m": movielens_1m, "movielens-25m": movielens_25m}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    """The folder of a server that all downloads come from, with the right files."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, make in CONTENT.items():
            known = downloads.DOWNLOADS[name]
            url = f"http://127.0.0.1:{server.server_port}/{known.file_name}"
            (folder / known.file_name).write_bytes(make())
            sha256 = hashlib.sha256(make()).hexdigest()
            changed = dataclasses.replace(known, url=url, sha256=sha256)
            monkeypatch.setitem(downloads.DOWNLOADS, name, changed)
        yield folder
        server.shutdown()


def fetch(name: str, to: Path) -> str:
    """What the command says."""
    result = CliRunner().invoke(main, ["download", name, "--to", str(to)])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.output


@pytest.mark.parametrize("name", CONTENT)
def test_events(name: str, served: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """All of them, joined; and the declaration in configs/ finds nothing wrong."""
    path = tmp_path / "to" / name / "events.parquet"
    assert fetch(name, tmp_path / "to").splitlines()[-1] == str(path)
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == 30 * 12
    row = next(r for r in rows if (r["userId"], r["movieId"]) == ("1", "8"))
    assert row["title"].startswith("Amélie")
    assert (row["genres"], row["year"]) == (GENRES[8 % 3], 1998)
    assert row["rating"] == {"movielens-1m": 2, "movielens-25m": 1.0}[name]
    unknown = next(r for r in rows if r["movieId"] == "9")  # no movie of this number
    assert (unknown["title"], unknown["year"]) == (None, None)
    if name == "movielens-1m":
        assert (row["gender"], row["age"], row["zip"]) == ("F", "19", "48001")
    config = ROOT / "configs" / f"{name.replace('-', '_')}.yaml"
    source = yaml.safe_load(config.read_text())["source"]
    assert source["path"] == f"downloads/{name}/events.parquet"
    (tmp_path / "to").rename(tmp_path / "downloads")
    monkeypatch.chdir(tmp_path)
    assert not scan(read(str(config)), 1_000).failed


def test_it_is_fetched_once(served: Path, tmp_path: Path) -> None:
    fetch("movielens-1m", tmp_path / "to")
    (served / "ml-1m.zip").unlink()
    assert fetch("movielens-1m", tmp_path / "to").strip().endswith("events.parquet")
    (tmp_path / "to" / "movielens-1m" / "events.parquet").unlink()
    assert fetch("movielens-1m", tmp_path / "to").strip().endswith("events.parquet")


def test_another_content(served: Path, tmp_path: Path) -> None:
    """Is not kept, whether it was fetched or put there by hand."""
    (served / "ml-1m.zip").write_bytes(movielens_25m())
    said = fetch("movielens-1m", tmp_path / "to")
    assert "/ml-1m.zip: is not the file that was published: its sha256 is" in said
    place = tmp_path / "to" / "movielens-1m"
    assert not list(place.iterdir())
    (place / "ml-1m.zip").write_bytes(b"half of it")
    assert f"{place}/ml-1m.zip: is not the file that was published" in fetch(
        "movielens-1m", tmp_path / "to"
    )


def test_no_network(served: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """One line says what to fetch by hand, and where to put it; then it goes on."""
    content = (served / "ml-1m.zip").read_bytes()
    (served / "ml-1m.zip").unlink()
    known = downloads.DOWNLOADS["movielens-1m"]
    target = tmp_path / "to" / "movielens-1m" / "ml-1m.zip"
    remedy = f"put the file at {target}, its sha256 is {known.sha256}"
    for url, reason in (
        (known.url, "File not found"),
        ("http://127.0.0.1:9/ml-1m.zip", "Connection refused"),
        ("http://nowhere.invalid/ml-1m.zip", ""),
    ):
        lost = dataclasses.replace(known, url=url)
        monkeypatch.setitem(downloads.DOWNLOADS, "movielens-1m", lost)
        (line,) = fetch("movielens-1m", tmp_path / "to").splitlines()
        assert line.startswith(f"Error: {url}: cannot be downloaded (")
        assert reason in line
        assert line.endswith(remedy)
    target.write_bytes(content)
    assert fetch("movielens-1m", tmp_path / "to").strip().endswith("events.parquet")


def test_an_unknown_name(tmp_path: Path) -> None:
    said = fetch("movielens-1M", tmp_path)
    assert "no data set 'movielens-1M'; did you mean 'movielens-1m'?" in said


@pytest.mark.parametrize("config", sorted(p.name for p in (ROOT / "configs").glob("*.yaml")))
def test_every_declaration_is_right(config: str) -> None:
    path = ROOT / "configs" / config
    if "source" in yaml.safe_load(path.read_text()):
        read(str(path))

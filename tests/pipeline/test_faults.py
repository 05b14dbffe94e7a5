"""Workers that die, disks that fill, files and declarations that are nonsense."""

from __future__ import annotations

import copy
import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.checks import check
from pipeline.declaration import Declaration
from pipeline.events import ParseEvents
from pipeline.graph import run_graph
from pipeline.run import run
from pipeline.sources import head
from pipeline.workspace import RECORD, Workspace
from tests.full_disk import on_full_disk
from tests.pipeline import shop
from tfrec.strict import UserError

FUZZ = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = shop.write_csv(shop.events(), tmp_path / "e.csv")
    declared = shop.tiny(path).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(declared))
    return tmp_path / "shop.yaml"


def command(config: Path, output: Path, until: str = "transform") -> list[str]:
    arguments = ["--config", str(config), "--output", str(output), "--until", until]
    return [sys.executable, "-m", "pipeline", "run", *arguments]


def test_a_run_that_is_killed(config: Path, tmp_path: Path) -> None:
    """In the last step: nothing of it is left, what was whole is kept, and a rerun succeeds."""
    output = tmp_path / "out"
    with subprocess.Popen(command(config, output), stdout=subprocess.DEVNULL) as process:
        while not list(output.glob(".transform.*/transform")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.kill()
    assert not (output / "transform").exists()
    again = subprocess.run(command(config, output), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    states = dict(line.split()[:2] for line in again.stdout.splitlines() if line[0] != " ")
    assert (states["ingest"], states["transform"]) == ("kept", "made")
    assert (output / "transform" / "features.json").is_file()
    assert not list(output.glob(".*"))


def test_a_disk_that_is_full(config: Path, tmp_path: Path) -> None:
    """The record cannot be written either."""
    output = tmp_path / "out"
    limited = on_full_disk(command(config, output, "ingest"), 300)
    failed = subprocess.run(limited, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr == f"Error: {output} cannot be written: File too large\n"
    assert not output.exists()
    again = subprocess.run(command(config, output, "ingest"), capture_output=True)
    assert again.returncode == 0


def test_a_shard_that_is_no_parquet(tmp_path: Path) -> None:
    paths = [Path(shop.write_parquet(shop.events(i), tmp_path / f"{i}.parquet")) for i in (1, 2)]
    content = bytearray(paths[1].read_bytes())
    content[100:400] = b"\0" * 300
    paths[1].write_bytes(content)
    source = {"format": "parquet", "path": str(tmp_path / "*.parquet")}
    with pytest.raises(UserError, match=f"^{paths[1]}: cannot be read to its end "):
        shop.prepare(shop.declare(source=source), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [RECORD]
    (failed,) = Workspace(tmp_path / "out").record()
    assert (failed["step"], failed["state"]) == ("ingest", "failed")
    assert failed["error"].startswith(f"{paths[1]}: cannot be read to its end ")


@pytest.mark.parametrize("full", ["out", "temporary"])
def test_which_disk_is_full(full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the outputs, or another one with the temporary files."""
    disks = {name: tmp_path / name for name in ("out", "temporary")}
    for disk in disks.values():
        disk.mkdir()
    monkeypatch.setenv("TMPDIR", str(disks["temporary"]))
    stat = Path.stat
    monkeypatch.setattr(
        Path,
        "stat",
        lambda path, **options: (
            SimpleNamespace(st_dev=-1, st_mode=stat(path).st_mode)
            if path == disks["temporary"]
            else stat(path, **options)
        ),
    )
    free = {disks[full]: 0}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(path, 2**40))
    )

    def build(pipeline: beam.Pipeline, keep: Any, shared: Any) -> None:
        del keep, shared
        _ = pipeline | beam.Create([0]) | beam.Map(_fill)

    with pytest.raises(UserError) as caught:
        run_graph(build, PipelineOptions(["--runner=FnApiRunner"]), disks["out"] / ".ingest")
    named = f"{disks[full]} (TMPDIR)" if full == "temporary" else str(disks[full])
    assert str(caught.value) == f"{named} cannot be written: No space left on device"


def _fill(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CELLS = st.one_of(
    st.sampled_from(["", "u1", "i1", "5", "1600000000", "2020-01-02", "nan", "-1", "1e400", "\\N"]),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8),
)
UNQUOTED = st.one_of(CELLS.map(lambda cell: cell.replace("\r", '"')), st.text('",\n1a', max_size=6))
HEADER = ["user", "item", "time", "rating", "price"]


def odd() -> Declaration:
    """A declaration that reads all columns of `HEADER`."""
    features = {
        "item": {"kind": "category", "role": "item"}, "price": {"kind": "number", "role": "item"}
    }  # fmt: skip
    keys = {"user": "user", "item": "item", "time": "time"}
    return shop.tiny("nowhere.csv", features=features, **keys, max_rejected=1.0)


def parsed(path: Path) -> tuple[int, int]:
    """Rows that were parsed, and rows that were rejected."""
    declaration = odd().model_copy(update={"source": shop.tiny(path).source})
    events = rejected = 0
    for element in head(declaration.source, HEADER, 10_000):
        for found in ParseEvents(declaration).process(element):
            if isinstance(found, beam.pvalue.TaggedOutput):
                rejected += found.value[1][0]
            else:
                events += found[1].num_rows
    return events, rejected


@FUZZ
@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=7), max_size=20))
def test_no_row_is_lost(rows: list[list[str]], tmp_path: Path) -> None:
    """Rows in are rows out and rows rejected, whatever the cells are and however many."""
    path = tmp_path / "odd.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([HEADER, *rows])
    whole = [row for row in rows if len(row) == len(HEADER)]
    lines = [1 + "".join(row).count("\n") for row in rows if row not in whole]
    events, rejected = parsed(path)
    assert events + rejected == len(whole) + sum(lines)
    assert events <= len(whole)


@FUZZ
@given(rows=st.lists(st.lists(UNQUOTED, min_size=4, max_size=6), max_size=20))
def test_no_row_is_lost_without_quotes(rows: list[list[str]], tmp_path: Path) -> None:
    """Cells are written as they are, with quotes, commas and ends of lines."""
    path = tmp_path / "odd.csv"
    path.write_text("".join(",".join(row) + "\n" for row in [HEADER, *rows]), "utf-8", newline="")
    try:
        events, rejected = parsed(path)
    except UserError as error:
        assert re.fullmatch(rf"{path}, line \d+: the value after a quote .*", str(error))
        return
    expected = before = 0
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        for row in reader:
            lines = max(reader.line_num - before, 1) if len(row) != len(HEADER) else 1
            expected += lines if row else 0
            before = reader.line_num
    assert events + rejected == expected - 1


@FUZZ
@given(places=st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_stray_quotes_take_no_rows(places: list[int], tmp_path: Path) -> None:
    """The file is refused, or all rows are rows."""
    text = "".join(f"u{i % 7},i{i % 5},{1_600_000_000 + i},{i % 5},{i}.5\n" for i in range(30))
    for place in places:
        at = place % len(text)
        text = text[:at] + '"' + text[at:]
    path = tmp_path / "odd.csv"
    path.write_text(",".join(HEADER) + "\n" + text)
    try:
        assert sum(parsed(path)) == 30
    except UserError as error:
        assert re.fullmatch(rf"{path}, line \d+: the value after a quote .*", str(error))


@FUZZ
@given(content=st.binary(max_size=300))
def test_a_file_of_anything(content: bytes, tmp_path: Path) -> None:
    """Is read, or refused with one line."""
    path = tmp_path / "odd.csv"
    path.write_bytes(",".join(HEADER).encode() + b"\n" + content)
    try:
        parsed(path)
    except UserError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)


def test_rows_of_a_whole_run(tmp_path: Path) -> None:
    """The counts that are printed and kept."""
    rows = [[f"u{i % 61}", f"i{i % 5}", str(i), str(i % 6), str(i)] for i in range(300)]
    rows += [["u1", "", "3", "1", "2"], ["u1", "i1", "soon", "1", "2"], ["u1"], ["u", "i"] * 4]
    path = tmp_path / "e.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    declaration = odd().model_copy(update={"source": shop.tiny(path).source})
    lines: list[str] = []
    options = PipelineOptions(["--runner=FnApiRunner"])
    run(
        declaration,
        tmp_path / "out",
        options,
        until="ingest",
        tell=lambda name, state, seconds, told: lines.extend(told),
    )
    report = json.loads((tmp_path / "out" / "ingest" / "report.json").read_text())
    rejected = {reason: count for reason, (count, _) in report["rejected"].items()}
    assert report["events"] == report["examples"]
    assert sum(report["events"].values()) == 300
    assert report["rows_read"] == len(rows)
    assert sum(rejected.values()) == 4
    assert lines[0].startswith("304 rows; ")
    for reason, count in rejected.items():
        assert any(line.startswith(f"rejected {count} rows: {reason}") for line in lines)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, 10**20, 10**400, -(10**20), "n" * 300]),
    st.floats(allow_nan=True),
    st.text(max_size=4),
    st.sampled_from(["user", "item", "category", "number", "like", "liked_item", "z_score"]),
    st.lists(st.one_of(st.text(max_size=3), st.integers(0, 3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all that is inside a declaration."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


WHOLE = shop.declare().model_dump(mode="json", exclude_unset=True)


@settings(FUZZ, max_examples=400)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(list(places(WHOLE))), VALUES, st.booleans()),
        min_size=1,
        max_size=3,
    )
)
def test_a_declaration_of_anything(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    """Is taken, or refused with one line that names the file."""
    values = copy.deepcopy(WHOLE)
    for path, value, drop in changes:
        block = values
        try:
            for key in path[:-1]:
                block = block[key]
            if drop:
                del block[path[-1]]
            else:
                block[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # another change has taken the place away
    try:
        check(Declaration.parse(values, "shop.yaml"), "shop.yaml")
    except UserError as error:
        assert str(error).startswith("shop.yaml: ")
        assert "\n" not in str(error)

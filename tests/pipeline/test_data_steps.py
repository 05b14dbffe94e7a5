"""The steps that look at the data: what they are refused for, and what lets them pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2

from pipeline.declaration import Declaration
from pipeline.run import run
from pipeline.workspace import Workspace
from tests.pipeline import shop
from tests.pipeline.shop import states, with_blocks
from tfrec.strict import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> tuple[Declaration, Path]:
    """The shop's events, and what was found of them."""
    folder = tmp_path_factory.mktemp("data_steps")
    source = {"format": "csv", "path": shop.write_csv(shop.events(), folder / "e.csv")}
    declaration = shop.declare(source=source)
    states(declaration, folder / "out", until="validation")
    return declaration, folder / "out"


def test_data_that_are_not_as_the_schema_says(made, tmp_path: Path):
    """They stop the run, until the schema allows them or the user does."""
    declaration, _ = made
    root = tmp_path / "out"
    rows = shop.events()
    path = Path(shop.write_csv(rows, tmp_path / "e.csv"))
    declaration = with_blocks(declaration, source={"format": "csv", "path": str(path)})
    states(declaration, root, until="validation")
    shop.write_csv([{**row, "device": "watch"} for row in rows], path)
    for _ in range(2):  # that it has been looked at before does not let it pass
        with pytest.raises(UserError, match=r"errors: 3.*'device' of train: 100\.00% of.*'watch'"):
            states(declaration, root, until="validation")
        last = Workspace(root).record()[-1]
        assert (last["step"], last["state"]) == ("validation", "refused")
        assert "'watch'" in last["error"]
    with pytest.raises(UserError, match="'watch'"):  # nor does a step alone go past it
        states(declaration, root, only="transform")
    anomalies = text_format.Parse(
        (root / "validation" / "anomalies.pbtxt").read_text(), anomalies_pb2.Anomalies()
    )
    assert list(anomalies.anomaly_info) == ["device"]
    assert "watch" in (root / "validation" / "statistics.html").read_text()
    warn = with_blocks(declaration, validation={"on_anomaly": "warn"})
    assert states(warn, root, until="validation")["validation"] == "kept"
    schema = root / "schema" / "schema.pbtxt"
    schema.write_text(schema.read_text().replace('value: "phone"', 'value: "phone" value: "watch"'))
    found = states(declaration, root, until="validation", force=True)
    assert found == {
        "ingest": "made", "statistics": "made", "schema": "kept", "validation": "made"
    }  # fmt: skip
    kept = tmp_path / "kept.pbtxt"
    kept.write_text(schema.read_text().replace('value: "watch"', ""))
    schema.unlink()
    assert states(declaration, root, until="validation")["schema"] == "made"
    assert "watch" in schema.read_text()
    given = with_blocks(declaration, validation={"schema_file": str(kept)})
    with pytest.raises(UserError, match="'watch'"):
        states(given, root, until="validation")


REQUESTED = (
    "user", "item", "time", "age", "favourite", "zip", "genres", "brand", "price", "device"
)  # fmt: skip


def test_requests_that_cannot_be_used(made, tmp_path: Path):
    """They are told and are an anomaly, though the others are as the training data."""
    declaration, root = made
    requests = [{name: row[name] for name in REQUESTED} for row in shop.events()]
    for row in requests[:5]:
        row["price"] = "9 EUR"
    path = shop.write_csv(requests, tmp_path / "requests.csv")
    with Path(path).open("a") as file:
        file.write("u1\n")
    wrong = with_blocks(declaration, validation={"serving": path})
    told: list[str] = []
    options = PipelineOptions(["--runner=FnApiRunner"])
    with pytest.raises(UserError) as caught:
        run(wrong, root, options, until="validation", tell=lambda *step: told.extend(step[3]))
    assert "rejected 5 requests: column 'price': not a number, such as '9 EUR'" in told
    assert f"rejected 1 requests: {path}: another number of fields than its header" in told
    (anomaly,) = [line for line in told if line.startswith("error: ")]
    assert anomaly.removeprefix("error: ") in str(caught.value)
    assert anomaly.startswith(
        "error: serving: 6 of 289 requests rejected (2.08%, max_rejected is 0.10%); most: column "
        "'price': not a number, such as '9 EUR' (5 requests); "
    )
    allowed = with_blocks(wrong, max_rejected=0.03)
    assert states(allowed, root, until="validation")["validation"] == "made"


def test_drift_and_skew(made, tmp_path: Path):
    """From yesterday's run, and against requests without labels and histories."""
    declaration, root = made
    rows = [{**row, "device": "desktop"} for row in shop.events()]
    source = {"format": "csv", "path": shop.write_csv(rows, tmp_path / "today.csv")}
    drifting = with_blocks(declaration, source=source, validation={"previous": str(root)})
    with pytest.raises(UserError, match="'device' of train: drift from the data before: L-inf"):
        states(drifting, tmp_path / "out", until="validation")
    requests = [{name: row[name] for name in REQUESTED} for row in rows]
    path = shop.write_csv(requests, tmp_path / "requests.csv")
    skewed = with_blocks(declaration, validation={"serving": path})
    with pytest.raises(UserError, match="'device' of train: skew from serving: L-infinity"):
        states(skewed, root, until="validation")
    lost = with_blocks(declaration, validation={"previous": str(tmp_path)})
    with pytest.raises(UserError, match=r"validation.previous: .* has no statistics"):
        states(lost, root, until="validation")

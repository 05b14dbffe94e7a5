"""What a long run would fail at late is told before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from click.testing import CliRunner

from pipeline.__main__ import main
from pipeline.run import problems, run
from pipeline.scan import scan
from tests.pipeline import shop
from tests.pipeline.test_steps import with_blocks
from tfrec.strict import UserError

TRAIN: dict[str, Any] = {"model": "wide_deep", "labels": ["like"]}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"train": {"modle": "wide_deep"}}, "train: 'model' is missing"),
        ({"train": {**TRAIN, "epohcs": 3}}, "train: unknown key 'epohcs'; did you mean 'epochs'?"),
        ({"train": {**TRAIN, "model": "wide_dep"}}, "unknown model 'wide_dep'; did you mean"),
        (
            {"train": {**TRAIN, "model": {"id": "wide_deep", "hiden": [8]}}},
            "model: unknown key 'hiden'; did you mean 'hidden'?",
        ),
        ({"train": {**TRAIN, "model": "mmoe"}}, "model mmoe needs two or more labels"),
        ({"train": TRAIN, "evaluate": {"slices": ["devise"]}}, "slices: no feature 'devise'; did"),
        (
            {"train": TRAIN, "bless": {"metric": "acu", "at_least": 0.7}},
            "bless rule 1: no metric 'acu'; did you mean 'auc'?",
        ),
        ({"validation": {"previous": "/nowhere"}}, "validation.previous: /nowhere has no stat"),
        ({"validation": {"schema_file": "/nowhere"}}, "validation.schema_file: no file '/nowhere'"),
        (
            {"validation": {"serving": "/nowhere/*.csv"}},
            "validation.serving: no file matches '/nowhere/*.csv'",
        ),
    ],
)
def test_what_the_declaration_gets_wrong(
    blocks: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A step that comes late would fail at it; a run with that step does so at once."""
    declaration = with_blocks(shop.declare(), **blocks)
    root = tmp_path / "out"
    (found,) = problems(declaration, root)
    assert found.startswith(message)
    until = "bless" if "bless" in blocks else "evaluate" if "train" in blocks else "validation"
    with pytest.raises(UserError) as caught:  # before it misses the source, nowhere.csv
        run(declaration, root, PipelineOptions([]), until=until)
    assert str(caught.value) == found


def test_requests_without_a_column(tmp_path: Path) -> None:
    path = shop.write_csv([{"user": "u", "item": "i"}], tmp_path / "requests.csv")
    (found,) = problems(with_blocks(shop.declare(), validation={"serving": path}), tmp_path)
    assert found.startswith(f"validation.serving: {path}: has no column ")


def test_nothing_is_wrong(tmp_path: Path) -> None:
    whole = {
        "train": TRAIN,
        "evaluate": {
            "slices": ["device", "user_events", "liked", "liked_genres=a", "age_x_device=30&tv"]
        },
        "bless": {"metric": "auc", "at_least": 0.5},
    }
    assert problems(with_blocks(shop.declare(), **whole), tmp_path) == []


@pytest.mark.parametrize(
    ("split", "column", "empty"),
    [
        ("user_time", "user", ["train", "validation"]),  # an event for every user
        ("leave_one_out", "user", ["validation", "test"]),
        ("time", "time", ["validation", "test"]),  # all at once
    ],
)
def test_a_split_without_examples(
    split: str, column: str, empty: list[str], tmp_path: Path
) -> None:
    """Is an error where all events are looked at."""
    rows = shop.events()
    changed = [{**r, column: f"u{i}" if column == "user" else 7} for i, r in enumerate(rows)]
    source = {"format": "csv", "path": shop.write_csv(changed, tmp_path / "e.csv")}
    declaration = shop.declare(source=source, split={"kind": split}, histories={}, crosses=[])
    for most, begin in ((len(rows) + 1, "error: "), (len(rows), "warning: ")):
        told = [str(f) for f in scan(declaration, most).findings if "is empty" in f.what]
        assert [line.split(" is empty")[0] for line in told] == [
            f"{begin}split {name}" for name in empty
        ]


def test_the_command_tells_all_of_it(tmp_path: Path) -> None:
    declared = shop.declare(
        source={"format": "csv", "path": shop.write_csv(shop.events(), tmp_path / "e.csv")}
    )
    values = declared.model_dump(mode="json", exclude_unset=True)
    values |= {"validation": {"previous": "/nowhere"}, "train": {"modle": "lr"}}
    config = tmp_path / "shop.yaml"
    config.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "error: validation.previous: /nowhere has no statistics; name a run's --output",
        "error: train: 'model' is missing",
        f"{config}: rows looked at: 288, errors: 2, warnings: 0",
    ]

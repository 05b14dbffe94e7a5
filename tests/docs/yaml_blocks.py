"""Blocks of YAML: declarations of data sets, configurations of trainings, searches, or parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.checks import check
from pipeline.declaration import Declaration
from pipeline.scan import scan
from tests.docs.blocks import ROOT
from tfrec.config import TrainConfig
from tfrec.models.registry import find
from tfrec.overrides import check_hyperparameters
from tfrec.tune import TuneConfig

# Of events that the pages' parts of declarations speak of: MovieLens's, and some of a shop's.
COLUMNS = {
    "userId", "movieId", "timestamp", "rating", "genres", "title", "year", "price", "clicked",
    "event",
}  # fmt: skip


class Page:
    """What the parts of declarations on one page are parts of."""

    def __init__(self) -> None:
        whole = yaml.safe_load((ROOT / "configs" / "movielens.yaml").read_text())
        self.whole = {
            key: whole[key] for key in ("name", "source", "user", "item", "time", "split")
        }
        self.whole |= {key: whole[key] for key in ("features", "labels")}

    def check(self, text: str, folder: Path) -> None:
        """Checks a block as the program would.

        Args:
            text: of the block.
            folder: where a whole declaration's events are, and where a named file is written to.

        Raises:
            UserError: what the program says of it.
            AssertionError: a declaration of columns that the events do not have.
        """
        if named := re.match(r"# (\S+\.yaml)\n", text):
            (folder / named[1]).write_text(text)
        for values in variants(text):
            keys = set(values)
            if keys <= set(TuneConfig.model_fields):
                search = TuneConfig.parse(values, "the block")
                _check_training(search.training)
            elif keys <= set(Declaration.model_fields):
                self._check_declaration(values, folder)
            else:
                _check_training(values)

    def _check_declaration(self, values: dict[str, Any], folder: Path) -> None:
        if "name" in values:
            declaration = Declaration.parse(_with_paths(values, folder), "the block")
            check(declaration, "the block")
            found = scan(declaration, 10_000)
            assert not found.failed, [str(finding) for finding in found.findings]
            return
        merged = self.whole | values
        source = values.get("source", {})
        if "train" in source:
            del merged["split"]
        if "serving" in values.get("validation", {}):  # are files, as the source's are
            merged["source"] = {"format": "csv", "path": "events.csv"}
        if "negatives" in values:  # are for events without labels
            for key in ("labels", "histories"):
                merged.pop(key, None)
            values["negatives"].pop("label", None)
        declaration = Declaration.parse(merged, "the block")
        check(declaration, "the block")
        assert not (wrong := columns(declaration) - COLUMNS), f"no columns {wrong}"
        if keys := {"features", "labels", "histories"} & set(values):  # later parts name them
            self.whole |= {key: values[key] for key in keys}


def columns(declaration: Declaration) -> set[str]:
    """Raw columns that a declaration names."""
    named = {declaration.user, declaration.item, declaration.time, declaration.weight}
    named |= {declaration.column(feature) for feature in declaration.features}
    named |= {label.column for label in declaration.labels.values()}
    return {name for name in (*named, *declaration.show) if name}


def variants(text: str) -> Iterator[dict[str, Any]]:
    """Mappings of a block, which may give one key several times to show several ways."""
    entries = re.split(r"(?m)^(?=[A-Za-z_]+:)", re.sub(r"\A(#.*\n)+", "", text))
    parsed = [yaml.safe_load(entry) for entry in entries if entry.strip()]
    keys = [key for values in parsed for key in values]
    if len(keys) > len(set(keys)):
        yield from parsed
    else:
        yield yaml.safe_load(text)


def _check_training(values: dict[str, Any]) -> None:
    config = TrainConfig.parse({"data": "data/shop", "model": {"id": "dnn"}} | values, "the block")
    model = find(config.model.id).load()
    check_hyperparameters(model.__init__, config.model.hyperparameters)


def _with_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    paths = {"path", "train", "validation", "test"}
    source = values["source"].items()
    return values | {"source": {k: str(folder / v) if k in paths else v for k, v in source}}

"""The catalogue: one line per model. Listing it imports no TensorFlow."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tfrec.features import Features
from tfrec.strict import UserError, nearest

if TYPE_CHECKING:
    from tfrec.models.base import Model

Need = Literal["history", "user", "item", "labels"]

_NEEDS: dict[str, str] = {
    "history": "a history (declare one under `histories`)",
    "user": "features of role user",
    "item": "features of role item",
    "labels": "two or more labels",
}


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    Attributes:
        id: name on the command line.
        target: `module:class`, under tfrec.models.
        family: section of the catalogue.
        paper: authors, year and title.
        needs: what a data set must offer.
    """

    id: str
    target: str
    family: str
    paper: str
    needs: tuple[Need, ...] = ()

    def load(self) -> type[Model]:
        """The class. Imports TensorFlow."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(f"tfrec.models.{module}"), name)

    def check(self, features: Features) -> None:
        """Checks that a data set has what the model needs.

        Raises:
            UserError: it has not.
        """
        has = {
            "history": bool(features.histories),
            "user": bool(features.of_role("user")),
            "item": bool(features.of_role("item")),
            "labels": len(features.labels) > 1,
        }
        for need in self.needs:
            if not has[need]:
                raise UserError(
                    f"model {self.id} needs {_NEEDS[need]}; data set {features.name!r} has none"
                )
        if "labels" not in self.needs and len(features.labels) != 1:
            names = ", ".join(label.name for label in features.labels)
            raise UserError(f"model {self.id} takes one label; `labels` names {names}")


FAMILIES = {
    "ranking": "Ranking on fields",
    "history": "Ranking with a history",
}

# fmt: off
# ruff: noqa: E501 - a line per model
ENTRIES = (
    Entry("lr", "ranking.lr:LR", "ranking", "McMahan et al. 2013, Ad Click Prediction: a View from the Trenches"),
    Entry("dnn", "ranking.dnn:DNN", "ranking", "Zhang, Du & Wang 2016, Deep Learning over Multi-field Categorical Data"),
    Entry("wide_deep", "ranking.wide_deep:WideDeep", "ranking", "Cheng et al. 2016, Wide & Deep Learning for Recommender Systems"),
    Entry("deepfm", "ranking.deepfm:DeepFM", "ranking", "Guo et al. 2017, DeepFM: A Factorization-Machine based Neural Network for CTR Prediction"),
    Entry("din", "history.din:DIN", "history", "Zhou et al. 2018, Deep Interest Network for Click-Through Rate Prediction", ("history", "item")),
)
# fmt: on

_BY_ID = {entry.id: entry for entry in ENTRIES}


def find(model: str) -> Entry:
    """Entry of a model.

    Raises:
        UserError: no such model; the nearest id is suggested.
    """
    if model not in _BY_ID:
        raise UserError(f"unknown model {model!r}{nearest(model, _BY_ID)}")
    return _BY_ID[model]

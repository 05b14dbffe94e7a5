"""One user's candidates ranked in one request: the user goes through the transform once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec import catalogue
from tfrec.catalogue import Catalogue
from tfrec.crosses import crossed
from tfrec.features import Features
from tfrec.models.base import Model
from tfrec.recommending import partial_inputs, user_specs

CANDIDATES = {"candidates": tf.TensorSpec([None, None], tf.string, "candidates")}
WARM_UP_CANDIDATES = 100


class Ranker(tf.Module):
    """Scores pairs of a user and an item by a model that scores one example.

    Items went through the transform when this was made, so that each pair needs its crosses alone.

    Args:
        features: of the data set.
        model: with its weights.
        transform: of the data set, loaded.
        data: directory of the data set, which says what items are.
        keys: (n,) raw items that are known by their place.
    """

    def __init__(
        self, features: Features, model: Model, transform: Any, data: str | Path, keys: Any
    ) -> None:
        super().__init__()
        self.features, self._model = features, model
        self.transform = transform
        self.weights = model.variables
        # The last row is an item that nothing is known of.
        every = np.append(keys, np.array([""], object))
        raw = catalogue.raw_columns(data, features, every)
        items = Catalogue(features, every, np.zeros(len(every), np.int64), raw)
        self.items = {
            name: tf.Variable(values, trainable=False, name=f"items_{name}")
            for name, values in items.inputs(transform).items()
        }

    def scores(self, columns: dict[str, tf.Tensor], places: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the model says of pairs.

        Args:
            columns: raw columns of the users and the context, (batch,) or (batch, events), by
                their names in requests.
            places: (batch, candidates) places of items among the keys; -1 for an unknown one.

        Returns:
            By the model's outputs, (batch, candidates).
        """
        shape = tf.shape(places)
        count = tf.shape(next(iter(self.items.values())))[0]
        flat = tf.reshape(places, [-1]) % tf.cast(count, places.dtype)
        of_user = partial_inputs(self.features, self.transform, columns)
        inputs = {name: tf.repeat(value, shape[1], axis=0) for name, value in of_user.items()}
        inputs |= {name: tf.gather(values, flat) for name, values in self.items.items()}
        for cross in self.features.crosses:
            parts = [inputs[name] for name in cross.parts]
            found = crossed(parts, self.features.table(cross.table).vocabulary)
            inputs[cross.name] = found.to_tensor(shape=[None, cross.length])
        served = self._model.served(self._model(inputs, training=False))
        return {name: tf.reshape(value, shape) for name, value in served.items()}


class CandidateRanker(tf.Module):
    """The signature `rank`: scores of named items for each user.

    Args:
        features: of the data set.
        model: with its weights.
        transform: of the data set, loaded.
        data: directory of the data set.
        place: an existing directory, for the file that the export takes the items' names from.

    Raises:
        UserError: the data set's items have no vocabulary; or a column is called as the candidates.
    """

    def __init__(
        self, features: Features, model: Model, transform: Any, data: Path, place: Path
    ) -> None:
        super().__init__()
        self.features = features
        self.keys = catalogue.load(data, features).keys
        self.ranker = Ranker(features, model, transform, data, self.keys)
        self.places = catalogue.Places(self.keys, place)
        rank = tf.function(self._rank, autograph=False)
        specs = user_specs(features, CANDIDATES)
        self.rank = rank.get_concrete_function(**specs, **CANDIDATES)

    def _rank(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        places = self.places(inputs.pop("candidates"))
        return self.ranker.scores(inputs, places)

    def request(self, columns: dict[str, Any]) -> dict[str, Any]:
        """A request of `rank`, of the raw columns of `predict`'s."""
        count = len(next(iter(columns.values())))
        some = self.keys[:WARM_UP_CANDIDATES]
        users = {name: columns[name] for name in user_specs(self.features, CANDIDATES)}
        return {**users, "candidates": np.tile(some, (count, 1))}


def ranks(features: Features, data: Path) -> bool:
    """Whether a data set names its items, or will, so that `rank` can be asked for them."""
    if features.item_id is None or features.item_key is None:
        return False
    learned = features.table(features.feature(features.item_id).table).learned
    # TFX's data sets have none.
    return learned and ((data / "items").is_dir() or not data.is_dir())

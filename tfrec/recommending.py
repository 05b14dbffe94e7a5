"""The signatures of models that score all items: who wants what, from raw columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfrec.catalogue import Catalogue, Places
from tfrec.features import Column, Feature, Features
from tfrec.serving_inputs import MISSING, from_columns, request_name, signature_columns
from tfrec.strict import UserError

if TYPE_CHECKING:
    from tfrec.models.retrieval.base import RetrievalModel

OPTIONS = {
    "k": tf.TensorSpec([None], tf.int32, "k"),
    "exclude_seen": tf.TensorSpec([None], tf.bool, "exclude_seen"),
    "exclude": tf.TensorSpec([None, None], tf.string, "exclude"),
}


def item_columns(features: Features) -> list[Column]:
    """Raw columns that describe the candidate item and nothing else."""
    of_item = {feature.column for feature in features.of_role("item")}
    others = {feature.column for feature in features.features if feature.role != "item"}
    return [c for c in features.columns if not c.history and c.name in of_item - others]


def user_specs(
    features: Features, others: Mapping[str, tf.TensorSpec] = OPTIONS
) -> dict[str, tf.TensorSpec]:
    """Inputs of a signature that knows of no item: raw columns of the user and the context.

    Args:
        features: of the data set.
        others: further inputs of the signature.

    Raises:
        UserError: one of the columns has the name of another input.
    """
    names = {request_name(column) for column in item_columns(features)}
    specs = {n: spec for n, spec in signature_columns(features).items() if n not in names}
    for name in others:
        if name in specs:
            raise UserError(f"column {name!r} has the name of another input of exports; rename it")
    return specs


def partial_inputs(
    features: Features, transform: Any, columns: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Model inputs of some raw columns, by their names in requests; all others are missing."""
    from tfrec.data import pad

    count = tf.shape(next(iter(columns.values())))[0]
    whole = {}
    for column in features.columns:
        nothing = tf.constant(MISSING.get(column.dtype, 0), column.dtype)
        shape = tf.stack([count, 0]) if column.history else [count]
        whole[request_name(column)] = columns.get(request_name(column), tf.fill(shape, nothing))
    return pad(features, transform.transform_fn(from_columns(features, whole)))


class Retriever(tf.Module):
    """Finds the best items of a model among all, in a graph.

    Args:
        features: of the data set.
        model: with its weights.
        transform: of the data set, loaded.
        catalogue: of its items.
        directory: an existing one, for the file that the export takes the items' names from.
    """

    def __init__(
        self,
        features: Features,
        model: RetrievalModel,
        transform: Any,
        catalogue: Catalogue,
        directory: Path,
    ) -> None:
        super().__init__()
        self.features, self._model = features, model
        self.transform = transform
        self.weights = model.variables
        self.vectors = tf.Variable(model.index(), trainable=False, name="item_vectors")
        self.keys = tf.Variable(catalogue.keys, trainable=False, dtype=tf.string, name="items")
        self.places = Places(catalogue.keys, directory)
        self._seen = [mask.name for mask in seen_features(features)]

    def inputs(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Model inputs of raw columns of the user, or of the item."""
        return partial_inputs(self.features, self.transform, columns)

    def best(
        self,
        columns: dict[str, tf.Tensor],
        options: dict[str, tf.Tensor],
        k: tf.Tensor,
        seen: Sequence[tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The best items that are not excluded.

        Args:
            columns: raw columns of the users and the context, by their names in requests.
            options: of `recommend`.
            k: how many.
            seen: raw items (batch, events) that `exclude_seen` is about.

        Returns:
            Ids (batch, k), 0 behind them, and their scores.
        """
        inputs = self.inputs(columns)
        wanted = tf.cast(options["exclude_seen"], tf.int64)[:, tf.newaxis]
        # Of a long history the model has the newest events alone.
        named = [self.places(items) + 1 for items in seen]
        ids = [found * wanted for found in (*named, *(inputs[name] for name in self._seen))]
        excluded = tf.concat([self.places(options["exclude"]) + 1, *ids], axis=1)
        users = self._model.users(inputs, training=False)
        return self._model.best(users, self.vectors, excluded, k)

    def write_vectors(self, path: Path) -> None:
        """Writes columns item (string) and vector (float32 list) as Parquet: for any index."""
        import pyarrow as pa
        import pyarrow.parquet

        vectors = self.vectors.numpy().astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
        keys = pa.array([key.decode() for key in self.keys.numpy()], pa.string())
        pa.parquet.write_table(pa.table({"item": keys, "vector": column}), path)

    def names(self, ids: tf.Tensor) -> tf.Tensor:
        """Items as the data set calls them, "" for id 0."""
        found = tf.gather(self.keys, tf.maximum(ids - 1, 0))
        return tf.where(ids > 0, found, "")


def seen_features(features: Features) -> list[Feature]:
    """Of every history of items, the feature that names them."""
    masks = [history.mask_feature for history in features.histories]
    return [mask for mask in masks if mask.mirrors == features.item_id]


def seen_columns(features: Features) -> list[str]:
    """Raw columns of what users have seen, by their names in requests."""
    names = {column.name: request_name(column) for column in features.columns}
    return [names[mask.column] for mask in seen_features(features) if mask.column]


def first(k: tf.Tensor, values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Every row's first k values (batch, most k); "" or 0 behind them."""
    wanted = tf.sequence_mask(k, tf.shape(next(iter(values.values())))[1])
    return {name: tf.where(wanted, v, tf.zeros_like(v)) for name, v in values.items()}


def recommending(retriever: Retriever, model: RetrievalModel) -> dict[str, Any]:
    """Signatures: `recommend`; `user_vectors` and `item_vectors` whose products are the scores."""
    features = retriever.features

    @tf.function(autograph=False)
    def recommend(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        columns, options = split_options(inputs)
        seen = [columns[name] for name in seen_columns(features)]
        ids, scores = retriever.best(columns, options, tf.reduce_max(options["k"]), seen)
        return first(options["k"], {"items": retriever.names(ids), "scores": scores})

    @tf.function(autograph=False)
    def user_vectors(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        users = model.users(retriever.inputs(columns), training=False)
        return {"vectors": tf.cast(users, tf.float32)}

    @tf.function(autograph=False)
    def item_vectors(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        items = model.items(retriever.inputs(columns), training=False)
        return {"vectors": tf.cast(items, tf.float32)}

    specs, every = user_specs(features), signature_columns(features)
    found = {"recommend": recommend.get_concrete_function(**specs, **OPTIONS)}
    if model.dot_product:
        of_item = {name: every[name] for name in map(request_name, item_columns(features))}
        found["user_vectors"] = user_vectors.get_concrete_function(**specs)
        found["item_vectors"] = item_vectors.get_concrete_function(**of_item)
    return found


def recommend_request(features: Features, columns: dict[str, Any]) -> dict[str, Any]:
    """A request of `recommend`, of the raw columns of `predict`'s."""
    count = len(next(iter(columns.values())))
    options = {
        "k": np.full(count, 10, np.int32),
        "exclude_seen": np.ones(count, bool),
        "exclude": np.full((count, 1), b""),
    }
    return {name: columns[name] for name in user_specs(features)} | options


def split_options(
    inputs: dict[str, tf.Tensor],
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Raw columns, and the options of `recommend`.

    Raises:
        tf.errors.InvalidArgumentError: when it runs: a number of wanted items is negative.
    """
    tf.debugging.assert_non_negative(inputs["k"], "k is negative: the number of wanted items")
    columns = {name: value for name, value in inputs.items() if name not in OPTIONS}
    return columns, {name: inputs[name] for name in OPTIONS}

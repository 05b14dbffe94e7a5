"""What models that score all items have in common."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec.config import ItemLossConfig
from tfrec.features import Feature, Features, Table
from tfrec.item_losses import item_loss
from tfrec.layers.items import Items
from tfrec.models.base import Inputs, Model

SHARED = ("sampled_softmax", "bpr_max", "top1_max")
SCORE = "score"
# Training settings for scores of vectors of length 1, and some 1,000,000 examples.
OF_UNIT_VECTORS: dict[str, Any] = {
    "batch_size": 2048,
    "validations_per_epoch": 1,
    "optimizers": {
        "embedding": {"learning_rate": 0.01, "schedule": {"kind": "cosine"}},
        "dense": {"learning_rate": 0.003, "schedule": {"kind": "cosine"}},
    },
    "item_loss": {"negatives": 4096, "temperature": 0.1},
}


class RetrievalModel(Model):
    """A model of which item a user takes next: subclasses give `users` and `items`.

    It learns from positive examples, those whose label is 1 where there is one, by telling their
    items from others: all of them, some that are drawn, or those of the batch (`item_loss` of the
    configuration). `call` gives the score of an example's own item, {"score": (batch,)}.

    Attributes:
        catalogue: what it knows of every item.
        normalise: whether `scaled` divides vectors by their lengths; set by the constructor.

    Args:
        features: of the data set; `item_id` names a feature with a vocabulary.
        fields: features of an item that `items` reads beside its id.

    Raises:
        ValueError: the features have no id of the item, or several labels.
    """

    normalise = False

    def __init__(self, features: Features, fields: tuple[Feature, ...] = ()) -> None:
        if not features.item_id:
            raise ValueError(
                "needs the item's id: a category with one value and role item, of the column "
                "that the declaration names in `item`"
            )
        if len(features.labels) > 1:
            names = [label.name for label in features.labels]
            raise ValueError(f"learns from one label, the features have {names}")
        super().__init__(features)
        self.item_id = features.feature(features.item_id)
        table = features.table(self.item_id.table)
        if not table.learned:
            raise ValueError(f"needs a vocabulary of the items: {self.item_id.name!r} is hashed")
        self.catalogue = Items(self.item_id, table.vocabulary, fields)
        self.loss_config: Any = ItemLossConfig()

    @property
    def user_id(self) -> str:
        """Name of the user's id.

        Raises:
            ValueError: the features have none.
        """
        if not self.features.user_id:
            raise ValueError("needs the user's id: a category of the column named in `user`")
        return self.features.user_id

    @property
    def id_tables(self) -> dict[str, Table]:
        """Of the ids of the `user` and of the `item`.

        Raises:
            ValueError: the features have no id of the user.
        """
        ids = {"user": self.features.feature(self.user_id), "item": self.item_id}
        return {side: self.features.table(feature.table) for side, feature in ids.items()}

    @property
    def all_ids(self) -> tf.Tensor:
        """(items,) ids of all items; not those that stand for unknown ones."""
        return tf.range(1, self.catalogue.size + 1, dtype=tf.int64)

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        """(batch, width) vectors of the users; nothing of the example's item goes into them."""
        raise NotImplementedError

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        """(n, width) vectors of items with these features."""
        raise NotImplementedError

    def scaled(self, vectors: tf.Tensor) -> tf.Tensor:
        """Vectors (n, width), of length 1 where the model has `normalise`."""
        if not self.normalise:
            return vectors
        return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=1)

    def scores(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """float32 scores: ⟨u, v⟩ unless a model says otherwise.

        Args:
            users: (users, width).
            items: (items, width), each for every user; or (users, n, width), each for its user.

        Returns:
            (users, items), or (users, n).
        """
        users, items = tf.cast(users, tf.float32), tf.cast(items, tf.float32)
        if items.shape.rank == 2:
            return tf.matmul(users, items, transpose_b=True)
        return tf.einsum("uw,unw->un", users, items)

    @property
    def dot_product(self) -> bool:
        """Whether a score is the product of two vectors, so that any index can find the best."""
        return type(self).scores is RetrievalModel.scores

    def index(self) -> tf.Tensor:
        """(items, width) float32 vectors of all items, in the order of their ids 1, 2, …"""
        return tf.cast(self.items(self.catalogue(self.all_ids), training=False), tf.float32)

    def call(self, inputs: Inputs, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Scores of the examples' own items."""
        ids = inputs[self.item_id.name]
        known = (ids > 0) & (ids <= self.catalogue.size)
        items = self._vectors(tf.where(known, ids, 0)[:, tf.newaxis], training)
        return {SCORE: self.scores(self.users(inputs, training), items)[:, 0]}

    def _vectors(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Vectors of the items with ids (a, b): (a, b, width)."""
        found = self.items(self.catalogue(tf.reshape(ids, [-1])), training)
        shape = tf.concat([tf.shape(ids), [found.shape[-1]]], axis=0)
        return tf.ensure_shape(tf.reshape(found, shape), [*ids.shape, found.shape[-1]])

    def target_ids(self, inputs: Inputs) -> tf.Tensor:
        """Ids of the items that training examples are to tell, 0 where there is none."""
        return inputs[self.item_id.name]

    def targets(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What a training step learns from.

        Returns:
            (targets, width) vectors, the (targets,) ids that they are to tell, and the (targets,)
            numbers of the examples that these belong to.
        """
        rows = tf.range(tf.shape(inputs[self.item_id.name])[0])
        return self.users(inputs, training=True), self.target_ids(inputs), rows

    def task_losses(
        self, inputs: Inputs, labels: dict[str, tf.Tensor], weights: tf.Tensor
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Loss and weight of every target."""
        for label in self.features.labels:
            weights = tf.where(labels[label.name] == 1, weights, 0.0)
        queries, ids, rows = self.targets(inputs)
        known = (ids > 0) & (ids <= self.catalogue.size)
        weights = tf.where(known, tf.gather(weights, rows), 0.0)
        losses = self._target_losses(queries, tf.where(known, ids, 1), weights > 0)
        return {"item_loss": (losses, weights)}

    def _target_losses(self, queries: tf.Tensor, ids: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        config = self.loss_config
        if config.kind == "softmax":
            scores = self.scores(queries, self.items(self.catalogue(self.all_ids), True))
            return tf.nn.sparse_softmax_cross_entropy_with_logits(
                ids - 1, scores / config.temperature
            )
        targets = _total(tf.reduce_sum(tf.cast(counted, tf.int32))) if config.in_batch else 0
        positive = self.scores(queries, self._vectors(ids[:, tf.newaxis], True))[:, 0]
        parts = []
        if config.negatives:
            parts.append(self._drawn(queries, ids))
        if config.in_batch:
            parts.append(self._of_batch(queries, ids, counted))
        negative = [self._logits(scores, others, targets) for scores, others, _ in parts]
        return item_loss(
            config,
            self._logits(positive, ids, targets),
            tf.concat(negative, axis=1),
            tf.concat([real for _, _, real in parts], axis=1),
            self.catalogue.size,
        )

    def _logits(self, scores: tf.Tensor, ids: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Scores over the temperature, without what items gain by being often among negatives."""
        config = self.loss_config
        logits = scores / config.temperature
        if config.kind == "sampled_softmax" and config.log_q:
            logits -= self.catalogue.log_expected(ids, config.negatives, targets)
        return logits

    def _drawn(self, queries: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Drawn items: scores, ids and whether they count, (targets, negatives).

        Ids that are the same for all targets are (negatives,).
        """
        count, targets = self.loss_config.negatives, tf.shape(ids)[0]
        if self.loss_config.kind in SHARED:  # among themselves: drawn once for all targets
            drawn = self.catalogue.draw(tf.constant([count]), training=True)
            scores = self.scores(queries, self.items(self.catalogue(drawn), True))
        else:
            drawn = self.catalogue.draw(tf.stack([targets, count]), training=True)
            scores = self.scores(queries, self._vectors(drawn, True))
        return scores, drawn, drawn != ids[:, tf.newaxis]

    def _of_batch(
        self, queries: tf.Tensor, ids: tf.Tensor, counted: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The same of all targets of the step, on all replicas; their ids are (all targets,)."""
        others = tf.where(counted, ids, 0)
        context = tf.distribute.get_replica_context()
        if context and context.num_replicas_in_sync > 1:
            others = context.all_gather(others, axis=0)  # ids only: vectors would lose gradients
        scores = self.scores(queries, self.items(self.catalogue(others), True))
        real = (others != 0) & (others != ids[:, tf.newaxis])
        return scores, tf.maximum(others, 1), real

    def best(
        self, users: tf.Tensor, index: tf.Tensor, excluded: tf.Tensor, k: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The k items with the highest scores.

        Args:
            users: (users, width).
            index: as `index` gives it.
            excluded: (users, n) ids that are not wanted; 0 and unknown ones say nothing.
            k: how many; all items at most.

        Returns:
            (users, k) ids int64, 0 where no item is left, and their scores, 0 there.
        """
        scores = without(self.scores(users, index), excluded)
        found, places = tf.math.top_k(scores, tf.minimum(k, self.catalogue.size))
        left = found > EXCLUDED
        return tf.where(left, tf.cast(places, tf.int64) + 1, 0), tf.where(left, found, 0.0)

    def probabilities(self, logits: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Scores as they are."""
        return logits


EXCLUDED = tf.float32.min


def without(scores: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Scores (users, items) with those of excluded ids (users, n) at the lowest there is."""
    rows = tf.broadcast_to(tf.range(tf.shape(excluded)[0])[:, tf.newaxis], tf.shape(excluded))
    real = (excluded > 0) & (excluded <= scores.shape[1])
    places = tf.stack([rows, tf.cast(excluded, tf.int32) - 1], axis=-1)
    places = tf.boolean_mask(places, real)
    lowest = tf.fill(tf.shape(places)[:1], EXCLUDED)
    return tf.tensor_scatter_nd_update(scores, places, lowest)


def _total(count: tf.Tensor) -> tf.Tensor:
    """Over all replicas."""
    context = tf.distribute.get_replica_context()
    if context and context.num_replicas_in_sync > 1:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return count

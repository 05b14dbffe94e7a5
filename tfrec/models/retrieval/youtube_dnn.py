"""YouTube's candidate generation."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embedding
from tfrec.layers.mlp import MLP
from tfrec.layers.tower import Tower, embedding_tables
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import OF_UNIT_VECTORS, RetrievalModel


@keras.utils.register_keras_serializable("tfrec")
class YouTubeDNN(RetrievalModel):
    """P(item | user) = softmax (⟨u, v⟩ + b), u an MLP of the histories' means and other fields.

    A history is the mean of its events' vectors; beside it stand the fields of the user and of the
    context. The user's id is none of them unless asked for: users are what they took, so that new
    ones are as well known as old ones. The v and b are the softmax's own.

    A history without times holds all events of the user but the example's own, whose item is then
    the one that is missing from it; `event_dropout` makes others missing too.

    Source: Covington, Adams & Sargin 2016, Deep Neural Networks for YouTube Recommendations,
    section 3; its products are not divided by the vectors' lengths.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        hidden: widths of the MLP; a linear layer of the length of the v follows.
        output: length of the v.
        activation: of the MLP.
        dropout: after each of its layers.
        event_dropout: share of the events that training leaves out of the histories.
        bias: whether items have a bias.
        normalise: divide u and v by their lengths.
        stddev: of the initial vectors.
        user_id: whether the user's id is a field too.
        example_age: name of a number: how long before the end of the training data the event was.
            Outside of training it is 0, since what is recommended is taken after that end; declare
            it so that 0 means 0 (without `normalise`, or with `log`).

    Call: dict of inputs → {"score": (batch,)}.

    Raises:
        ValueError: `example_age` is no number of the data set.
    """

    defaults: ClassVar[dict[str, Any]] = OF_UNIT_VECTORS
    xla: ClassVar[bool] = False

    def __init__(
        self,
        features: Features,
        dim: Width = 128,
        hidden: Widths = (),
        output: Width = 128,
        activation: Activation = "relu",
        dropout: Share = 0.0,
        event_dropout: Share = 0.5,
        bias: bool = True,
        normalise: bool = True,
        stddev: float = 0.1,
        user_id: bool = False,
        example_age: str | None = None,
    ) -> None:
        super().__init__(features)
        numbers = [f.name for f in features.numbers]
        if example_age and example_age not in numbers:
            raise ValueError(f"example_age {example_age!r} is none of the numbers {numbers}")
        known = (*features.of_role("user"), *features.of_role("context"))
        fields = tuple(f for f in known if user_id or f.name != features.user_id)
        events = [f for history in features.histories for f in history.features]
        tables = embedding_tables(features, (*fields, *events), dim, stddev)
        size = features.table(self.item_id.table).size
        self.vectors = Embedding(size, output, stddev)
        self.bias = Embedding(size, 1, 0.0) if bias else None
        mlp = MLP(hidden, activation, dropout, output=output)
        self.user = Tower(fields, features.histories, tables, mlp, event_dropout)
        self.normalise, self.example_age = normalise, example_age

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        if self.example_age and not training:
            age = tf.zeros_like(inputs[self.example_age])
            inputs = {**inputs, self.example_age: age}
        users = self.scaled(self.user(inputs, training=training))
        return tf.concat([users, tf.ones_like(users[:, :1])], axis=1) if self.bias else users

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        ids = inputs[self.item_id.name]
        items = self.scaled(self.vectors(ids))
        if self.bias is None:
            return items
        return tf.concat([items, tf.cast(self.bias(ids), items.dtype)], axis=1)

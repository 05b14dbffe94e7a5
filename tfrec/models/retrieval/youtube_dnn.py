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
from tfrec.models.retrieval.base import RetrievalModel


@keras.utils.register_keras_serializable("tfrec")
class YouTubeDNN(RetrievalModel):
    """P(item | user) = softmax ⟨u, v⟩, with u an MLP of means of the histories and other fields.

    Every history is the mean of its events' vectors; beside it stand the fields of the user and of
    the context. The v are vectors of the softmax's own.

    Source: Covington, Adams & Sargin 2016, Deep Neural Networks for YouTube Recommendations,
    section 3.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        hidden: widths of the MLP; a linear layer of the length of the v follows.
        output: length of the v.
        activation: of the MLP.
        dropout: after each of its layers.
        example_age: name of a number: how old the event was when the examples were made. It is 0
            outside of training, for what is recommended is to be taken at the end of that time;
            declare it so that 0 means that (without `normalise`, or with `log`).

    Call: dict of inputs → {"score": (batch,)}.

    Raises:
        ValueError: `example_age` is no number of the data set.
    """

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        features: Features,
        dim: Width = 64,
        hidden: Widths = (),
        output: Width = 64,
        activation: Activation = "relu",
        dropout: Share = 0.0,
        example_age: str | None = None,
        normalise: bool = False,
        stddev: float = 0.01,
    ) -> None:
        super().__init__(features)
        self.normalise = normalise
        numbers = [f.name for f in features.numbers]
        if example_age and example_age not in numbers:
            raise ValueError(f"example_age {example_age!r} is none of the numbers {numbers}")
        fields = (*features.of_role("user"), *features.of_role("context"))
        events = [f for history in features.histories for f in history.features]
        tables = embedding_tables(features, (*fields, *events), dim, stddev)
        mlp = MLP(hidden, activation, dropout, output=output)
        self.user = Tower(fields, features.histories, tables, mlp)
        self.vectors = Embedding(features.table(self.item_id.table).size, output, stddev)
        self.example_age = example_age

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        if self.example_age and not training:
            age = tf.zeros_like(inputs[self.example_age])
            inputs = {**inputs, self.example_age: age}
        v = self.user(inputs, training=training)
        return tf.math.l2_normalize(v, axis=1) if self.normalise else v

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        v = self.vectors(inputs[self.item_id.name])
        return tf.math.l2_normalize(v, axis=1) if self.normalise else v

"""YouTube ranking."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.linear import Linear
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class YouTubeRanking(RankingModel):
    """z = MLP([v_1, …, v_n, x, x², √x]) under a weighted logistic loss; e^z is the watch time.

    Positives are weighted by their watch time (the data set's weight), negatives by 1: the odds
    e^z that are learned are then close to the expected watch time, and e^z is what is served.

    Source: Covington, Adams & Sargin 2016, Deep Neural Networks for YouTube Recommendations,
    section 4; the wide part as in Cheng et al. 2016.

    Args:
        features: of the data set.
        dim: length of the vectors.
        hidden: widths of the MLP (1024, 512, 256 in the paper).
        activation: of the MLP.
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.
        wide: add the first-order terms and the declared crosses.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = {**SMALL_DATA, "loss": {"kind": "weighted_logistic"}}
    serves_odds = True

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
        wide: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim)
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)
        self.wide = Linear(features) if wide else None

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        parts = [field_vectors(self.embeddings(inputs), inputs, self.features)]
        if self.features.numbers:
            numbers = tf.stack([inputs[f.name] for f in self.features.numbers], axis=1)
            roots = tf.sign(numbers) * tf.sqrt(tf.abs(numbers) + 1e-12)  # they may be below 0
            parts += [tf.cast(p, parts[0].dtype) for p in (tf.square(numbers), roots)]
        deep = tf.cast(self.mlp(tf.concat(parts, axis=1), training=training)[:, 0], tf.float32)
        return deep + self.wide(inputs) if self.wide else deep

    def served(self, logits: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Expected watch time e^z, in the unit of the weights."""
        return {task: tf.exp(value) for task, value in logits.items()}

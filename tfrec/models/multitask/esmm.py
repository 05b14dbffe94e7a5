"""Entire space multi-task model."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features, Label
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, MultiTaskModel


@keras.utils.register_keras_serializable("tfrec")
class ESMM(MultiTaskModel):
    """pCTCVR = pCTR pCVR = σ(z_1) σ(z_2): a tower for the click, one for the conversion after it.

    Both losses, of the click and of click and conversion, are over all impressions, so that pCVR is
    trained where the model will be asked. The logit of the product is
    −log(e^{−z_1} + e^{−z_2} + e^{−z_1 − z_2}), finite and exact wherever the towers' are.

    Source: Ma et al. 2018, Entire Space Multi-Task Model: An Effective Approach for Estimating
    Post-Click Conversion Rate, sections 2.1 and 2.3, equations 1 and 3.

    Args:
        features: of the data set; two binary labels, the click and then the conversion, which is 0
            where there was no click, and taken for 0 where it is missing there.
        dim: length of the embeddings, which both towers share (18 in the paper).
        hidden: widths of each tower (360, 200, 80 in the paper).
        activation: of the towers.
        dropout: after each of their layers.
        batch_norm: in the towers.

    Call: dict of inputs → {click: (batch,) logits of pCTR, conversion: (batch,) logits of pCTCVR}.

    Raises:
        ValueError: the labels are not two binary ones.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        if [label.task for label in features.labels] != ["binary", "binary"]:
            names = ", ".join(f"{label.name} ({label.task})" for label in features.labels)
            raise ValueError(
                "takes two binary labels, the click and then the conversion; the run has "
                f"{names}: choose by `labels`"
            )
        self.embeddings = Embeddings(features, dim)
        self.click = MLP(hidden, activation, dropout, batch_norm, output=1)
        self.conversion = MLP(hidden, activation, dropout, batch_norm, output=1)

    @classmethod
    def as_tasks(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        """Without a click there is no conversion, whether or not it is known."""
        click, *others = labels
        return (click, *(dataclasses.replace(label, after=click.name) for label in others))

    def logits(self, inputs: Inputs, training: bool | None) -> dict[str, tf.Tensor]:
        fields = field_vectors(self.embeddings(inputs), inputs, self.features)
        click = tf.cast(self.click(fields, training=training)[:, 0], tf.float32)
        after = tf.cast(self.conversion(fields, training=training)[:, 0], tf.float32)
        both = -tf.reduce_logsumexp(tf.stack([-click, -after, -click - after]), axis=0)
        return dict(zip(self._tasks, (click, both), strict=True))

    def served(self, logits: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """`pCTCVR`, `pCTR` and `pCVR` (of a conversion after a click)."""
        click, both = (logits[task] for task in self._tasks)
        after = tf.exp(tf.math.log_sigmoid(both) - tf.math.log_sigmoid(click))
        return {"pCTCVR": tf.sigmoid(both), "pCTR": tf.sigmoid(click), "pCVR": after}

    @property
    def _tasks(self) -> list[str]:
        return [label.name for label in self.features.labels]

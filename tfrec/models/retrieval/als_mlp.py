"""Matrix factorization of features."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Feature, Features
from tfrec.layers.mlp import MLP
from tfrec.layers.tower import Tower, embedding_tables
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import OF_UNIT_VECTORS, RetrievalModel


@keras.utils.register_keras_serializable("tfrec")
class ALSMLP(RetrievalModel):
    """s = ⟨f(x), g(y)⟩: a matrix factorization whose vectors come from MLPs.

    x is the fields of the user alone, y those of the item, each with vectors of their own.

    Source: Huang et al. 2013, Learning Deep Structured Semantic Models for Web Search using
    Clickthrough Data, section 3, with the plain product of Koren, Bell & Volinsky 2009, Matrix
    Factorization Techniques for Recommender Systems.

    Args:
        features: of the data set; fields of the user and of the item.
        dim: length of the embeddings.
        hidden: widths of each MLP.
        output: length of f and g.
        activation: of both MLPs.
        dropout: after each of their layers, in training.
        normalise: divide f and g by their lengths.
        stddev: of the initial embeddings.

    Call: dict of inputs → {"score": (batch,)}.
    """

    defaults: ClassVar[dict[str, Any]] = OF_UNIT_VECTORS

    def __init__(
        self,
        features: Features,
        dim: Width = 64,
        hidden: Widths = (64,),
        output: Width = 64,
        activation: Activation = "relu",
        dropout: Share = 0.1,
        normalise: bool = True,
        stddev: float = 0.1,
    ) -> None:
        of_user, of_item = features.of_role("user"), features.of_role("item")
        super().__init__(features, of_item)

        def tower(fields: tuple[Feature, ...]) -> Tower:
            mlp = MLP(hidden, activation, dropout, output=output)
            return Tower(fields, (), embedding_tables(features, fields, dim, stddev), mlp)

        self.user, self.item = tower(of_user), tower(of_item)
        self.normalise = normalise

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        return self.scaled(self.user(inputs, training=training))

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        return self.scaled(self.item(inputs, training=training))

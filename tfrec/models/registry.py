"""The catalogue: one line per model. Listing it imports no TensorFlow."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tfrec.features import Features
from tfrec.strict import UserError, nearest

if TYPE_CHECKING:
    from tfrec.models.base import Model

Need = Literal["history", "user", "item", "user_id", "item_id", "labels"]

NEEDS: dict[str, str] = {
    "history": "a history (declare one under `histories`)",
    "user": "features of role user",
    "item": "features of role item",
    "user_id": "ids of the user (declare `user`, and a category of role user of that column)",
    "item_id": "ids of the item (declare `item`, and a category of role item of that column)",
    "labels": "two or more labels (declare them, or name them in `labels`)",
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

    @property
    def scores_items(self) -> bool:
        """Whether it scores all items for a user, and not one example."""
        return self.family in ("nextitem", "retrieval")

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
            "user_id": bool(features.user_id),
            "item_id": bool(features.item_id),
            "labels": len(features.labels) > 1,
        }
        for need in self.needs:
            if not has[need]:
                raise UserError(
                    f"model {self.id} needs {NEEDS[need]}, which data set {features.name!r} "
                    "does not give"
                )
        if not features.labels and not self.scores_items:
            raise UserError(
                f"model {self.id} needs a label (declare one under `labels`), which data set "
                f"{features.name!r} does not give"
            )
        if "labels" not in self.needs and len(features.labels) > 1:
            names = ", ".join(label.name for label in features.labels)
            raise UserError(f"model {self.id} takes one label; `labels` names {names}")


FAMILIES = {
    "ranking": "Ranking on fields",
    "history": "Ranking with a history",
    "multitask": "Several tasks",
    "nextitem": "Next item",
    "retrieval": "Retrieval",
}

# fmt: off
# ruff: noqa: E501 - a line per model
ENTRIES = (
    Entry("lr", "ranking.lr:LR", "ranking", "McMahan et al. 2013, Ad Click Prediction: a View from the Trenches"),
    Entry("poly2", "ranking.poly2:Poly2", "ranking", "Chang et al. 2010, Training and Testing Low-degree Polynomial Data Mappings via Linear SVM"),
    Entry("fm", "ranking.fm:FM", "ranking", "Rendle 2010, Factorization Machines"),
    Entry("ffm", "ranking.ffm:FFM", "ranking", "Juan et al. 2016, Field-aware Factorization Machines for CTR Prediction"),
    Entry("fnn", "ranking.fnn:FNN", "ranking", "Zhang, Du & Wang 2016, Deep Learning over Multi-field Categorical Data"),
    Entry("fnn_plus", "ranking.fnn_plus:FNNPlus", "ranking", "Zhang, Du & Wang 2016, Deep Learning over Multi-field Categorical Data"),
    Entry("nfm", "ranking.nfm:NFM", "ranking", "He & Chua 2017, Neural Factorization Machines for Sparse Predictive Analytics"),
    Entry("pnn", "ranking.pnn:PNN", "ranking", "Qu et al. 2016, Product-based Neural Networks for User Response Prediction"),
    Entry("onn", "ranking.onn:ONN", "ranking", "Yang et al. 2019, Operation-aware Neural Networks for User Response Prediction"),
    Entry("dnn", "ranking.dnn:DNN", "ranking", "Zhang, Du & Wang 2016, Deep Learning over Multi-field Categorical Data"),
    Entry("deep_crossing", "ranking.deep_crossing:DeepCrossing", "ranking", "Shan et al. 2016, Deep Crossing: Web-Scale Modeling without Manually Crafted Combinatorial Features"),
    Entry("embedding_cnn", "ranking.embedding_cnn:EmbeddingCNN", "ranking", "LeCun et al. 1998, Gradient-based Learning Applied to Document Recognition"),
    Entry("wide_deep", "ranking.wide_deep:WideDeep", "ranking", "Cheng et al. 2016, Wide & Deep Learning for Recommender Systems"),
    Entry("deepfm", "ranking.deepfm:DeepFM", "ranking", "Guo et al. 2017, DeepFM: A Factorization-Machine based Neural Network for CTR Prediction"),
    Entry("xdeepfm", "ranking.xdeepfm:XDeepFM", "ranking", "Lian et al. 2018, xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems"),
    Entry("afm", "ranking.afm:AFM", "ranking", "Xiao et al. 2017, Attentional Factorization Machines"),
    Entry("dcn", "ranking.dcn:DCN", "ranking", "Wang et al. 2017, Deep & Cross Network for Ad Click Predictions"),
    Entry("dcn_v2", "ranking.dcn_v2:DCNv2", "ranking", "Wang et al. 2021, DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems"),
    Entry("dlrm", "ranking.dlrm:DLRM", "ranking", "Naumov et al. 2019, Deep Learning Recommendation Model for Personalization and Recommendation Systems"),
    Entry("graph_fm", "ranking.graph_fm:GraphFM", "ranking", "Li et al. 2021, GraphFM: Graph Factorization Machines for Feature Interaction Modeling"),
    Entry("youtube_ranking", "ranking.youtube_ranking:YouTubeRanking", "ranking", "Covington, Adams & Sargin 2016, Deep Neural Networks for YouTube Recommendations"),
    Entry("history_pooling", "history.history_pooling:HistoryPooling", "history", "Zhou et al. 2018, Deep Interest Network for Click-Through Rate Prediction (the base model)", ("history", "item")),
    Entry("rnn", "history.rnn:RNN", "history", "Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks", ("history", "item")),
    Entry("rnn_als", "history.rnn_als:RNNALS", "history", "Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks", ("history", "item")),
    Entry("rnn_joint", "history.rnn_joint:RNNJoint", "history", "Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks", ("history", "item")),
    Entry("din", "history.din:DIN", "history", "Zhou et al. 2018, Deep Interest Network for Click-Through Rate Prediction", ("history", "item")),
    Entry("dien", "history.dien:DIEN", "history", "Zhou et al. 2019, Deep Interest Evolution Network for Click-Through Rate Prediction", ("history", "item")),
    Entry("bst", "history.bst:BST", "history", "Chen et al. 2019, Behavior Sequence Transformer for E-commerce Recommendation in Alibaba", ("history", "item")),
    Entry("transformer_joint", "history.transformer_joint:TransformerJoint", "history", "Vaswani et al. 2017, Attention Is All You Need", ("history", "item")),
    Entry("shared_bottom", "multitask.shared_bottom:SharedBottom", "multitask", "Caruana 1997, Multitask Learning", ("labels",)),
    Entry("moe", "multitask.moe:MoE", "multitask", "Ma et al. 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts (one gate)", ("labels",)),
    Entry("mmoe", "multitask.mmoe:MMoE", "multitask", "Ma et al. 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", ("labels",)),
    Entry("ple", "multitask.ple:PLE", "multitask", "Tang et al. 2020, Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized Recommendations", ("labels",)),
    Entry("esmm", "multitask.esmm:ESMM", "multitask", "Ma et al. 2018, Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate", ("labels",)),
    Entry("gru4rec", "nextitem.gru4rec:GRU4Rec", "nextitem", "Hidasi & Karatzoglou 2018, Recurrent Neural Networks with Top-k Gains for Session-based Recommendations", ("history", "item_id")),
    Entry("sasrec", "nextitem.sasrec:SASRec", "nextitem", "Kang & McAuley 2018, Self-Attentive Sequential Recommendation", ("history", "item_id")),
    Entry("bert4rec", "nextitem.bert4rec:BERT4Rec", "nextitem", "Sun et al. 2019, BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer", ("history", "item_id")),
    Entry("mf", "retrieval.mf:MF", "retrieval", "Koren, Bell & Volinsky 2009, Matrix Factorization Techniques for Recommender Systems", ("user_id", "item_id")),
    Entry("als_mlp", "retrieval.als_mlp:ALSMLP", "retrieval", "Huang et al. 2013, Learning Deep Structured Semantic Models for Web Search using Clickthrough Data", ("user", "item_id")),
    Entry("ncf", "retrieval.ncf:NCF", "retrieval", "He et al. 2017, Neural Collaborative Filtering", ("user_id", "item_id")),
    Entry("two_tower", "retrieval.two_tower:TwoTower", "retrieval", "Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", ("item_id",)),
    Entry("youtube_dnn", "retrieval.youtube_dnn:YouTubeDNN", "retrieval", "Covington, Adams & Sargin 2016, Deep Neural Networks for YouTube Recommendations", ("history", "item_id")),
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

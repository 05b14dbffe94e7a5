"""Losses of models that score items: one target against others."""

from __future__ import annotations

import tensorflow as tf

from tfrec.config import ItemLossConfig


def item_loss(
    config: ItemLossConfig, positive: tf.Tensor, negative: tf.Tensor, real: tf.Tensor, items: int
) -> tf.Tensor:
    """Loss of every target, from the scores of it and of its negatives.

    Args:
        config: which loss.
        positive: (targets,) scores s⁺ of the targets.
        negative: (targets, negatives) scores s_j.
        real: of that shape; False where a negative is the target itself, and does not count.
        items: how many there are in all.

    Returns:
        (targets,).
    """
    if config.hard_negatives:
        kept = tf.minimum(config.hard_negatives, tf.shape(negative)[1])
        negative, places = tf.math.top_k(tf.where(real, negative, _LOWEST), kept)
        real = tf.gather(real, places, batch_dims=1)
        negative = tf.where(real, negative, 0.0)  # the square of the lowest is not finite
    if config.kind == "sampled_softmax":
        return sampled_softmax(positive, negative, real)
    if config.kind in ("bce", "gbce"):
        share = min(config.negatives / max(items - 1, 1), 1.0)
        beta = calibration(share, config.t) if config.kind == "gbce" else 1.0
        return cross_entropy(positive, negative, real, beta)
    if config.kind == "bpr":
        return bpr(positive, negative, real)
    if config.kind == "bpr_max":
        return bpr_max(positive, negative, real, config.regularisation)
    return top1(positive, negative, real, maximum=config.kind == "top1_max")


_LOWEST = tf.float32.min


def sampled_softmax(positive: tf.Tensor, negative: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """−log(e^s⁺ / (e^s⁺ + Σ_j e^s_j))."""
    scores = tf.concat([positive[:, tf.newaxis], tf.where(real, negative, _LOWEST)], axis=1)
    return tf.reduce_logsumexp(scores, axis=1) - positive


def cross_entropy(
    positive: tf.Tensor, negative: tf.Tensor, real: tf.Tensor, beta: float = 1.0
) -> tf.Tensor:
    """−(β log σ(s⁺) + Σ_j log(1 − σ(s_j))) / (1 + negatives).

    Source: Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III-E; with β
    from `calibration`, Petrov & Macdonald 2023, gSASRec: Reducing Overconfidence in Sequential
    Recommendation Trained with Negative Sampling.
    """
    counted = tf.cast(real, negative.dtype)
    others = tf.reduce_sum(tf.nn.softplus(negative) * counted, axis=1)
    return (beta * tf.nn.softplus(-positive) + others) / (1 + tf.reduce_sum(counted, axis=1))


def calibration(share: float, t: float) -> float:
    """β = α (t (1 − 1/α) + 1/α) for the share α of all other items that are drawn.

    1 at t = 0, which is the plain cross-entropy; α at t = 1, which makes σ(s⁺) a probability again.

    Source: Petrov & Macdonald 2023, gSASRec, section 5.
    """
    return share * (t * (1 - 1 / share) + 1 / share) if share else 1.0


def bpr(positive: tf.Tensor, negative: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """Mean over j of −log σ(s⁺ − s_j).

    Source: Rendle et al. 2009, BPR: Bayesian Personalized Ranking from Implicit Feedback, section
    4.1.
    """
    return _mean(tf.nn.softplus(negative - positive[:, tf.newaxis]), real)


def bpr_max(
    positive: tf.Tensor, negative: tf.Tensor, real: tf.Tensor, regularisation: float
) -> tf.Tensor:
    """−log Σ_j p_j σ(s⁺ − s_j) + λ Σ_j p_j s_j², p the softmax of the s_j.

    Source: Hidasi & Karatzoglou 2018, Recurrent Neural Networks with Top-k Gains for Session-based
    Recommendations, section 3.3.
    """
    share = _softmax(negative, real)
    won = tf.reduce_sum(share * tf.sigmoid(positive[:, tf.newaxis] - negative), axis=1)
    size = tf.reduce_sum(share * tf.square(negative), axis=1)
    won = tf.where(tf.reduce_any(real, axis=1), won, 1.0)  # from nothing, the target wins
    return -tf.math.log(won + 1e-24) + regularisation * size


def top1(
    positive: tf.Tensor, negative: tf.Tensor, real: tf.Tensor, maximum: bool = False
) -> tf.Tensor:
    """Mean over j of σ(s_j − s⁺) + σ(s_j²); with `maximum`, weighted by the softmax of the s_j.

    Source: Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks,
    section 3.1.2; Hidasi & Karatzoglou 2018, section 3.2.
    """
    terms = tf.sigmoid(negative - positive[:, tf.newaxis]) + tf.sigmoid(tf.square(negative))
    if maximum:
        return tf.reduce_sum(_softmax(negative, real) * terms, axis=1)
    return _mean(terms, real)


def _mean(terms: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    counted = tf.cast(real, terms.dtype)
    return tf.math.divide_no_nan(
        tf.reduce_sum(terms * counted, axis=1), tf.reduce_sum(counted, axis=1)
    )


def _softmax(scores: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    share = tf.nn.softmax(tf.where(real, scores, _LOWEST), axis=1)
    return tf.where(real, share, 0.0)

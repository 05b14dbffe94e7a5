"""Losses and gradients by XLA are those without it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.support import FEATURES, batch, randomise, training_data
from tfrec.config import OptimizersConfig
from tfrec.models.registry import find
from tfrec.optimizers import composite


@pytest.mark.parametrize("model", ["wide_deep", "fm", "bst"])
def test_jit_changes_nothing(model: str) -> None:
    built = []
    for jit in (False, True):
        one = find(model).load()(FEATURES, dim=4, **({} if model == "fm" else {"dropout": 0.0}))
        optimizer = composite(one.groups(), dict(OptimizersConfig()))
        one.compile(optimizer, clip_norm=0.5, embedding_l2=0.01, jit=jit)
        randomise(one)
        step = tf.function(one.train_step)
        for seed in range(3):
            step(training_data(batch(32, seed), np.arange(32) % 2))
        built.append(one)
    for plain, compiled in zip(*(one.trainable_variables for one in built), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=1e-5, err_msg=plain.name)

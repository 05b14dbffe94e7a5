"""Learning rates over time."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrec.config import ScheduleConfig


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that warms up linearly, then stays, or falls by a cosine or exponentially.

    rate(t) = base · scale · min(1, (t + 1) / warm_up) · shape(t − warm_up), where shape is 1;
    end + (1 − end) (1 + cos(π min(1, t / steps))) / 2; or rate^(t / every).

    Source of the cosine: Loshchilov & Hutter 2017, SGDR, equation 5, without restarts.

    Args:
        base: the learning rate.
        config: its shape.
        steps: of the whole run; a cosine ends there unless its configuration says where.
        scale: a factor, a variable where the run may lower it, as when a metric has reached a
            plateau.
    """

    def __init__(self, base: float, config: ScheduleConfig, steps: int, scale: Any) -> None:
        self.base, self.config, self.scale = base, config, scale
        self.length = max((config.steps or steps) - config.warm_up, 1)

    def __call__(self, step: Any) -> tf.Tensor:
        config = self.config
        step = tf.cast(step, tf.float32)
        after = tf.maximum(step - config.warm_up, 0)
        shape = tf.constant(1.0)
        if config.kind == "cosine":
            done = tf.minimum(after / self.length, 1.0)
            shape = config.end + (1 - config.end) * 0.5 * (
                1 + tf.cos(tf.constant(3.14159265) * done)
            )
        elif config.kind == "exponential":
            shape = tf.pow(config.rate, after / config.every)
        if config.warm_up:
            shape *= tf.minimum((step + 1) / config.warm_up, 1.0)
        return self.base * self.scale * shape

    def get_config(self) -> dict[str, Any]:
        return {"base": self.base, "steps": self.length, **self.config.model_dump()}

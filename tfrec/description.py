"""What a model consists of, for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras as keras

from tfrec.config import OptimizersConfig


def description(
    groups: Mapping[str, Sequence[tf.Variable]],
    optimizers: OptimizersConfig,
    optimizer: keras.optimizers.Optimizer,
) -> str:
    """Parameters, and memory of tables, of the other weights and of the optimizers' state.

    Args:
        groups: variables by group.
        optimizers: of the configuration, by group.
        optimizer: of all groups, its state made.
    """
    lines = []
    total = 0
    for group, variables in groups.items():
        if variables:
            count = sum(math.prod(v.shape) for v in variables)
            total += count
            lines.append(
                f"  {group:<10} {count:>13,} parameters  {getattr(optimizers, group).name}"
            )
    lines.append(f"  {'total':<10} {total:>13,} parameters")
    tables = _mib([v for group in ("linear", "embedding") for v in groups[group]])
    other, state = _mib(groups["dense"]), _mib(optimizer.weights)
    lines.append(f"  memory: tables {tables}, other weights {other}, optimizers {state}")
    return "\n".join(lines)


def _mib(variables: Sequence[tf.Variable]) -> str:
    size = sum(math.prod(v.shape) * v.dtype.size for v in variables)
    return f"{size / 2**20:,.1f} MiB"

"""On which devices and machines a run trains."""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf

from tfrec.strict import UserError


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of that name.

    Args:
        name: of `tfrec.config.STRATEGIES`: `one` device; `mirrored` over this machine's GPUs, or
            its logical CPUs where there are none; `multi_worker` over the machines of TF_CONFIG;
            `auto` is mirrored where there are several GPUs, else one.

    Raises:
        UserError: TF_CONFIG is missing or is no cluster.
    """
    if name == "multi_worker":
        _check_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        if gpus:
            return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
        return tf.distribute.MirroredStrategy(
            [cpu.name for cpu in tf.config.list_logical_devices("CPU")],
            tf.distribute.ReductionToOneDevice(),  # collectives fail in a process with two of them
        )
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run directory: the chief, or worker 0 without one."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def distributed(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Any:
    """Global batches, split among the replicas of all machines."""
    if strategy.num_replicas_in_sync == 1:
        return batches
    options = tf.data.Options()
    # Every machine reads all and keeps its own rows: the global batches are those of one device.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return strategy.experimental_distribute_dataset(batches.with_options(options))


def _check_cluster() -> None:
    example = (
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        found = bool(config["cluster"]["worker"]) and "index" in config["task"]
    except (ValueError, KeyError, TypeError):
        found = False
    if not found:
        raise UserError(f"multi_worker needs TF_CONFIG on every machine, such as {example}")

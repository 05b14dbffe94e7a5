"""On which devices and machines a run trains."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrec.strict import UserError

SHARD_BYTES = 2**18  # a smaller variable stays on one parameter server
GRACE_SECONDS = 5.0


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of that name.

    Args:
        name: of `tfrec.config.STRATEGIES`: `one` device; `mirrored` over this machine's GPUs, or
            its logical CPUs where there are none; `multi_worker` over the machines of TF_CONFIG;
            `parameter_server`, variables on those machines of TF_CONFIG, tables in as many parts;
            `auto` is mirrored where there are several GPUs, else one.

    Raises:
        UserError: TF_CONFIG is missing or is no cluster.
    """
    if name == "multi_worker":
        _cluster(name, "worker")
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "parameter_server":
        tf.get_logger().setLevel("ERROR")  # saving from several machines warns of its retracing
        servers = _cluster(name, "chief", "worker", "ps")["cluster"]["ps"]
        return tf.distribute.ParameterServerStrategy(
            tf.distribute.cluster_resolver.TFConfigClusterResolver(rpc_layer="grpc"),
            tf.distribute.experimental.partitioners.MinSizePartitioner(SHARD_BYTES, len(servers)),
        )
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


def coordinator(strategy: tf.distribute.Strategy) -> Any:
    """What hands steps to the workers of parameter servers; None for every other strategy."""
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        return tf.distribute.coordinator.ClusterCoordinator(strategy)
    return None


def agreement(strategy: tf.distribute.Strategy) -> Callable[[int], int] | None:
    """Tells all machines that take their steps together the largest of their numbers.

    None where each machine's number is its own business. All machines have to call it.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    machines = strategy.num_replicas_in_sync

    @tf.function
    def sums(number: tf.Tensor) -> tf.Tensor:
        # There is no reduction to the largest: every machine's number has a place of its own.
        def mine() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.one_hot(replica, machines, number)

        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(mine), axis=None)

    return lambda number: int(tf.reduce_max(sums(tf.constant(float(number)))))


def distributed(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> Any:
    """Global batches, split among the replicas of all machines."""
    if strategy.num_replicas_in_sync == 1:
        return batches
    options = tf.data.Options()
    # Every machine reads all and keeps its own rows: the global batches are those of one device.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return strategy.experimental_distribute_dataset(batches.with_options(options))


def dealt(coordinator: Any, batches: Callable[[int, Any], tf.data.Dataset]) -> Any:
    """Batches that every worker reads for itself.

    Args:
        coordinator: of the workers.
        batches: of (number of workers, index of this one).
    """
    strategy = coordinator.strategy
    workers = len(_cluster("parameter_server", "worker")["cluster"]["worker"])

    def of_worker(_: Any) -> tf.data.Dataset:
        index = tf.distribute.coordinator.experimental_get_current_worker_index()
        return batches(workers, tf.cast(index, tf.int64))

    @tf.function
    def make() -> Any:
        return strategy.distribute_datasets_from_function(of_worker)

    return coordinator.create_per_worker_dataset(make)


def serve(name: str) -> bool:
    """Works for the chief until it has ended, where this process is no chief.

    Args:
        name: of the strategy.

    Returns:
        Whether there was such work to do.

    Raises:
        UserError: TF_CONFIG is missing or is no cluster.
    """
    if name != "parameter_server":
        return False
    config = _cluster(name, "chief", "worker", "ps")
    task = config["task"]
    if task["type"] == "chief":
        return False
    tf.distribute.Server(config["cluster"], task["type"], task["index"], protocol="grpc")
    chief = config["cluster"]["chief"][0]
    while not _answers(chief):
        time.sleep(0.5)
    last = time.monotonic()
    while time.monotonic() - last < GRACE_SECONDS:
        time.sleep(0.5)
        if _answers(chief):
            last = time.monotonic()
    return True


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


_EXAMPLES = {
    "multi_worker": '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}',
    "parameter_server": '{"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222"], '
    '"ps": ["host2:2222"]}, "task": {"type": "chief", "index": 0}}',
}


def _cluster(name: str, *jobs: str) -> dict[str, Any]:
    """TF_CONFIG, with machines for all of the jobs."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        found = all(config["cluster"][job] for job in jobs) and {"type", "index"} <= set(
            config["task"]
        )
    except (ValueError, KeyError, TypeError):
        found = False
    if not found:
        raise UserError(f"{name} needs TF_CONFIG on every machine, such as {_EXAMPLES[name]}")
    return config

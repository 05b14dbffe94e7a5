"""What all tests share."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, settings

import tfrec  # noqa: F401 - settles which Keras it is
from tests import events, fast_beam

# A busy machine is slow at drawing examples, too.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")
fast_beam.apply()


def pytest_configure() -> None:
    """Two logical CPUs, for the tests with two replicas; only possible before TensorFlow works."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)


@pytest.fixture(scope="session")
def mirrored() -> tf.distribute.MirroredStrategy:
    """The one strategy with two replicas; a second one in a process can fail."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Whatever precision or determinism a test sets ends with it."""
    import tf_keras as keras
    from tensorflow.python.framework.config import disable_op_determinism

    yield
    keras.mixed_precision.set_global_policy("float32")
    disable_op_determinism()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set directory of a small shop, made by the pipeline."""
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipeline.checks import read
    from pipeline.run import run

    directory = tmp_path_factory.mktemp("shop")
    declaration = read(str(events.write(directory)))
    run(declaration, directory / "data", PipelineOptions(["--runner=FnApiRunner"]))
    return directory / "data" / "transform"


@pytest.fixture(scope="session")
def finished(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of wide_deep, and what it printed."""
    from tests.support import start

    output = tmp_path_factory.mktemp("runs") / "wide_deep"
    result = start(
        "--data",
        str(shop),
        "--model",
        "wide_deep",
        "--output",
        str(output),
        "--seed",
        "1",
        "--set",
        "batch_size=64",
        "--set",
        "optimizers.dense.learning_rate=0.01",
        "--set",
        "optimizers.embedding.learning_rate=0.01",
        "--set",
        "model.hidden=[16]",
        "--set",
        "patience=6",
    )
    assert result.exit_code == 0, result.output
    return output, result.output

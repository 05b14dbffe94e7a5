"""A loaded version runs what its signatures say, whatever their tensors are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving.errors import Code, ServingError
from serving.inference import REGRESS, Task
from serving.servable import Loading, Servable

v1 = tf.compat.v1


@pytest.fixture
def servable(tmp_path: Path) -> Servable:
    """One whose outputs are an input, one tensor twice, and one that never comes."""
    place = str(tmp_path / "1")
    with tf.Graph().as_default(), v1.Session() as session:
        text = v1.placeholder(tf.string, [None])
        twice = tf.strings.join([text, text])
        never = tf.queue.FIFOQueue(1, [tf.int64], [[]]).dequeue()
        info = v1.saved_model.build_tensor_info
        inputs = {"text": info(text)}
        outputs = {"text": info(text), "one": info(twice), "two": info(twice)}
        method = "tensorflow/serving/predict"
        build = v1.saved_model.build_signature_def
        builder = v1.saved_model.Builder(place)
        signatures = {
            "twice": build(inputs, outputs, method),
            "endless": build(inputs, {"never": info(never)}, method),
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return Servable(Path(place))


def test_outputs_that_are_inputs_or_each_other(servable: Servable) -> None:
    outputs = servable.run("twice", {"text": np.array([b"a", "é".encode()], object)})
    assert {name: value.tolist() for name, value in outputs.items()} == {
        "text": [b"a", "é".encode()],
        "one": [b"aa", "éé".encode()],
        "two": [b"aa", "éé".encode()],
    }


def test_a_run_ends_when_nobody_waits_or_its_model_is_gone(servable: Servable) -> None:
    inputs = {"text": np.array([b"a"], object)}
    with pytest.raises(ServingError) as late:
        servable.run("endless", inputs, 0.05)
    assert late.value.code == Code.DEADLINE_EXCEEDED
    servable.close()
    with pytest.raises(ServingError) as closed:
        servable.run("twice", inputs, 60.0)
    assert closed.value.code == Code.CANCELLED


def test_methods_of_signatures_where_they_are_checked(halves: Path) -> None:
    servable = Servable(halves / "two", Loading(check_methods=True))
    with pytest.raises(ServingError, match="Expected prediction signature method_name to be one"):
        servable.definition("__saved_model_init_op")
    error = "Expected regression signature method_name to be tensorflow/serving/regress"
    with pytest.raises(ServingError, match=error):
        Task("", REGRESS).signature(servable.signature_defs, servable.loading.check_methods)

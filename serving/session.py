"""Signatures of a TensorFlow session, run without what `Session.run` does for each call anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import RunOptions
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.python.client import pywrap_tf_session

from serving.inference import Arrays


class Function:
    """A signature in a session, its tensors looked up once.

    `Session.run` looks names up, checks and sorts for every call, which takes as long as a small
    model's run, while no other thread can work. TensorFlow's own entry below it does not.

    Args:
        session: with the graph in it.
        definition: of the signature.

    Raises:
        KeyError, ValueError: tensors that the graph does not have, or that have no name.
    """

    def __init__(self, session: tf.compat.v1.Session, definition: SignatureDef) -> None:
        session._extend_graph()  # which `Session.run` would do
        self._session = session

        def tensor(info: Any) -> Any:
            return session.graph.get_tensor_by_name(info.name)

        self._inputs = {
            name: (tensor(info)._as_tf_output(), tensor(info).dtype.as_numpy_dtype)
            for name, info in definition.inputs.items()
        }
        self._fed = {
            name: source
            for name, info in definition.outputs.items()
            for source, given in definition.inputs.items()
            if given.name == info.name
        }
        self._outputs = [name for name in definition.outputs if name not in self._fed]
        self._fetched = [tensor(definition.outputs[name])._as_tf_output() for name in self._outputs]

    def __call__(self, inputs: Arrays, timeout: float | None) -> Arrays:
        """Outputs of the signature.

        Args:
            inputs: by name, all of them.
            timeout: seconds after which the run is given up; None for no end.

        Raises:
            tf.errors.OpError: the model's own error, or DEADLINE_EXCEEDED.
            TypeError, ValueError: values of another type.
        """
        fed = {}
        for name, value in inputs.items():
            key, dtype = self._inputs[name]
            fed[key] = np.asarray(value, dtype)
        outputs = {name: inputs[source] for name, source in self._fed.items()}
        # 0 would be no limit at all.
        limit = {} if timeout is None else {"timeout_in_ms": max(int(timeout * 1000), 1)}
        options = pywrap_tf_session.TF_NewBufferFromString(RunOptions(**limit).SerializeToString())
        try:
            found = self._session._call_tf_sessionrun(options, fed, self._fetched, [], None)
        finally:
            pywrap_tf_session.TF_DeleteBuffer(options)
        outputs |= {n: _array(value) for n, value in zip(self._outputs, found, strict=True)}
        return outputs


def _array(value: Any) -> np.ndarray[Any, Any]:
    """A scalar of strings comes as bytes, of which NumPy would drop zeros at the end."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)

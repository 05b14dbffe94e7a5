"""TF Serving's and TensorFlow's messages, without importing TensorFlow.

The generated modules of `tensorflow_serving` import those under `tensorflow.core`, which need
protobuf alone; but Python runs `tensorflow/__init__.py` first, which takes seconds and hundreds of
megabytes. So while they are imported, an empty package of that name stands in its place. What they
register stays registered, and TensorFlow can be imported afterwards: it finds these very modules.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    name = "tensorflow"
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None:  # it is imported already, or is not there
        yield
        return
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = package
    try:
        yield
    finally:
        del sys.modules[name]


with _without_tensorflow():
    from tensorflow.core.example.example_pb2 import Example
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.types_pb2 import DataType
    from tensorflow_serving.apis.get_model_metadata_pb2 import (
        GetModelMetadataRequest,
        SignatureDefMap,
    )
    from tensorflow_serving.apis.get_model_status_pb2 import (
        GetModelStatusRequest,
        GetModelStatusResponse,
    )
    from tensorflow_serving.apis.model_pb2 import ModelSpec
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

__all__ = [
    "DataType",
    "Example",
    "GetModelMetadataRequest",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "ModelServiceStub",
    "ModelSpec",
    "PredictRequest",
    "PredictionServiceStub",
    "SignatureDefMap",
    "TensorProto",
]

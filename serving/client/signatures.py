"""What a model takes and gives, as its metadata say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.client.errors import InvalidArgumentError
from serving.client.protos import DataType, SignatureDefMap
from serving.errors import Code

PREDICT = "predict"
EXAMPLES = "serving_default"
RECOMMEND = "recommend"

_NAMES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64"}
_HIDDEN = "__"  # TensorFlow's own, such as __saved_model_init_op


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        dtype: TensorFlow's name of its type, `float32` or `string` for example.
        shape: sizes, of which -1 is any; None where even their number is open.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Metadata:
    """The version that answers, and its signatures by name."""

    version: int
    signatures: dict[str, Signature]


@dataclass(frozen=True)
class VersionStatus:
    """State of a version.

    Attributes:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        code: OK, or what went wrong.
        message: of the error, if any.
    """

    version: int
    state: str
    code: str
    message: str


def dtype_name(number: int) -> str:
    """TensorFlow's name of a type in a proto."""
    name = DataType.Name(number)
    return _NAMES.get(name, name.removeprefix("DT_").lower())


def signatures_of(message: SignatureDefMap) -> dict[str, Signature]:
    """Signatures of a model's metadata."""
    return {
        name: Signature(_tensors(definition.inputs), _tensors(definition.outputs))
        for name, definition in sorted(message.signature_def.items())
        if not name.startswith(_HIDDEN)
    }


def statuses_of(message: Any) -> list[VersionStatus]:
    """Versions of a GetModelStatusResponse, the newest first."""
    states = type(message).DESCRIPTOR.file.message_types_by_name["ModelVersionStatus"]
    names = states.enum_types_by_name["State"].values_by_number
    found = [
        VersionStatus(
            entry.version,
            names[entry.state].name,
            Code(entry.status.error_code).name,
            entry.status.error_message,
        )
        for entry in message.model_version_status
    ]
    return sorted(found, key=lambda status: -status.version)


def signature_named(name: str, signatures: Mapping[str, Signature]) -> Signature:
    """A signature of a model.

    Raises:
        InvalidArgumentError: it has none of that name.
    """
    if name not in signatures:
        hint = nearest(name, signatures)
        raise InvalidArgumentError(f"the model has no signature {name!r}{hint}")
    return signatures[name]


def nearest(name: str, known: Iterable[str]) -> str:
    """Ending of a message about an unknown name: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known)) or 'none'}"


def _tensors(infos: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: Tensor(
            dtype_name(info.dtype),
            None
            if info.tensor_shape.unknown_rank
            else tuple(dimension.size for dimension in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    }

"""What clients do, over any transport: signatures, deadlines and retries."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.client import rows as of_rows
from serving.client.errors import (
    ClientError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from serving.client.rows import Row
from serving.client.signatures import (
    EXAMPLES,
    PREDICT,
    RECOMMEND,
    Metadata,
    Signature,
    VersionStatus,
    signature_named,
)
from serving.client.tensors import Array
from serving.client.transport import Target, Transport
from serving.versions import MAX_VERSION

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
LONGEST_TIMEOUT = 1_000_000

Signatures = Mapping[str, Signature]
Question = Callable[[Signatures], tuple[str, dict[str, Array]]]


class Calls:
    """The methods of both clients.

    Args:
        transport: to send with.
        target: the model.
        timeout: seconds for a call, whatever it takes.
        retries: how often UNAVAILABLE is tried again.

    Raises:
        InvalidArgumentError: there is both a version and a label, or a setting that cannot be.
    """

    def __init__(self, transport: Transport, target: Target, timeout: float, retries: int) -> None:
        if target.version is not None and target.label is not None:
            raise InvalidArgumentError("a model is asked by version or by label, not by both")
        if target.version is not None and not 0 <= target.version <= MAX_VERSION:
            raise InvalidArgumentError(f"version {target.version} is not from 0 to {MAX_VERSION}")
        if not 0 <= timeout <= LONGEST_TIMEOUT:  # NaN, too; gRPC takes longer ones for none
            raise InvalidArgumentError(
                f"a timeout of {timeout} s is not from 0 to {LONGEST_TIMEOUT:,} s"
            )
        self.transport = transport
        self._target, self._timeout, self._retries = target, timeout, retries
        self._signatures: Signatures | None = None

    async def predict(self, rows: Row | Sequence[Row], signature: str = PREDICT) -> Any:
        """Runs a signature on raw columns.

        Lists, such as histories, are padded to a common length; None is a missing value.

        Args:
            rows: one row, or several that go in one request.
            signature: that takes raw columns by name.

        Returns:
            Outputs by name, of the row or of each: numbers and strings, arrays of numbers, lists of
            strings.

        Raises:
            ClientError: by the code, one of its classes.
        """
        listed, one = _listed(rows)

        def question(signatures: Signatures) -> tuple[str, dict[str, Array]]:
            inputs = signature_named(signature, signatures).inputs
            return signature, of_rows.columns(listed, inputs)

        outputs, _ = await self._ask(question)
        answers = of_rows.answers(outputs, len(listed))
        return answers[0] if one else answers

    async def predict_examples(
        self, rows: Row | Sequence[Row], signature: str = EXAMPLES, types: str = PREDICT
    ) -> Any:
        """As `predict`, by serialized tf.Examples: columns may be absent, lists are not padded.

        Args:
            rows: one row, or several that go in one request.
            signature: that takes serialized tf.Examples, and nothing else.
            types: signature of the same raw columns, which their types are taken from.

        Returns:
            Outputs by name, of the row or of each.

        Raises:
            ClientError: by the code, one of its classes.
        """
        listed, one = _listed(rows)

        def question(signatures: Signatures) -> tuple[str, dict[str, Array]]:
            inputs = signature_named(signature, signatures).inputs
            if [tensor.dtype for tensor in inputs.values()] != ["string"]:
                raise FailedPreconditionError(
                    f"signature {signature!r} does not take tf.Examples, but {', '.join(inputs)}"
                )
            typed = signature_named(types, signatures).inputs
            return signature, {next(iter(inputs)): of_rows.examples(listed, typed)}

        outputs, _ = await self._ask(question)
        answers = of_rows.answers(outputs, len(listed))
        return answers[0] if one else answers

    async def recommend(
        self,
        user: Row | Sequence[Row],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        exclude: Sequence[str] = (),
        signature: str = RECOMMEND,
    ) -> Any:
        """The best items for a user.

        Args:
            user: raw columns of the user and the context, or several of them. A row that has `k`,
                `exclude_seen` or `exclude` itself goes by these.
            k: how many items.
            exclude_seen: whether to leave out those of the user's histories.
            exclude: others to leave out.
            signature: that recommends.

        Returns:
            Items, the best first: `item`, `score` and whatever else the signature says of each; a
            list of these if there are several users.

        Raises:
            ClientError: by the code, one of its classes.
        """
        listed, one = _listed(user)
        options = {"k": k, "exclude_seen": exclude_seen, "exclude": exclude}
        whole = [{**options, **row} if isinstance(row, Mapping) else row for row in listed]

        def question(signatures: Signatures) -> tuple[str, dict[str, Array]]:
            inputs = signature_named(signature, signatures).inputs
            return signature, of_rows.columns(whole, inputs)

        outputs, found = await self._ask(question)
        items = of_rows.recommendations(outputs, found, len(listed))
        return items[0] if one else items

    async def status(self) -> list[VersionStatus]:
        """The state of the model's versions, the newest first.

        Raises:
            ClientError: by the code, one of its classes.
        """
        request = self.transport.status(self._target)
        reply = await self._send(request, self._deadline())
        return self.transport.read_status(reply)

    async def metadata(self) -> Metadata:
        """The version that answers, and its signatures.

        Raises:
            ClientError: by the code, one of its classes.
        """
        return await self._learn(self._deadline())

    async def close(self) -> None:
        """Ends all connections."""
        await self.transport.close()

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    async def _ask(self, question: Question) -> tuple[dict[str, Array], Signature]:
        """Outputs of a signature, and the signature.

        The signatures are learned once, and again when something does not fit: a new version of
        the model may have others.
        """
        deadline, known = self._deadline(), self._signatures
        if known is None:
            fresh = (await self._learn(deadline)).signatures
            return await self._run(question, fresh, deadline)
        try:
            return await self._run(question, known, deadline)
        except (InvalidArgumentError, FailedPreconditionError) as error:
            try:
                fresh = (await self._learn(deadline)).signatures
            except ClientError:
                raise error from None
            if fresh == known:
                raise
        return await self._run(question, fresh, deadline)

    async def _run(
        self, question: Question, signatures: Signatures, deadline: float
    ) -> tuple[dict[str, Array], Signature]:
        name, inputs = question(signatures)
        signature = signatures[name]
        request = self.transport.predict(self._target, name, signature, inputs)
        reply = await self._send(request, deadline)
        return self.transport.read_predict(reply, signature), signature

    async def _learn(self, deadline: float) -> Metadata:
        reply = await self._send(self.transport.metadata(self._target), deadline)
        metadata = self.transport.read_metadata(reply)
        self._signatures = metadata.signatures
        return metadata

    async def _send(self, request: Any, deadline: float) -> Any:
        for attempt in itertools.count():
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceededError(f"no answer within {self._timeout:.3g} s")
            try:
                return await self.transport.send(request, left)
            except UnavailableError:
                longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
                pause = random.uniform(longest / 2, longest)
                if attempt >= self._retries or time.monotonic() + pause >= deadline:
                    raise
            await self.transport.sleep(pause)


def _listed(rows: Row | Sequence[Row]) -> tuple[Sequence[Row], bool]:
    """Rows, and whether it was one by itself."""
    if isinstance(rows, Mapping):
        return [rows], True
    if not rows:
        raise InvalidArgumentError("there are no rows to send")
    return rows, False

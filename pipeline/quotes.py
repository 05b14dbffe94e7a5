"""Quotes in CSV: a stray one is told from the first of a value with several lines."""

from __future__ import annotations

import io
import re
from typing import IO, Any

from tfrec.strict import UserError

MOST_LINES = 1_000  # of one row
CERTAIN = 10  # lines that are rows by their number of fields alone
ALIKE = 0.9  # share of them that have it

_CLOSE = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')
_NUMBER = re.compile(rb"[-+.:/ TZ\d]*\d[-+.:/ TZ\d]*")  # a time, too


class PlainQuoteError(UserError):
    """A value goes on behind its closing quote: quotes are characters like others, it seems."""


class QuotedRows(io.RawIOBase):
    """A stream of the rows of a CSV file, which fails where a quote swallows rows.

    A quote opens a value at the beginning of a field only, and all lines up to the next one are
    part of it. So a stray one takes in what comes between, and the file still is CSV. It is
    refused where the value does not end, or goes on behind its closing quote (whose quotes a reader
    would drop), or its row has more than `MOST_LINES` lines; and where these would be rows by
    themselves: the first and the last one have a row's number of fields, with a number in the same
    one, or there are `CERTAIN` or more of which nearly all have that number.

    Args:
        stream: that stands at the first row.
        path: of the file, for messages.
        delimiter: of fields.
        columns: fields of a row.
        line: number of the first row's line, from 1.
    """

    def __init__(
        self, stream: IO[bytes], path: str, delimiter: str, columns: int, line: int
    ) -> None:
        self.stream, self.path, self.columns, self.line = stream, path, columns, line
        self.delimiter = delimiter.encode()
        mark = re.escape(self.delimiter)
        self.values = re.compile(rb'(?:\A|%s)"[^"]*+(?:""[^"]*+)*+(")?' % mark)
        self.rest = b""  # of the last line that was read, which has not ended
        self.row: list[bytes] = []  # lines of a row with a value that has not ended
        self.first = line  # number of the first one

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.stream.read(len(buffer))
        text = self.rest + block
        # What follows a \r at the end may be the \n that belongs to it.
        end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1 if block else len(text)
        self.rest, text = text[end:], text[:end]
        if self.row or b'"' in text:
            for line in text.splitlines():
                self._add(line)
                self.line += 1
            if not block and self.row:
                raise self._stray("has no end")
        else:
            self.line += text.count(b"\n")
        buffer[: len(block)] = block
        return len(block)

    def _add(self, line: bytes) -> None:
        """Looks at a line; `row` holds the lines of a row that goes on behind it."""
        fields = line
        if self.row:
            self.row.append(line)
            if len(self.row) > MOST_LINES:
                raise self._stray(f"has more than {MOST_LINES:,} lines")
            closed = _CLOSE.match(line)
            if not closed:
                return
            fields = line[closed.end() :]
            if fields and not fields.startswith(self.delimiter):
                raise self._stray(f"ends inside of a field, in line {self.line:,}")
        quoted = list(self.values.finditer(fields))
        for value in quoted:
            whole = not value[1] or fields.startswith(self.delimiter, value.end())
            if not whole and fields[value.end() :].split(self.delimiter, 1)[0].strip():
                self.first = self.line
                raise PlainQuoteError(self._stray("goes on behind the closing one"))
        if quoted and not quoted[-1][1]:
            if not self.row:
                self.row, self.first = [line], self.line
        elif self.row:
            if self._swallowed():
                raise self._stray(f"takes in lines up to {self.line:,} that look like rows")
            self.row = []

    def _swallowed(self) -> bool:
        """Whether the lines of the row would be rows by themselves."""
        if self.columns == 1:
            return False
        lines = [line.replace(b'"', b"").split(self.delimiter) for line in self.row]
        whole = [len(fields) == self.columns for fields in lines]
        if whole[0] and whole[-1]:
            ends = zip(lines[0], lines[-1], strict=True)
            if any(_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other) for one, other in ends):
                return True
        return len(lines) >= CERTAIN and sum(whole) >= ALIKE * len(lines)

    def _stray(self, what: str) -> UserError:
        return UserError(
            f"{self.path}, line {self.first:,}: the value after a quote {what}; double the quotes "
            "inside of values, or declare `quotes: false` in the source if they mean nothing"
        )

"""What an event sees of the events before it."""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.negatives import Event
from pipeline.ordered import Ordered


@dataclass(frozen=True)
class History:
    """A declared history, by positions in an event.

    Attributes:
        length: most events it keeps.
        where: label that must be 1, if there is one.
        time: of an event, if it has one.
        parts: (name, position, type) of what it keeps of an event, the item first.
    """

    length: int
    where: int | None
    time: int | None
    parts: list[tuple[str, int, pa.DataType]]

    def item(self, event: Event) -> str:
        """Key of an event's item."""
        return event[self.parts[0][1]].strip()

    def holds(self, event: Event) -> bool:
        """Whether it is of the declared kind, and has an item: an id of 0 is padding."""
        return bool(self.item(event)) and (self.where is None or event[self.where] == 1)


class Past:
    """A history while the events of a user come in order of time.

    Args:
        history: declared.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.held: deque[Event] = deque(maxlen=history.length)
        self.now: deque[Event] = deque(maxlen=history.length)  # do not see one another
        self.time: Any = None

    def before(self, event: Event) -> list[Event]:
        """The newest events strictly before one in time, oldest first."""
        self._settle(event)
        return list(self.held)

    def add(self, event: Event) -> None:
        """Lets later events see this one."""
        if self.history.holds(event):
            self._settle(event)
            self.now.append(event)

    def _settle(self, event: Event) -> None:
        assert self.history.time is not None
        time = event[self.history.time]
        if time != self.time:
            self.held.extend(self.now)
            self.now.clear()
            self.time = time


class Others:
    """A history without times: training events of other items, in an order by hash.

    Args:
        history: declared.
        train: training events of a user.
    """

    def __init__(self, history: History, train: Iterable[Event]) -> None:
        self.history = history
        self.first: list[Event] = []
        items: Counter[str] = Counter()
        for event in Ordered(filter(history.holds, train), _content_hash):
            item = history.item(event)
            if items[item] < history.length:  # more of one item are never seen
                self.first.append(event)
                items[item] += 1
            if len(self.first) - max(items.values()) >= history.length:
                break  # so many for events of every item

    def before(self, event: Event) -> list[Event]:
        """Events of other items than an event's own."""
        own = self.history.item(event)
        others = (other for other in self.first if self.history.item(other) != own)
        return list(islice(others, self.history.length))

    def add(self, event: Event) -> None:
        """Changes nothing: there is no earlier and later."""


def _content_hash(event: Event) -> tuple[int, str]:
    content = repr(event)
    return zlib.crc32(content.encode()), content

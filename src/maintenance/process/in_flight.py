"""The requests that one middleware has let in and that have not ended."""

import os
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from maintenance.base.values import WEBSOCKET, Load

MAX_OLDEST: Final = 200
"""The longest method and path that are reported, in characters."""

ROOM: Final = 256
"""How long a table may grow before it is swept, beyond twice the requests that are in flight."""


class Entry(NamedTuple):
    """A request as it came, before anything could change it.

    Attributes:
        method: As sent; `WEBSOCKET` for one.
        path: As the server gave it.
        root: The mount point as the server gave it.
        start: The clock when it came.
        raw: The server's environ or scope, as it came where there is a `bypass` to ask about it later.
    """

    method: str
    path: str
    root: str
    start: float
    raw: Any


class InFlight:
    """A table of entries: each a list that holds what an `Entry` does, in flight until it is emptied.

    An adapter enters one by appending it to `table`, **before** it asks the flag, and calls `sweep` where that is
    longer than `room`. Both steps are a list's own, and atomic: no lock on the way of a request. A body's close can be
    the entry's `clear` itself: a bound method in C, which costs a third of a function.

    Attributes:
        table: The entries, and those that have left since the last sweep.
        room: How long the table may be before it is swept.
    """

    __slots__ = ("_sweeping", "room", "table")

    def __init__(self) -> None:
        """Start empty."""
        self.table: list[list[Any]] = []
        self.room = ROOM
        self._sweeping: dict[int, object] = {}

    def sweep(self) -> None:
        """Throw out what has left, in one thread at a time: whoever comes meanwhile leaves it to that one."""
        # By process: in the child of a fork, the thread that was at it is not there to end it.
        me, process = object(), os.getpid()
        if self._sweeping.setdefault(process, me) is not me:
            return
        try:
            known = self.table.copy()
            present = list(filter(None, known))
            # One step, so that no look at the table misses an entry; what was appended meanwhile stays behind it.
            self.table[: len(known)] = present
            self.room = 2 * len(present) + ROOM
        finally:
            del self._sweeping[process]

    def entries(self) -> list[Entry]:
        """Those in flight at this moment."""
        return [Entry(*facts) for entry in self.table.copy() if (facts := tuple(entry))]

    def clear(self) -> None:
        """Forget all: in the child of a fork they are the parent's, and so is the thread that was at a sweep."""
        self.table.clear()
        self._sweeping.clear()


def load(entries: Iterable[tuple[Entry, bool]], *, now: float) -> Load:
    """Sum up what is in flight in a process: each request, and whether it counts."""
    present = list(entries)
    counted = [entry for entry, counts in present if counts]
    oldest = min(counted, key=lambda entry: entry.start, default=None)
    return Load(
        in_flight=len(counted),
        websockets=sum(entry.method == WEBSOCKET for entry, _ in present),
        oldest=_printable(f"{oldest.method} {oldest.path}") if oldest else None,
        oldest_age=now - oldest.start if oldest else None,
    )


def _printable(asked: str) -> str:
    """What a visitor asked for, as a store can keep it and a terminal may show it."""
    return asked.encode("unicode_escape").decode("ascii")[:MAX_OLDEST]

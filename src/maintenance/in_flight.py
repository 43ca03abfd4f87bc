"""The requests that one middleware has let in and that have not ended."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from maintenance.policy import WEBSOCKET

MAX_OLDEST: Final = 200
"""The longest method and path that are reported, in characters."""


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


@dataclass(frozen=True, slots=True)
class Load:
    """What is in flight.

    Attributes:
        in_flight: Requests that the flag refuses: of a mode that refuses them, let pass by no rule and no bypass.
            While the flag is off, all of them.
        total: All of them.
        websockets: WebSockets among `total`.
        oldest: The oldest of `in_flight`, as ``"GET /path"``.
        oldest_age: Its age in seconds.
    """

    in_flight: int = 0
    total: int = 0
    websockets: int = 0
    oldest: str | None = None
    oldest_age: float | None = None


class InFlight:
    """A table of entries. Entering and leaving are one atomic step of a dict each: no lock on the way of a request."""

    def __init__(self, *, keep: Callable[[Any], Any] | None = None) -> None:
        """Start empty.

        Args:
            keep: Makes of the raw request what a bypass may be asked about later, whatever the app writes into it.
        """
        self._keep = keep
        self._keys = itertools.count()
        self._entries: dict[int | None, tuple[Any, ...]] = {}

    def enter(self, method: str, path: str, root: str, raw: Any, now: float) -> int:
        """Note a request, come `now`, **before** the flag is asked for it; returns what `leave` wants."""
        key = next(self._keys)
        # A bare tuple: a named one takes three times as long to make, and this is on every request's way.
        self._entries[key] = (method, path, root, now, raw if self._keep is None else self._keep(raw))
        return key

    def leave(self, key: int | None) -> None:
        """Forget a request; a second time changes nothing."""
        self._entries.pop(key, None)

    def entries(self) -> list[Entry]:
        """Those in flight at this moment."""
        return [Entry(*entry) for entry in list(self._entries.values())]

    def clear(self) -> None:
        """Forget all: in the child of a fork they are the parent's."""
        self._entries.clear()


def load(entries: Iterable[Entry], counts: Callable[[Entry], bool], *, now: float) -> Load:
    """Sum up what is in flight in one middleware."""
    present = list(entries)
    counted = [entry for entry in present if counts(entry)]
    oldest = min(counted, key=lambda entry: entry.start, default=None)
    return Load(
        in_flight=len(counted),
        total=len(present),
        websockets=sum(entry.method == WEBSOCKET for entry in present),
        oldest=_printable(f"{oldest.method} {oldest.path}") if oldest else None,
        oldest_age=now - oldest.start if oldest else None,
    )


def _printable(asked: str) -> str:
    """What a visitor asked for, as a store can keep it and a terminal may show it."""
    return asked.encode("unicode_escape").decode("ascii")[:MAX_OLDEST]


def total(loads: Iterable[Load]) -> Load:
    """Sum up what is in flight in a process."""
    several = list(loads)
    oldest = max(several, key=lambda load: load.oldest_age or 0.0, default=Load())
    return Load(
        in_flight=sum(load.in_flight for load in several),
        total=sum(load.total for load in several),
        websockets=sum(load.websockets for load in several),
        oldest=oldest.oldest,
        oldest_age=oldest.oldest_age,
    )

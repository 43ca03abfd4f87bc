"""The requests that the middlewares have let in, and the jobs that run."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from maintenance.base.flags import Flags
from maintenance.base.instances import Load
from maintenance.base.runtime import Runtime
from maintenance.base.values import WEBSOCKET, Snapshot

MAX_OLDEST: Final = 200
"""The longest method and path that are reported, in characters."""

JOB: Final = "job"
"""Stands for the method of a job. No request has it, because the methods of requests are in capitals."""

ROOM: Final = 256
"""How long a table may grow before it is swept, beyond twice the requests that are in flight."""

EVERYTHING: Final = Flags(site=Snapshot(enabled=False))
"""Flags under which everything in flight counts, and no bypass is asked."""


class Entry(NamedTuple):
    """A request as it came, before an app could change it; or a job.

    Attributes:
        method: As sent; `WEBSOCKET` for one, and `JOB` for a job.
        path: As the server gave it; the name of a job.
        root: The mount point as the server gave it.
        start: The clock when it came.
        raw: The server's environ or scope. A copy, if a `bypass` may be asked about it later. The scope of a job.
    """

    method: str
    path: str
    root: str
    start: float
    raw: Any


class InFlight:
    """A table of entries: each a list that holds what an `Entry` does, in flight until it is emptied.

    An adapter appends an entry to `table` **before** it looks at the flag, and calls `sweep` if the table is longer
    than `room`. Both steps are a list's own, and atomic, so a request takes no lock. The close of a body can be the
    entry's `clear` itself. That is a bound method in C, which costs a third of a function.

    Attributes:
        table: The entries, and those that have ended since the last sweep.
        room: How long the table may be before it is swept.
    """

    __slots__ = ("_sweeping", "room", "table")

    def __init__(self) -> None:
        """Start empty."""
        self.table: list[list[Any]] = []
        self.room = ROOM
        self._sweeping: dict[int, object] = {}

    def sweep(self) -> None:
        """Remove finished requests. Only one thread sweeps at a time; others return immediately."""
        # By process: in the child of a fork, the thread that swept does not exist.
        me, process = object(), os.getpid()
        if self._sweeping.setdefault(process, me) is not me:
            return
        try:
            known = self.table.copy()
            present = list(filter(None, known))
            # One step, so that no look at the table misses an entry. Entries appended since stay behind it.
            self.table[: len(known)] = present
            self.room = 2 * len(present) + ROOM
        finally:
            del self._sweeping[process]

    def entries(self) -> list[Entry]:
        """Those in flight at this moment."""
        return [Entry(*facts) for entry in self.table.copy() if (facts := tuple(entry))]

    def clear(self) -> None:
        """Forget all. In the child of a fork, they are the parent's, and so is a sweep that was under way."""
        self.table.clear()
        self._sweeping.clear()


class InFlightSource(Protocol):
    """One middleware, as its state sees it."""

    def entries(self, flags: Flags) -> list[tuple[Entry, frozenset[str | None]]] | None:
        """The requests in flight, each with the flags that count it; None if requests are not tracked.

        The site's flag (None) counts what it refuses, and all while it is off. The flag of a scope counts what it
        refuses if an operator waits for its drain.
        """

    def clear(self) -> None:
        """Forget all."""

    def notify(self, flags: Flags) -> None:
        """Take note of a flip. Returns immediately."""


class Jobs:
    """The jobs of one state, as a source: those that run are in flight, and those that wait are woken by a flip."""

    def __init__(self, *, start: Callable[[Callable[[], None]], None]) -> None:
        """Start empty; `start` runs a function in a thread."""
        self._start = start
        self._flight = InFlight()
        self._wakes: dict[Callable[[], object], None] = {}

    def enter(self, name: str, scope: str | None, now: float) -> list[Any]:
        """Enter a job. It is in flight until the list is emptied."""
        entry = [JOB, name, "", now, scope]
        self._flight.table.append(entry)
        if len(self._flight.table) > self._flight.room:
            self._flight.sweep()
        return entry

    def is_empty(self) -> bool:
        """Whether no job runs."""
        return not self._flight.entries()

    def entries(self, flags: Flags) -> list[tuple[Entry, frozenset[str | None]]]:  # noqa: ARG002 - every mode refuses a job
        """Each job that runs. The site's flag counts it, and the flag of its scope."""
        return [(entry, frozenset({None, entry.raw})) for entry in self._flight.entries()]

    @contextlib.contextmanager
    def woken(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake` in a thread, at each flip during the block."""
        self._wakes[wake] = None
        try:
            yield
        finally:
            self._wakes.pop(wake, None)

    def clear(self) -> None:
        """Forget all: in the child of a fork, they are the parent's."""
        self._flight.clear()
        self._wakes.clear()

    def notify(self, flags: Flags) -> None:  # noqa: ARG002 - those that wait look for themselves
        """Wake those that wait. A busy event loop among them must not hold up the thread that renews the lease."""
        wakes = tuple(self._wakes)
        if wakes:
            # Without a thread, they look again soon.
            with contextlib.suppress(RuntimeError, OSError):
                self._start(lambda: _call_all(wakes))


def _call_all(wakes: Iterable[Callable[[], object]]) -> None:
    for wake in wakes:
        with contextlib.suppress(RuntimeError):  # its event loop has ended
            wake()


class Sources:
    """The middlewares that follow one state, and its jobs.

    Attributes:
        jobs: The jobs.
        closed_at: When (clock) the state was closed. A later request belongs to the state that replaced it.
    """

    def __init__(self, *, runtime: Runtime) -> None:
        """Start without any."""
        self._clock = runtime.clock
        self.jobs = Jobs(start=runtime.start)
        self._sources: dict[InFlightSource, None] = {self.jobs: None}
        self.closed_at = float("inf")

    def add(self, source: InFlightSource) -> None:
        """Count the requests of one more middleware."""
        self._sources.setdefault(source)

    def __iter__(self) -> Iterator[InFlightSource]:
        """Each middleware, and the jobs. Another thread may add one at the same time."""
        return iter(tuple(self._sources))

    def close(self) -> None:
        """Count no request that comes from now on."""
        self.closed_at = min(self.closed_at, self._clock())

    def measure(self, flags: Flags) -> Load | None:
        """The requests in flight by the flags that count them; None if a middleware does not track its requests."""
        entries = [source.entries(flags) for source in self]
        if None in entries:
            return None
        mine = (it for it in itertools.chain(*filter(None, entries)) if it[0].start <= self.closed_at)
        return sum_up(mine, flags.drains, now=self._clock())

    def is_idle(self) -> bool:
        """Whether no known request is in flight."""
        load = self.measure(EVERYTHING)
        return load is None or load.in_flight == 0

    def clear(self) -> None:
        """Forget all that is in flight: in the child of a fork, it is the parent's."""
        for source in self:
            source.clear()

    def notify(self, flags: Flags) -> None:
        """Pass a flip on."""
        for source in self:
            source.notify(flags)


def sum_up(entries: Iterable[tuple[Entry, frozenset[str | None]]], drains: Iterable[str | None], *, now: float) -> Load:
    """Sum up what is in flight in a process: each request, and the flags that count it."""
    present = list(entries)
    counted = [entry for entry, flags in present if None in flags]
    oldest = min(counted, key=lambda entry: entry.start, default=None)
    return Load(
        in_flight=len(counted),
        websockets=sum(entry.method == WEBSOCKET for entry, _ in present),
        oldest=_printable(f"{oldest.method} {oldest.path}") if oldest else None,
        oldest_age=now - oldest.start if oldest else None,
        drains={scope: sum(scope in flags for _, flags in present) for scope in drains if scope is not None},
    )


def _printable(request: str) -> str:
    """A visitor's method and path, in a form that a store can keep and a terminal may show."""
    return request.encode("unicode_escape").decode("ascii")[:MAX_OLDEST]

"""What happened, in one order, and what must be true of it.

Every instant is a stamp of the world. An admission is the reading of the clock on which the middleware's check rests:
the last one before the handler was called. What is looked up after it may be newer, so that one which was read too
early for a flag that is off again by the time the handler starts is none too late. A success counts from the instant
of the decisive statement, the last reading of the fleet, which is earlier, and so stricter, than the moment at which
`prove` returned. Only for a process that has crashed it is that moment: that it is gone is learned after the statement.

A flag refuses from its write on, or from its start by the database's clock, until its end or until it is written anew.
Two things must hold in that time, for the requests of that flag: nobody admits one after a success, and a process that
has acknowledged the flag admits none either, whether anybody waits for it or not. No process ever enforces a value once
it has acknowledged a later one.

A restore of an older dump is no change: who has followed the flag goes on to refuse until somebody writes it anew.

The stated limits, and nothing else, are left out: a process under `serve` that was not registered when the decisive
statement was executed; for a drain, a process that does not track its requests and has left; and after a restore, a
process that had not acknowledged what was lost.
"""

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from maintenance.base.values import Mode
from maintenance.http.rules import PASSES

NEVER = 1 << 60
METHODS = ("GET", "POST")
LOST = 1_000
"""More changes than one run makes. So many were made after the dump, so that no lost revision is used twice."""


@dataclass(eq=False)
class Write:
    """A change of a flag."""

    at: int
    scope: str | None
    revision: int
    enabled: bool
    mode: Mode
    starts: float | None  # true time
    until: float | None  # true time of the end, if it ends by itself
    restored: bool  # whether it was made after the restore
    begun: int = NEVER  # from when on it refuses
    ended: int = NEVER

    def refuses(self, method: str) -> bool:
        """Whether it refuses a method while it is on."""
        return method not in PASSES[self.mode]


@dataclass
class Success:
    """A proof that an operator was given."""

    at: int
    revision: int
    drain: bool
    told: int  # when `prove` returned
    process: str | None = None  # what a process wrote itself is proven to that process, whatever others do


@dataclass
class Handled:
    """A request that reached the handler, and that no rule lets pass."""

    process: str
    instance: str | None  # None where the process had no thread yet
    scope: str | None
    method: str
    admitted: int
    started: int
    blocks: bool
    tracked: bool
    ended: int = NEVER
    crashed: bool = False  # what has ended it


@dataclass
class Refused:
    """A request that a flag refused."""

    process: str
    at: int  # the reading of the clock
    scope: str | None  # the flag's
    revision: int


@dataclass
class Warned:
    """A process that has begun after the restore, and to which the database says that others know more."""

    process: str
    at: int
    acknowledged: int = NEVER
    until: int = NEVER


@dataclass
class History:
    """Lists, appended to as it happens."""

    writes: list[Write] = field(default_factory=list)
    successes: list[Success] = field(default_factory=list)
    handled: list[Handled] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    warned: list[Warned] = field(default_factory=list)
    acknowledged: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # process: (at, revision)
    registered: dict[str, int] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)  # names of processes
    dumped: int = NEVER  # the last revision in the dump
    restored: int = NEVER
    wrong: list[str] = field(default_factory=list)  # what did not come to pass
    broken: list[str] = field(default_factory=list)  # what must never be, found while it happened
    counts: dict[str, int] = field(default_factory=dict)
    _by_revision: dict[int, Write] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def unsafe(self) -> list[str]:
        """The violations of what is promised for every moment."""
        found = (self._late(), self._disowned(), self._outdated(), self._heedless())
        return self.broken + [str(one) for one in itertools.chain(*found)]

    def add(self, write: Write) -> None:
        self.writes.append(write)
        self._by_revision[write.revision] = write

    def find(self, revision: int) -> Write:
        return self._by_revision[revision]

    # After a success.

    def _late(self) -> Iterator[str]:
        for success in self.successes:
            write = self.find(success.revision)
            for method in METHODS:
                begin, end = self._window(write, method)
                if success.process is None:
                    end = min(end, self.restored if self.restored > success.at else NEVER)
                for one in self.handled if begin < end else ():
                    if not _belongs(one, write, method) or one.started >= end or not self._bound(one, success):
                        continue
                    since = max(success.told if one.crashed else success.at, begin)
                    if since < one.admitted:
                        yield f"{one} was admitted after {success}"
                    elif success.drain and since < one.ended and self._drains(one):
                        yield f"{one} was still running at {success}"

    def _window(self, write: Write, method: str) -> tuple[int, int]:
        """From when until when a write refuses a method, whatever its readers have not read yet."""
        begin, end = write.begun, write.ended
        if not write.refuses(method) or write.at < self.restored < begin:
            return NEVER, NEVER  # a restore takes back what had not begun
        for later in self.writes:
            if later.scope != write.scope or later.at <= write.at:
                continue
            if not later.enabled or not later.refuses(method):
                return begin, min(end, later.at)
            end = min(end, later.ended)
        return begin, end

    def _bound(self, one: Handled, success: Success) -> bool:
        if success.process is not None:
            return one.process == success.process
        return one.blocks or self.registered.get(one.instance or "", NEVER) <= success.at

    def _drains(self, one: Handled) -> bool:
        return one.tracked or one.process not in self.left

    # After an acknowledgement.

    def _covers(self, revision: int, write: Write) -> bool:
        """Whether who has acknowledged a revision has read a write, or a later one of its flag."""
        if write.revision > revision:
            return False
        return write.revision <= self.dumped or write.restored == self._is_restored(revision)

    def _is_restored(self, revision: int) -> bool:
        return self.dumped < revision < self.dumped + LOST

    def _disowned(self) -> Iterator[str]:
        by_process: dict[str, list[Handled]] = {}
        for one in self.handled:  # in the order in which they started
            by_process.setdefault(one.process, []).append(one)
        for write, method in itertools.product(self.writes, METHODS):
            begin, end = self._window(write, method)
            for process, handled in by_process.items() if begin < end else ():
                known = self.acknowledged.get(process, ())
                since = max(begin, next((at for at, revision in known if self._covers(revision, write)), NEVER))
                first, last = (bisect.bisect(handled, at, key=lambda one: one.started) for at in (since, end - 1))
                for one in handled[first:last]:
                    if since < one.admitted and _belongs(one, write, method):
                        yield f"{one} was admitted, and {write} was acknowledged"

    def _outdated(self) -> Iterator[str]:
        newest: dict[tuple[str, str | None, bool], list[tuple[int, Write]]] = {}
        for one in self.refused:
            key = one.process, one.scope, one.at > self.restored
            if key not in newest:
                newest[key] = list(self._newest(*key))
            position = bisect.bisect(newest[key], one.at, key=lambda known: known[0])
            if position and newest[key][position - 1][1].at > self.find(one.revision).at:
                yield f"{one}, and {newest[key][position - 1][1]} was acknowledged before"

    def _newest(self, process: str, scope: str | None, restored: bool) -> Iterator[tuple[int, Write]]:
        """What a process knows of a flag from when on. After a restore, it may go back to the dump."""
        writes = [one for one in self.writes if one.scope == scope and (one.restored or not restored)]
        for at, revision in self.acknowledged.get(process, ()):
            while writes and self._covers(revision, writes[0]):
                yield at, writes.pop(0)

    def _heedless(self) -> Iterator[str]:
        for warned, one in itertools.product(self.warned, self.handled):
            if warned.process == one.process and warned.acknowledged < one.admitted and one.started < warned.until:
                yield f"{one} was admitted, and {warned}"


def _belongs(one: Handled, write: Write, method: str) -> bool:
    return one.method == method and write.scope in (None, one.scope)

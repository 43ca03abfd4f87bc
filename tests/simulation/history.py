"""What happened, in one order, and what must be true of it.

Every instant is a stamp of the world. An admission is the reading of the clock on which the middleware's check rests:
the last one before the handler was called. What is looked up after it may be newer, so that one which was read too
early for a flag that is off again by the time the handler starts is none too late. A success counts from the instant
of the decisive statement, the last reading of the fleet, which is earlier, and so stricter, than the moment at which
`prove` returned. Only for a process that has crashed it is that moment: that it is gone is learned after the statement.

The stated limits, and nothing else, are left out: a process under `serve` that was not registered when the decisive
statement was executed, and, for a drain, a process that does not track its requests and has left.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from maintenance.base.values import Mode
from maintenance.http.rules import PASSES

NEVER = 1 << 60
METHODS = ("GET", "POST")


@dataclass
class Write:
    """A change of the flag."""

    at: int
    revision: int
    enabled: bool
    mode: Mode

    def refuses(self, method: str) -> bool:
        return self.enabled and method not in PASSES[self.mode]


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
    method: str
    admitted: int
    started: int
    blocks: bool
    tracked: bool
    ended: int = NEVER
    crashed: bool = False  # what has ended it


@dataclass
class History:
    """Lists, appended to as it happens."""

    writes: list[Write] = field(default_factory=list)
    successes: list[Success] = field(default_factory=list)
    handled: list[Handled] = field(default_factory=list)
    registered: dict[str, int] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)  # names of processes
    wrong: list[str] = field(default_factory=list)  # found while it happened
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def violations(self) -> list[str]:
        return self.wrong + list(self._late())

    def _late(self) -> Iterator[str]:
        for success in self.successes:
            for method in METHODS:
                end = self._reopened(success, method)
                for one in self.handled if end else ():
                    if one.method != method or one.started >= end or not self._bound(one, success):
                        continue
                    since = success.told if one.crashed else success.at
                    if since < one.admitted:
                        yield f"{one} was admitted after {success}"
                    elif success.drain and since < one.ended and self._drains(one):
                        yield f"{one} was still running at {success}"

    def _reopened(self, success: Success, method: str) -> int:
        """When the method was let in again after a success; 0 where that flag lets it in."""
        [flip] = [write for write in self.writes if write.revision == success.revision]
        if not flip.refuses(method):
            return 0
        return min((it.at for it in self.writes if it.at > flip.at and not it.refuses(method)), default=NEVER)

    def _bound(self, one: Handled, success: Success) -> bool:
        if success.process is not None:
            return one.process == success.process
        return one.blocks or self.registered.get(one.instance or "", NEVER) <= success.at

    def _drains(self, one: Handled) -> bool:
        return one.tracked or one.process not in self.left

"""A store in memory that fails on demand, in the ways that a real one fails."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from maintenance.base.flags import Flags, Reading
from maintenance.base.instances import SENTINEL, Fleet, Instance
from maintenance.base.values import Change, Row, Written
from maintenance.errors import StoreError
from maintenance.stores import MemoryStore, Session, Waker


class FaultyStore:
    """A `MemoryStore` behind a network and a server that a test breaks.

    Attributes:
        error: The exception of every call; None if the store answers.
        report_error: The exception of every `Session.report`.
        swallows: Whether reports succeed and write nothing.
        standby: Whether a standby answers.
        wait_error: The exception of the next `Session.wait`, once.
        meanwhile: Called between the moment a read is sent and its answer.
        at_report: Called before a report is written.
        connects: The number of connections so far.
        reads: The number of reads so far.
        reports: Every report, in order.
        removals: The ids of every removal, in order.
        limits: The limit in seconds of each block of calls, in order.
        connect_limits: The same of each connect.
        open: How many sessions are open.
    """

    name = "faulty://"

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.error: Exception | None = None
        self.report_error: Exception | None = None
        self.swallows = False
        self.standby = False
        self.intact = True
        self.meanwhile: Callable[[], object] = lambda: None
        self.at_report: Callable[[], object] = lambda: None
        self.wait_error: Exception | None = None
        self.connects = self.reads = self.open = 0
        self.reports: list[Instance] = []
        self.removals: list[tuple[str, ...]] = []
        self.limits: list[float] = []
        self.connect_limits: list[float | None] = []

    def connect(self, *, listen: bool = False, limit: float | None = None) -> "FaultySession":
        self.connects += 1
        self.connect_limits.append(limit)
        self.fail()
        self.open += 1
        return FaultySession(self, self.inner.connect(listen=listen))

    def migrate(self) -> None:
        self.inner.migrate()

    def go_back(self, row: Row) -> None:
        """Show the site's flag as it was before, as a standby that is behind does, or a database after a restore."""
        self.inner.row = row
        assert isinstance(row.revision, int)
        self.inner._table.last = row.revision

    def fail(self) -> None:
        if self.error is not None:
            raise self.error

    def away(self, said: str = "the server is away") -> None:
        self.error = StoreError(said)

    def back(self) -> None:
        self.error = None


class FaultySession:
    """A session of a `FaultyStore`."""

    def __init__(self, store: FaultyStore, inner: Session) -> None:
        self._store, self._inner, self._closed = store, inner, False
        self.abandoned = False

    @property
    def listening(self) -> bool:
        return self._inner.listening

    def read(self, instance: str | None = None, *, known: Flags | None = None) -> Reading:
        self._store.reads += 1
        self._store.fail()
        found = self._inner.read(instance, known=known)
        self._store.meanwhile()
        return replace(found, primary=not self._store.standby)

    def carry_out(self, scope: str | None, revision: int, *, enabled: bool) -> bool:
        self._store.fail()
        return self._inner.carry_out(scope, revision, enabled=enabled)

    def write(self, change: Change) -> Written:
        self._store.fail()
        return self._inner.write(change)

    def report(self, instance: Instance) -> None:
        self._store.fail()
        if self._store.report_error is not None:
            raise self._store.report_error
        if instance is SENTINEL:
            self._store.intact = True
            return
        self._store.at_report()
        self._store.reports.append(instance)
        if not self._store.swallows:
            self._inner.report(instance)

    def remove(self, *instances: str) -> int:
        self._store.fail()
        self._store.removals.append(instances)
        return self._inner.remove(*instances)

    def fleet(self, scope: str | None = None) -> Fleet:
        self._store.fail()
        found = self._inner.fleet(scope)
        return replace(
            found, reading=replace(found.reading, primary=not self._store.standby), intact=self._store.intact
        )

    def ask_drain(self, revision: int, scope: str | None = None) -> None:
        self._store.fail()
        self._inner.ask_drain(revision, scope)

    def wait(self, timeout: float, waker: Waker) -> bool:
        error, self._store.wait_error = self._store.wait_error, None
        if error is not None:
            raise error
        self._store.fail()
        return self._inner.wait(timeout, waker)

    def within(self, seconds: float) -> AbstractContextManager[None]:
        self._store.limits.append(seconds)
        return self._inner.within(seconds)

    def abandon(self) -> None:
        self.abandoned = True
        self._inner.abandon()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._store.open -= 1

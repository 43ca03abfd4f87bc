"""The flag in this process's memory: for tests, and for a program of one process that may forget it on restart."""

import contextlib
import datetime as dt
import time
from collections.abc import Callable
from dataclasses import replace

from maintenance.base.runtime import REAL, Waker
from maintenance.base.values import Change, Fleet, Instance, Reading, Row
from maintenance.errors import ConfigurationError
from maintenance.stores.protocol import Session, Store


class MemoryStore(Store):
    """A flag of its own for each store object, shared by the threads and states of this process only.

    Attributes:
        name: ``memory://``.
    """

    name = "memory://"

    def __init__(self, url: str = name, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with the flag off.

        Args:
            url: ``memory://``, without a host or a path.
            clock: Seconds; measures how long an instance has been silent.

        Raises:
            ConfigurationError: The URL has a host or a path.
        """
        if url != self.name:
            raise ConfigurationError("a database URL in memory has no host and no path: use memory://")
        self._table = _Table(clock)

    @property
    def row(self) -> Row | None:
        """The flag's row. Set it to any row, as if written by hand, or to None to delete it."""
        return self._table.row

    @row.setter
    def row(self, row: Row | None) -> None:
        with self._table.lock:
            if row is not None and isinstance(row.revision, int):
                self._table.revision = max(self._table.revision, row.revision)
            self._table.put(row)

    def connect(self, *, listen: bool = False, limit: float | None = None) -> "MemorySession":  # noqa: ARG002
        return MemorySession(self._table, listen=listen)

    def migrate(self) -> None:
        pass  # there is nothing to create


class _Table:
    """The data that the sessions of one store share. Every attribute but `clock` is used under the lock only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = REAL.lock()
        self.row: Row | None = Row(False, {}, 1, dt.datetime.now(dt.UTC))
        self.revision = 1
        self.drain: int | None = None
        self.instances: dict[str, tuple[Instance, float]] = {}
        self.version = 0
        self.waiting: list[Waker] = []

    def put(self, row: Row | None) -> None:
        self.row = row
        self.version += 1
        for waker in self.waiting:
            waker.wake()


class MemorySession(Session):
    """Nothing here blocks or fails, so `within` and `close` do nothing."""

    listening = False

    def __init__(self, table: _Table, *, listen: bool) -> None:
        """Open a session on a store's table."""
        self.listening = listen
        self._table = table
        self._seen = table.version

    def read(self, instance: str | None = None) -> Reading:
        with self._table.lock:
            self._seen = self._table.version
            return self._reading(instance)

    def _reading(self, instance: str | None = None) -> Reading:
        row, drain = self._table.row, self._table.drain
        asked = row is not None and drain is not None and row.revision == drain
        return Reading(row, registered=instance in self._table.instances, drain=asked)

    def write(self, change: Change) -> Row:
        details = change.details.to_json()
        with self._table.lock:
            old = self._table.row
            if old is None or old.value_bool is not change.enabled or old.details != details:
                self._table.revision += 1
            if change.drain:
                self._table.drain = self._table.revision
            row = Row(change.enabled, details, self._table.revision, dt.datetime.now(dt.UTC), change.updated_by)
            self._table.put(row)
        return row

    def report(self, instance: Instance) -> None:
        with self._table.lock:
            self._table.instances[instance.id] = instance, self._table.clock()

    def remove(self, *instances: str) -> int:
        with self._table.lock:
            return sum(self._table.instances.pop(one, None) is not None for one in instances)

    def fleet(self) -> Fleet:
        # Always intact, because nothing else can empty this process's memory.
        with self._table.lock:
            now = self._table.clock()
            found = [replace(one, silent_for=now - seen_at) for one, seen_at in self._table.instances.values()]
            reading = self._reading()
        return Fleet(reading, tuple(sorted(found, key=lambda one: (one.host, one.pid, one.id))), intact=True)

    def find(self, beginning: str) -> tuple[Instance, ...]:
        return tuple(one for one in self.fleet().instances if one.id.startswith(beginning))

    def ask_drain(self, revision: int) -> None:
        with self._table.lock:
            if self._table.row is not None and self._table.row.revision == revision:
                self._table.drain = revision
                self._table.put(self._table.row)

    def wait(self, timeout: float, waker: Waker) -> bool:
        if not self.listening:
            waker.wait(timeout)
            return False
        with self._table.lock:
            changed = self._seen != self._table.version
            self._table.waiting.append(waker)  # before the lock is let go: from here on, a change wakes
        if not changed:
            waker.wait(timeout)
        with self._table.lock:
            self._table.waiting.remove(waker)
            changed = self._seen != self._table.version
            self._seen = self._table.version
        return changed

    def within(self, _: float) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def abandon(self) -> None:
        # The table is a copy now, but its lock and its wakers are still the parent's.
        self._table.lock = REAL.lock()
        self._table.waiting.clear()

    def close(self) -> None: ...

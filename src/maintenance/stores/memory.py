"""The flag in this process's memory: for tests, and for a program of one process that may forget it on restart."""

import contextlib
import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from maintenance.base.flags import SEEDED, Flags, Reading
from maintenance.base.history import Entry
from maintenance.base.instances import Fleet, Instance
from maintenance.base.runtime import REAL, Waker
from maintenance.base.values import Change, Row, Written
from maintenance.errors import ConfigurationError
from maintenance.stores.protocol import Session, Store
from maintenance.stores.rows import check_revision, describe_caller, is_in_force

MAX_HISTORY: Final = 1000
"""How many changes are kept."""


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
        """The row of the site's flag. Set it to any row, as if written by hand, or to None to delete it."""
        return self._table.rows.get(None)

    @row.setter
    def row(self, row: Row | None) -> None:
        with self._table.lock:
            if row is not None and isinstance(row.revision, int):
                self._table.last = max(self._table.last, row.revision)
            self._table.put(None, row)

    def connect(self, *, listen: bool = False, limit: float | None = None) -> "MemorySession":  # noqa: ARG002
        return MemorySession(self._table, listen=listen)

    def migrate(self) -> None:
        pass  # there is nothing to create


class _Table:
    """The data that the sessions of one store share. Every attribute but `clock` is used under the lock only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = REAL.lock()
        self.rows: dict[str | None, Row] = {None: Row(False, {}, 1, SEEDED)}
        self.last = 1
        self.flipped_at = float("-inf")
        self.history: deque[Entry] = deque(maxlen=MAX_HISTORY)
        self.instances: dict[str, tuple[Instance, float]] = {}
        self.version = 0
        self.waiting: list[Waker] = []

    def put(self, scope: str | None, row: Row | None) -> None:
        if row is None:
            self.rows.pop(scope, None)
        else:
            self.rows[scope] = row
        self.version += 1
        for waker in self.waiting:
            waker.wake()

    def change(self, row: Row) -> None:
        """Put a row whose value or details are new, with the next revision."""
        before = self.rows.get(row.scope)
        self.last += 1
        self.put(row.scope, replace(row, revision=self.last, drain=row.drain))
        self.history.append(_make_entry(before, self.rows[row.scope]))


def _make_entry(before: Row | None, row: Row) -> Entry:
    def details(of: Row | None) -> Any:
        return of.details if of is not None and isinstance(of.details, Mapping) else {}

    def value(of: Row | None) -> bool | None:
        return of.value_bool if of is not None and isinstance(of.value_bool, bool) else None

    return Entry(
        at=dt.datetime.now(dt.UTC),
        scope=row.scope,
        revision=row.revision if isinstance(row.revision, int) else 0,
        before=value(before),
        after=value(row),
        details_before=details(before),
        details=details(row),
        updated_by=row.updated_by if isinstance(row.updated_by, UUID) else None,
    )


class MemorySession(Session):
    """Nothing here blocks or fails, so `within` and `close` do nothing."""

    listening = False

    def __init__(self, table: _Table, *, listen: bool) -> None:
        """Open a session on a store's table."""
        self.listening = listen
        self._table = table
        self._seen = table.version

    def read(self, instance: str | None = None, *, known: Flags | None = None) -> Reading:
        with self._table.lock:
            self._seen = self._table.version
            caller = describe_caller(known)
            return replace(self._reading(instance, caller["token"]), ahead=caller["doubtful"] and self._is_behind())

    def _is_behind(self) -> bool:
        """Whether an instance has acknowledged a revision that the table does not have, after the site's last flip."""
        table = self._table
        return any((it.revision or 0) > table.last and at > table.flipped_at for it, at in table.instances.values())

    def _reading(self, instance: str | None = None, token: str | None = None, scope: str | None = None) -> Reading:
        table = self._table
        newest = str(table.version)
        shown = [it for it in table.rows.values() if it.scope is not None and (is_in_force(it) or it.scope == scope)]
        return Reading(
            table.rows.get(None),
            None if token == newest else tuple(shown),
            last=table.last,
            token=newest,
            now=dt.datetime.now(dt.UTC),
            registered=instance in table.instances,
            store=MemoryStore.name,
        )

    def write(self, change: Change) -> Written:
        details = change.details.to_json()
        with self._table.lock:
            table, now = self._table, dt.datetime.now(dt.UTC)
            before = table.rows.get(change.scope)
            check_revision(change, before, store=MemoryStore.name)
            change.check_times(now)
            if change.scope is None:
                table.flipped_at = table.clock()
            row = Row(change.value, details, 0, now, change.updated_by, change.scope, change.drain)
            if before is None or before.value_bool is not change.value or before.details != details:
                table.change(row)
            else:
                table.put(change.scope, replace(row, revision=before.revision, drain=change.drain or before.drain))
            return Written(table.rows[change.scope], before, table.last, now)

    def carry_out(self, scope: str | None, revision: int, *, enabled: bool) -> bool:
        with self._table.lock:
            row = self._table.rows.get(scope)
            if row is None or row.revision != revision:
                return False
            if row.value_bool is enabled and (enabled or not is_in_force(row)):
                return False
            self._table.change(replace(row, value_bool=enabled, details=row.details if enabled else {}))
            return True

    def history(self, scope: str | None, *, limit: int) -> tuple[Entry, ...]:
        with self._table.lock:
            found = [entry for entry in self._table.history if scope in (None, entry.scope)]
        return tuple(reversed(found[-limit:]))

    def report(self, instance: Instance) -> None:
        with self._table.lock:
            self._table.instances[instance.id] = instance, self._table.clock()

    def remove(self, *instances: str) -> int:
        with self._table.lock:
            return sum(self._table.instances.pop(one, None) is not None for one in instances)

    def fleet(self, scope: str | None = None) -> Fleet:
        # Always intact, because nothing else can empty this process's memory.
        with self._table.lock:
            now = self._table.clock()
            found = [replace(one, silent_for=now - seen_at) for one, seen_at in self._table.instances.values()]
            reading = self._reading(scope=scope)
        return Fleet(reading, tuple(sorted(found, key=lambda one: (one.host, one.pid, one.id))), intact=True)

    def find(self, beginning: str) -> tuple[Instance, ...]:
        return tuple(one for one in self.fleet().instances if one.id.startswith(beginning))

    def ask_drain(self, revision: int, scope: str | None = None) -> None:
        with self._table.lock:
            row = self._table.rows.get(scope)
            if row is not None and row.revision == revision:
                self._table.put(scope, replace(row, drain=True))

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

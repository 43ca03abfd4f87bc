"""One life of a process whose steps a test takes itself."""

import datetime as dt
from collections.abc import Callable
from typing import Any, cast

from maintenance import MaintenanceState
from maintenance.base.flags import Flags, StoreClock
from maintenance.base.instances import Load
from maintenance.base.options import Settings
from maintenance.base.values import Change, Details, Row, Snapshot
from maintenance.process.in_flight import EVERYTHING, Sources
from maintenance.process.lease import Lease, fallback
from maintenance.process.life import Event
from maintenance.process.listeners import Listeners
from maintenance.process.watcher import Watcher
from maintenance.proof.membership import Membership
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clock import Clock, Sleeper, runtime
from tests.support.entering import enter
from tests.support.faulty import FaultyStore
from tests.support.plain_apps import wsgi

ON = Change(enabled=True, details=Details())


def watcher_of(state: MaintenanceState) -> Watcher:
    """The watcher of a state that has begun a life."""
    watcher = state.lifecycle.watcher
    assert watcher is not None
    return watcher


def enter_request(state: MaintenanceState) -> list[Any]:
    """Enter a request into a middleware of a state; it leaves when the entry is cleared."""
    table = MaintenanceMiddleware(wsgi, state)._admission.in_flight
    assert table is not None
    return enter(table, "POST", "/slow", "", {}, 0.0)


class Life:
    """A watcher without its thread, and its only middleware and listener.

    Attributes:
        load: The requests in flight; None if they are not tracked.
        tries: How many tries have ended.
        after_try: Called after each.
        high: Which random number comes, from 0.0 for the lowest to 1.0.
    """

    def __init__(self, *, ttl: float = 10.0, **settings: Any) -> None:
        self.clock, self.store = Clock(), FaultyStore()
        self.waker = Sleeper(self.clock)
        self.load: Load | None = Load()
        self.tries = 0
        self.after_try: Callable[[], object] = lambda: None
        self.high = 1.0
        self.settings = Settings(ttl=ttl, **settings)
        machine = runtime(
            self.clock, waker=lambda: self.waker, uniform=lambda low, high: low + self.high * (high - low)
        )
        self.lease = Lease(fallback(None), settings=self.settings, runtime=machine)
        self.lease.life.apply(Event.START)
        self.watcher = Watcher(self.store, self.lease, cast("Sources", self), cast("Listeners", self))
        self.watcher._waker = self.waker  # as if the thread runs

    # The middleware and the listener

    def measure(self, _: Flags) -> Load | None:
        return self.load

    def is_idle(self) -> bool:
        load = self.measure(EVERYTHING)
        return load is None or load.in_flight == 0

    def notify_in_thread(self) -> None:
        self.tries += 1
        self.after_try()

    # The steps

    def attempt(self) -> None:
        """Read once."""
        self.watcher._try()

    def rest(self) -> float:
        """Rest, and return for how long."""
        began = self.clock.now
        self.watcher._rest(began)
        return self.clock.now - began

    def leave(self) -> None:
        """End the life, as `leave` does."""
        self.lease.end(Event.LEAVE)
        self.watcher.wake()

    def run_to_end(self) -> None:
        """End the life, and run the thread until it has left."""
        self.leave()
        self.watcher._run()

    # The store

    def flip(self, message: str | None = None) -> int:
        """Switch on, over another connection."""
        row = self.store.inner.connect().write(Change(enabled=True, details=Details(message=message))).row
        assert isinstance(row.revision, int)
        return row.revision

    def flip_here(self) -> None:
        """Switch on, in this process."""
        written = self.store.inner.connect().write(ON)
        flag = written.row.snapshot(read_at=self.clock.now)
        clock = StoreClock(written.now, self.clock.now, self.clock.now)
        assert self.lease.put(written, flag, clock=clock, asked=self.lease.ticket())

    def plan(self, *, starts: dt.timedelta, until: dt.timedelta, auto_off: bool) -> None:
        """Schedule the site's flag, over another connection, in times from now on."""
        now = dt.datetime.now(dt.UTC)
        details = Details(starts=now + starts, until=now + until, auto_off=auto_off)
        self.store.inner.connect().write(Change(enabled=True, details=details))

    def stored(self) -> Snapshot:
        """The site's flag as the store has it."""
        return self.store.inner.connect().read().snapshot(read_at=0.0)

    def turn(self) -> None:
        """What the thread does between two reads, once."""
        self.watcher._follow_schedule()
        self.watcher.reader.follow_up()

    def lag(self) -> None:
        """Show the flags as they were before the flip, as a standby that is behind does."""
        self.store.go_back(Row(False, {}, 1))

    def ask_drain(self) -> None:
        """Switch on, and wait for what is in flight."""
        self.store.inner.connect().ask_drain(self.flip())

    def remove_row(self) -> None:
        """Remove the row of this process, as an operator may."""
        self.store.inner.connect().remove(self.membership.instance.id)

    @property
    def membership(self) -> Membership:
        return self.watcher.reader.membership

    @property
    def reported(self) -> list[int | None]:
        """The revisions that were reported, in order."""
        return [instance.revision for instance in self.store.reports]

    @property
    def registered(self) -> bool:
        """Whether the store holds the row of this process, and no other one."""
        return [it.id for it in self.store.inner.connect().fleet().instances] == [self.membership.instance.id]

    @property
    def ended(self) -> bool:
        """Whether nothing is left of this life."""
        rows = self.store.inner.connect().fleet().instances
        return (rows, self.store.open, self.waker.closed) == ((), 0, True) and self.watcher._ended.wait(0)

"""One process follows the store: the first caller starts a life, and requests wait if they must."""

import contextlib
from typing import Any, Final

from maintenance.base.runtime import REAL
from maintenance.process import leaving
from maintenance.process.in_flight import Sources
from maintenance.process.lease import GRACE, Answer, Lease
from maintenance.process.life import Event, Phase, Purpose, Thread
from maintenance.process.listeners import Listeners
from maintenance.process.waiting import PATIENCE
from maintenance.process.watcher import Watcher
from maintenance.stores import Store

LEAVE_LIMIT: Final = 1.0
"""Seconds for which leaving waits for the row to go."""

_noticing: Final = REAL.lock()


class Lifecycle:
    """Starts a life in each process that asks, ends it, and makes requests wait for its reads.

    Attributes:
        watcher: Of the present life; None in the phases IDLE and LEAVING.
    """

    def __init__(self, store: Store, lease: Lease, sources: Sources, listeners: Listeners) -> None:
        """Take what each life needs; nothing is started or connected yet."""
        self._store, self._lease, self._sources, self._listeners = store, lease, sources, listeners
        self._runtime = lease.runtime
        self._reset()

    def _reset(self) -> None:
        """Set what belongs to this process alone, and not to a child that it forks."""
        self._lock = self._runtime.lock()
        self.watcher: Watcher | None = None
        self._leaves_at_end = False
        # Last. Another thread that finds it right finds the rest reset.
        self._pid = self._runtime.pid()

    @property
    def booting(self) -> bool:
        """Whether this life has not read yet, and its first requests still wait for that."""
        life, watcher = self._lease.life, self.watcher
        if life.phase is Phase.FOLLOWING:
            return False
        if watcher is None or self._runtime.clock() < watcher.room.boot_until:
            return True
        return not life.apply(Event.READY, epoch=watcher.reader.epoch)

    @property
    def must_wait(self) -> bool:
        """Whether the flag is read only if the caller waits: before the first read, and without a thread."""
        watcher = self.watcher
        return watcher is None or not watcher.running or self.booting

    def peek(self, purpose: Purpose = Purpose.SERVE) -> Answer | None:
        """Return the answer for a request past its deadline, or None if the caller must use `wait_for_answer`."""
        self.begin(purpose)
        lease, watcher = self._lease, self.watcher
        if lease.advance() and watcher is not None:
            watcher.wake(read=False)
        if (answer := lease.find_answer(purpose)) is not None:
            return answer
        if watcher is None or self.booting:
            return lease.current if lease.life.closed else None
        # Unless the thread runs, a request has to try.
        is_down = watcher.running and (lease.failing or not watcher.room.outcomes)
        return lease.stale_answer(grace=GRACE) if is_down else None

    def wait_for_answer(self, purpose: Purpose = Purpose.SERVE) -> Answer:
        """Return the answer for a request past its deadline.

        Before the first read, every request waits for it, for `boot_timeout` at most. Later, one request waits for
        `PATIENCE` at most, and those that come in between for `SHORT_PATIENCE`.
        """
        while (answer := self.peek(purpose)) is None:
            watcher = self.watcher
            if watcher is None:
                continue  # it left in between; the next look starts a new life
            first = self._wait_for(watcher)
            if watcher.over and purpose is Purpose.ASK:
                continue  # a request or a job has begun a life of its own
            if not watcher.running or not self.booting:
                return self._conclude(purpose, first=first)
        return answer

    def _wait_for(self, watcher: Watcher) -> bool:
        """Wait for the outcome of one try; True if this is the request that waits for long."""
        if self.booting:
            self._wait(watcher, watcher.room.boot_until - self._runtime.clock())
            return False
        with watcher.room.patience(sent=watcher.trying_since) as (seconds, first):
            self._wait(watcher, seconds)
        return first

    def _wait(self, watcher: Watcher, seconds: float) -> None:
        """Wait for the outcome of one try, or make it."""
        room, lease = watcher.room, self._lease
        outcomes = room.outcomes
        outcome = room.enter()
        if room.outcomes != outcomes or lease.running or watcher.over:
            return
        if not lease.failing or (watcher.late and not watcher.busy and self.booting):
            watcher.wake()  # a failing one paces itself, however many requests come; a late one has waited already
        if watcher.running or (watcher.thread is Thread.STARTING and self.booting):
            outcome.wait(max(seconds, 0.0))
        if not watcher.running and not watcher.try_here() and watcher.thread is Thread.NONE:
            outcome.wait(max(seconds, 0.0))  # another request tries

    def _conclude(self, purpose: Purpose, *, first: bool) -> Answer:
        lease = self._lease
        if lease.running and (answer := lease.find_answer(purpose)) is not None:
            return answer
        if first and not lease.failing:
            lease.fail(f"no answer within {PATIENCE:g} s")
        return lease.stale_answer(grace=GRACE)

    def begin(self, purpose: Purpose = Purpose.SERVE) -> None:
        """Start a life, and its thread, unless they are started."""
        if Lease.pinned is not None:
            return
        self.notice_fork()
        watcher = self.watcher
        if watcher is not None and watcher.thread is not Thread.NONE and watcher.purpose >= purpose:
            return
        with self._lock:
            if self._lease.life.closed:
                return  # closed in between: no caller would end what is started now
            self._raise_purpose(purpose)
            if self.watcher is None:
                self._lease.start(purpose)
                self.watcher = Watcher(self._store, self._lease, self._sources, self._listeners, purpose=purpose)
                if self.watcher.reader.registers:
                    self._leave_at_end()
            # If no thread can be started, or no descriptor is left to wake it, a request reads: see `_wait`.
            with contextlib.suppress(RuntimeError, OSError):
                self.watcher.start()

    def _leave_at_end(self) -> None:
        """Leave when this process ends, also if it is a child that ends without `atexit`."""
        if not self._leaves_at_end:
            self._leaves_at_end = True
            leaving.leave_after_multiprocessing()
        leaving.leave_on_sigterm()

    def _raise_purpose(self, purpose: Purpose) -> None:
        watcher = self.watcher
        if watcher is None or watcher.purpose >= purpose:
            return
        if watcher.purpose is not Purpose.ASK:
            watcher.purpose = purpose
            return
        # No answer of a life that only asks may serve: this process was not registered when it was read.
        self._lease.end(Event.LEAVE)
        self.watcher = None
        watcher.wake()
        watcher.room.release()

    def enter_job(self, name: str, scope: str | None) -> list[Any]:
        """Count a job from now on. Call it before the flag is asked."""
        self.notice_fork()
        with self._lock:  # or `leave_after_job` could miss it
            return self._sources.jobs.enter(name, scope, self._runtime.clock())

    @property
    def only_worked(self) -> bool:
        """Whether nothing is left for which this process is registered."""
        watcher = self.watcher
        return watcher is not None and watcher.purpose is Purpose.WORK and self._sources.jobs.is_empty()

    def leave_after_job(self) -> None:
        """Remove this process from the fleet, if only jobs have brought it there and the last one has ended."""
        self.leave(only_worked=True)

    def notice_fork(self) -> None:
        """Begin again in the child of a server that runs no at-fork hooks: once, however many threads notice."""
        if self._pid == self._runtime.pid():
            return
        with _noticing:
            if self._pid != self._runtime.pid():
                # The request that notices is in flight itself, so nothing in flight is forgotten.
                self.fork()

    def wake(self, *, read: bool) -> None:
        """Have the thread report an own write. It reads too if the last read failed, or if the caller asks for it."""
        watcher = self.watcher
        if watcher is not None:
            watcher.wake(read=read or self._lease.failing)

    def leave(self, event: Event = Event.LEAVE, *, only_worked: bool = False) -> None:
        """End the life and remove this process from the fleet. The next caller brings both back.

        Args:
            event: LEAVE, or CLOSE to refuse everything from now on.
            only_worked: Do nothing unless `only_worked` holds.
        """
        if event is Event.CLOSE:
            self.notice_fork()
        elif self._pid != self._runtime.pid():
            return  # this life is the parent's
        with self._lock:  # waits for a request that is just starting a life
            if only_worked and not self.only_worked:
                return
            watcher = self.watcher
            # The lease ends first: once the thread may end, the row may go, and nothing may renew the lease.
            self._lease.end(event)
            if event is Event.CLOSE:
                # After the lease: what it admitted came before this moment, and is counted.
                self._sources.close()
            self.watcher = None
        if watcher is not None:
            watcher.wake()
            watcher.room.release()
            watcher.join(LEAVE_LIMIT)

    def fork(self) -> None:
        """In the child of a fork, the thread, the connection and the lease are the parent's."""
        if self.watcher is not None:
            self.watcher.abandon()
        self._listeners.fork()
        self._lease.fork()
        self._reset()

"""One process follows the store: its thread is started by whoever asks first, and requests wait where they must."""

import contextlib
import threading
from collections.abc import Callable
from typing import Final

from maintenance.base.runtime import REAL, Runtime
from maintenance.process.lease import Answer, Lease
from maintenance.process.watcher import Watcher

PATIENCE: Final = 1.0
"""Seconds for which one request waits when the answer is older than the TTL."""

SHORT_PATIENCE: Final = 0.1
"""Seconds, counted from when the read was sent, for which the other requests wait meanwhile: hundreds of times a read
(0.3 ms, measured), and too short to be felt when the store is away."""

LEAVE_LIMIT: Final = 1.0
"""Seconds for which leaving waits for the store to be told."""

_noticing: Final = REAL.lock()


class Lifecycle:
    """Starts a refresher in each process that asks, and makes requests wait for it, never for long."""

    def __init__(
        self,
        lease: Lease,
        make_refresher: Callable[..., Watcher],
        *,
        boot_timeout: float,
        runtime: Runtime,
        after: Callable[[], None],
        on_fork: Callable[[], None],
    ) -> None:
        """Remember; nothing is started or connected yet.

        Args:
            lease: What requests rest on.
            make_refresher: Makes what keeps it fresh; takes `after`, see `Watcher`.
            boot_timeout: Seconds for which the first requests wait for the first read.
            runtime: The clock and the threads.
            after: Called after each try of the refresher's.
            on_fork: Called in the child of a fork that no hook has told of; it calls `forked`.
        """
        self._lease, self._make_refresher = lease, make_refresher
        self._boot_timeout, self._runtime = boot_timeout, runtime
        self._after, self._on_fork = after, on_fork
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Set what belongs to this process alone, and not to a child that it forks."""
        self._lock = self._runtime.lock()
        self.refresher: Watcher | None = None
        self._outcomes = 0
        self._boot_until = float("inf")
        self._waiters: list[threading.Event] = []
        self._one_waits = False
        # Last: another thread that finds it right finds all the rest made anew.
        self._pid = self._runtime.pid()

    @property
    def booting(self) -> bool:
        """Whether this process has not read yet, and its first requests still wait for that."""
        refresher = self.refresher
        return refresher is None or (not refresher.answered and self._runtime.clock() < self._boot_until)

    @property
    def must_ask(self) -> bool:
        """Whether nothing is read unless whoever asks waits for it: before the first read, and without a thread."""
        return self.booting or not self._runs()

    def peek(self) -> Answer | None:
        """What a request past the deadline rests on; None where it has to `settle`, because somebody must wait."""
        if self._lease.closed:
            return self._lease.current
        self._ensure_running()
        if self._lease.runs():
            return self._lease.current
        refresher = self.refresher
        if refresher is None or self.booting:
            return None
        # Where the thread does not run, a request has to try.
        away = refresher.begun and (self._lease.failing or self._outcomes == 0)
        return self._lease.run_out() if away else None

    def wait_for_answer(self) -> Answer:
        """Wait, never for long, for what a request past the deadline rests on.

        Before the first read, every request waits for it, for `boot_timeout` at most. Later, one request waits for
        `PATIENCE` at most, and those that come meanwhile for `SHORT_PATIENCE`.
        """
        while (held := self.peek()) is None:
            patience, first = self._patience()
            try:
                self._await_outcome(patience)
            finally:
                if first:
                    self._one_waits = False
            if not (self.booting and self._runs()):
                return self._concluded(first=first)
        return held

    def _runs(self) -> bool:
        refresher = self.refresher
        return refresher is None or refresher.begun

    def _patience(self) -> tuple[float, bool]:
        """How long this request may wait, and whether it is the one that may wait long."""
        now = self._runtime.clock()
        if self.booting:
            return self._boot_until - now, False
        with self._lock:
            first, self._one_waits = not self._one_waits, True
        refresher = self.refresher
        since = refresher.trying_since if refresher else None
        return (PATIENCE if first else (now if since is None else since) + SHORT_PATIENCE - now), first

    def _await_outcome(self, patience: float) -> None:
        refresher, outcomes, done = self.refresher, self._outcomes, self._runtime.event()
        with self._lock:
            self._waiters.append(done)
        if refresher is None or outcomes != self._outcomes or self._lease.runs():
            return
        if not self._lease.failing or (self.booting and refresher.late):
            refresher.wake()  # a failing one paces itself, however many requests come; a late one has waited already
        if refresher.started and (refresher.begun or self.booting):
            done.wait(max(patience, 0.0))
        if not refresher.attempt_here() and not refresher.started:
            done.wait(max(patience, 0.0))  # another request tries

    def _concluded(self, *, first: bool) -> Answer:
        if first and not self._lease.runs() and not self._lease.failing:
            self._lease.fail(f"no answer within {PATIENCE:g} s")
        return self.peek() or self._lease.run_out()

    def _ensure_running(self) -> None:
        if self._pid != self._runtime.pid():
            self._notice_fork()
        if self.refresher is not None and self.refresher.started:
            return
        with self._lock:
            if self._lease.closed:
                return  # closed meanwhile: nobody would end what is started now
            if self.refresher is None:
                self._boot_until = self._runtime.clock() + self._boot_timeout
                self.refresher = self._make_refresher(after=self._attempted)
            # Where no thread can be started, or no descriptor is left to wake it, a request refreshes: see
            # `_await_outcome`.
            with contextlib.suppress(RuntimeError, OSError):
                self.refresher.start()

    def _notice_fork(self) -> None:
        """Begin anew in the child of a server that runs no at-fork hooks: once, however many threads notice."""
        with _noticing:
            if self._pid != self._runtime.pid():
                self._on_fork()

    def _attempted(self, refresher: Watcher) -> None:
        if refresher is not self.refresher:
            return  # one that is leaving
        with self._lock:
            self._outcomes += 1
            if not refresher.late:
                # A store that is just coming up gets a moment, and one that is down costs no more. A slow one is
                # waited for, or the first requests would slip through.
                self._boot_until = min(self._boot_until, self._runtime.clock() + PATIENCE)
        self._release()
        self._after()

    def _release(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set()

    def wake(self) -> None:
        """Have the store read now, where this process reads at all."""
        refresher = self.refresher
        if refresher is not None:
            refresher.wake()

    def leave(self) -> None:
        """End the thread and remove this process from the fleet; whoever asks next brings both back."""
        if self._pid != self._runtime.pid():
            return
        with self._lock:  # waits for a request that is just making one
            refresher = self.refresher
        if refresher is None:
            return
        refresher.retire()
        with self._lock:
            if self.refresher is refresher:  # not one that a request has made since
                self.refresher, self._outcomes = None, 0
        self._release()
        refresher.join(LEAVE_LIMIT)

    def forked(self) -> None:
        """In the child of a fork: the thread, the connection and the lease were the parent's."""
        if self.refresher is not None:
            self.refresher.abandon()
        self._lease.forked()
        self._start_afresh()

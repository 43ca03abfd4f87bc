"""The background thread of one life: it decides when to read, and never gives up."""

import logging
from collections.abc import Callable
from typing import Final

from maintenance.base.log import log
from maintenance.base.runtime import NOBODY, Waker, has_frozen_threads
from maintenance.errors import BusyError, FlagError, LateError, StoreError
from maintenance.process.in_flight import Sources
from maintenance.process.lease import Lease
from maintenance.process.life import Event, Purpose, Thread
from maintenance.process.listeners import Listeners
from maintenance.process.metrics import publish_if_loaded
from maintenance.process.reader import Reader
from maintenance.process.waiting import WaitingRoom
from maintenance.stores import Session, Store

LOOK: Final = 0.02
"""Seconds between two looks at the requests in flight while an operator, or `leave`, waits for their end."""

STEADY: Final = (0.4, 0.5)
"""When the next read comes, as a part of the TTL. If it hangs, another connection must still renew the lease."""

CALM: Final = (0.02, 0.05)
"""Seconds after a notification in which others are collected, to be followed by one read. Any role can send thousands a
second. The fleet must not read in step, so each process draws another time."""

BOOT_PAUSE: Final = 0.5
"""The longest pause between two tries while the first requests wait, so that one comes before they give up."""

IDLE_LOOK: Final = 1.0
"""The same while the row shows requests in flight, so that an idle process brings them to 0 soon. Also the pause before
a report is repeated that a lock held up."""


class Backoff:
    """The pause between two tries, which grows with each failure in a row."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        """Begin without a failure."""
        self._uniform = uniform
        self.failures = 0

    def pause(self, most: float) -> float:
        """Seconds, with jitter; `most` at most."""
        return min(most, 0.05 * 2.0 ** min(self.failures, 10)) * self._uniform(0.5, 1.0)


class Watcher:
    """The thread of one life. The child of a fork makes another one.

    Attributes:
        purpose: What its life is for.
        reader: Its conversation with the store.
        room: Where requests wait for it.
        thread: Whether the thread runs.
        late: Whether the last try failed because the store was slow.
        busy: Whether the store refused the connection for the moment, without taking time for that.
        trying_since: When (clock) the try under way began, in whatever thread; None between two tries.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        sources: Sources,
        listeners: Listeners,
        *,
        purpose: Purpose = Purpose.SERVE,
    ) -> None:
        """Take what a life needs; nothing is started or connected yet."""
        self.purpose = purpose
        self._lease, self._sources, self._listeners = lease, sources, listeners
        self._settings, self._runtime = settings, runtime = lease.settings, lease.runtime
        self.reader = Reader(store, lease, sources, registers=settings.register and purpose is not Purpose.ASK)
        self.room = WaitingRoom(boot_timeout=settings.boot_timeout, runtime=runtime)
        self.thread = Thread.NONE
        self.late = self.busy = False
        self.trying_since: float | None = None
        self._backoff = Backoff(runtime.uniform)
        self._lock = runtime.lock()
        self._waker: Waker = NOBODY
        self._ended = runtime.event()
        self._read_now = False
        self._next_here = self._calm_until = float("-inf")
        self._held_until = float("inf")

    @property
    def over(self) -> bool:
        """Whether the epoch of this life has ended."""
        return self.reader.epoch != self._lease.life.epoch

    @property
    def running(self) -> bool:
        """Whether the thread reads. If not, requests do."""
        return self.thread is Thread.RUNNING

    def start(self) -> None:
        """Start the thread, unless it is started.

        Raises:
            RuntimeError, OSError: No thread can be started, or none that could be woken.
        """
        if self.thread is not Thread.NONE:
            return
        if has_frozen_threads():
            raise RuntimeError("threads run only while a request runs: use the option enable-threads of uWSGI")
        if self._waker is NOBODY:
            self._waker = self._runtime.waker()
        # Before the thread runs: what the thread sets when it ends must be the last word.
        self.thread, self._ended = Thread.STARTING, self._runtime.event()
        try:
            self._runtime.start(self._run)
        except BaseException:
            self.thread = Thread.NONE
            raise

    def wake(self, *, read: bool = True) -> None:
        """End the rest.

        Args:
            read: Whether to read now. If not, the thread only looks at what this process has to report.
        """
        self._read_now = self._read_now or read
        self._waker.wake()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread once the life is over, for `timeout` seconds at most."""
        if self.thread is not Thread.NONE:
            self._ended.wait(timeout)
        if self.thread is Thread.NONE and self._may_end() and self._claim():
            self._leave()

    def abandon(self) -> None:
        """In the child of a fork, leave the parent's conversation alone."""
        if self.reader.session is not None:
            self.reader.session.abandon()
        self._waker.close()

    def try_here(self) -> bool:
        """Try in the caller's thread, once for all callers, if the thread does not run.

        Returns:
            False if another caller is trying: its outcome can be waited for.
        """
        if self.over or self.running or self._runtime.clock() < self._next_here:
            return True
        if not self._claim():
            return False
        try:
            self._try_for_request()
        except Exception as exc:  # noqa: BLE001 - the request gets what is known
            self._fail(exc)
        finally:
            self.trying_since = None
            self.wake()  # a thread that has started since
        self._next_here = self._runtime.clock() + (self._pause() if self._lease.failing else 0.0)
        return True

    def _try_for_request(self) -> None:
        """Try, and try again if the kept connection is lost: the store may well be there, and no thread finds out."""
        kept = self.reader.session
        if not self.running:
            self._try()
        is_lost = kept is not None and self.reader.session is None
        if is_lost and not self.running and not self.over and self._claim():
            self._try()

    def _claim(self) -> bool:
        """Take the reader for this thread alone; False if another thread has it."""
        now = self._runtime.clock()
        with self._lock:
            if self.trying_since is not None:
                return False
            self.trying_since = now
            return True

    def _try(self) -> None:
        """Read once. A failure is remembered, not raised."""
        self.late = self.busy = self._read_now = False
        try:
            for _ in self.reader.read():
                self._conclude()
            self._read_now = self._read_now or self.reader.incomplete
            if not self.over and self.reader.pause():
                self._backoff.failures = 0
        except FlagError as exc:
            self._lease.fail(str(exc))
        except Exception as exc:  # noqa: BLE001 - without this thread, an answer would apply for ever
            self._fail(exc)
        finally:
            self.trying_since = None
            self._conclude()

    def _conclude(self) -> None:
        """Let the requests that waited go on, and report a change. A life that is over does neither."""
        if self.over:
            return
        if self.reader.answered:
            self._lease.life.apply(Event.READY, epoch=self.reader.epoch)
        self.room.conclude(late=self.late)
        self._listeners.notify_in_thread()
        # In a thread of its own: whatever collects the metrics must not delay the next read.
        publish_if_loaded(self._runtime.start)

    def _run(self) -> None:
        self.thread = Thread.RUNNING
        try:
            while self._turn():
                pass
        finally:
            # Whatever has ended this thread, the next request past the deadline starts another.
            self.thread = Thread.NONE
            self._ended.set()

    def _turn(self) -> bool:
        """Try and rest; False once the process has left."""
        if not self._claim():
            self._waker.wait(self._settings.limit)  # a request tries, over the same session
            return True
        try:
            if self._may_end():
                self._leave()  # and keeps the claim, so that no thread tries any more
                return False
            began = self._runtime.clock()
            self._try()
            self._rest(began)
        except BaseException as exc:  # noqa: BLE001 - the app's own code runs here too, and may call sys.exit()
            self.trying_since = None
            self._fail(exc)
            self._waker.wait(self._pause())
        return True

    def _may_end(self) -> bool:
        return self.over and (self.purpose is Purpose.ASK or self._sources.is_idle())

    def _fail(self, exc: BaseException) -> None:
        self._backoff.failures += 1
        self.late, self.busy = isinstance(exc, LateError), isinstance(exc, BusyError)
        expected = isinstance(exc, StoreError)
        self._lease.fail(str(exc) if expected else f"an unexpected {type(exc).__name__}, which the log shows")
        if not expected:
            log(logging.ERROR, "unexpected error while refreshing the flag; will retry", exc=exc)
        self.reader.hang_up()

    def _rest(self, began: float) -> None:
        """Wait until something changed or a read is due, counted from when the last one began."""
        due = began + self._pause()
        session = self.reader.session
        if session is None:
            self._follow_schedule()
            now = self._runtime.clock()
            self._waker.wait(0.0 if self._read_now else min(due, self._lease.holds_until) - now)
            return
        try:
            while (left := due - self._runtime.clock()) > 0 and not self._read_now and not self._may_end():
                if self._has_news(session, left):
                    break
            self._backoff.failures = 0
        except Exception as exc:  # noqa: BLE001 - without this thread, an answer would apply for ever
            self._fail(exc)
        if self._backoff.failures:
            # The server ended the connection. Keep the failure count until a rest ends without an error. Otherwise a
            # server that accepts and then hangs up would be retried in a tight loop.
            self._waker.wait(self._pause())

    def _has_news(self, session: Session, left: float) -> bool:
        """Wait for a change in the store, and report what this process owes; True if a read is due."""
        membership, now = self.reader.membership, self._runtime.clock()
        self._follow_schedule()
        left = min(left, min(self._lease.holds_until, self.reader.carry_out_at) - now)
        if membership.draining or self.over:
            left = min(left, LOOK)
        elif membership.shows_requests or membership.late:
            left = min(left, IDLE_LOOK)
        if now < self._calm_until:
            self._waker.wait(min(left, self._calm_until - now))
        elif session.wait(left, self._waker):
            self._calm_until = self._runtime.clock() + self._runtime.uniform(*CALM)
            return True
        self.reader.follow_up()
        return False

    def _follow_schedule(self) -> None:
        """Report a start or an end, whether this thread or a request has noticed it."""
        self._lease.advance()
        if self._held_until != self._lease.holds_until:
            self._held_until = self._lease.holds_until
            self._listeners.notify_in_thread()

    def _pause(self) -> float:
        """Seconds until the next try: before the lease ends, or soon if the last one failed."""
        if self._backoff.failures:
            waits = not self.reader.answered and self._runtime.clock() < self.room.boot_until
            return self._backoff.pause(BOOT_PAUSE if waits else self._settings.limit)
        if self._lease.failing or self.reader.membership.late:
            return self._settings.limit * self._runtime.uniform(0.5, 1.0)
        return self._settings.ttl * self._runtime.uniform(*STEADY)

    def _leave(self) -> None:
        self.reader.leave()
        self._waker.close()
        self._lease.life.apply(Event.LEFT, epoch=self.reader.epoch + 1)

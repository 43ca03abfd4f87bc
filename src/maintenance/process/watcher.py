"""The one background thread of a process: it registers, reads, installs, acknowledges, and never gives up."""

import contextlib
import logging
from collections.abc import Callable
from typing import Final

from maintenance.base.log import log
from maintenance.base.runtime import NOBODY, Runtime, Waker
from maintenance.base.values import Load, Reading, Snapshot
from maintenance.errors import FlagError, LateError, StoreError
from maintenance.process.lease import LAGGING, Lease
from maintenance.proof.membership import Membership, Settings
from maintenance.stores import Session, Store

LOOK: Final = 0.02
"""Seconds between two looks at this process's own memory while somebody waits for its requests in flight."""


class Watcher:
    """One life of the thread, in one process. The child of a fork makes another one.

    Attributes:
        registration: This process's row among the instances.
        started: Whether a thread was started, and has not ended.
        begun: Whether that thread runs by now.
        answered: Whether a read has brought an answer.
        late: Whether the last try failed because the store was slow.
        trying_since: When (clock) the try under way began, whoever makes it; None between two tries.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        settings: Settings,
        *,
        runtime: Runtime,
        measure: Callable[[Snapshot], Load | None],
        after: "Callable[[Watcher], None]",
    ) -> None:
        """Remember; nothing is started or connected yet.

        Args:
            store: Where to read.
            lease: What to keep fresh.
            settings: How.
            runtime: The clock and the threads.
            measure: What is in flight under a flag; None where requests are not tracked.
            after: Called with this refresher after each try, good or bad, and each answer that comes ahead of its end.
        """
        self._store, self._lease, self._settings = store, lease, settings
        self._runtime, self._after = runtime, after
        self.registration = Membership(settings, runtime=runtime, measure=measure)
        self.started = False
        self.begun = False
        self.answered = False
        self.late = False
        self.trying_since: float | None = None
        self._session: Session | None = None
        self._lock = runtime.lock()
        self._waker: Waker = NOBODY
        self._ended = runtime.event()
        self._renews = True
        self._stopping = False
        self._failures = 0
        self._next_here = float("-inf")

    @property
    def listening(self) -> bool:
        """Whether a change arrives at once."""
        session = self._session
        return session is not None and session.listening

    def start(self) -> None:
        """Start the thread, unless it is started.

        Raises:
            RuntimeError, OSError: No thread can be started here, or none that could be woken.
        """
        if self.started:
            return
        if self._waker is NOBODY:
            self._waker = self._runtime.waker()
        # Before the thread runs: what it says when it ends must be the last word.
        self.started, self._ended = True, self._runtime.event()
        try:
            self._runtime.start(self._run)
        except BaseException:
            self.started = False
            raise

    def wake(self) -> None:
        """Have the store read now."""
        self._waker.wake()

    def retire(self) -> None:
        """End the lease, then the thread, once nothing is in flight, and with it the row."""
        # In this order: once the thread may end, the row may go, so the lease must be over, and nothing may renew it.
        self._renews = False
        self._lease.expire()
        self._stopping = True
        self.wake()

    def join(self, timeout: float) -> None:
        """Wait for the end of a retired thread, for `timeout` seconds at most."""
        if self.started:
            self._ended.wait(timeout)
        if not self.started and self._may_end() and self._claim():
            self._leave()

    def abandon(self) -> None:
        """In the child of a fork: let the parent's conversation be."""
        if self._session is not None:
            self._session.abandon()
        self._waker.close()

    def attempt_here(self) -> bool:
        """Try in the caller's thread, once for all callers, for a process in which the thread does not run.

        Returns:
            False where another caller is trying: its outcome can be waited for.
        """
        if not self._renews or self.begun or self._runtime.clock() < self._next_here:
            return True
        if not self._claim():
            return False
        try:
            if not self.begun:
                self._attempt()
        except Exception as exc:  # noqa: BLE001 - what is asked for is an answer, and what is known is one
            self._stumble(exc)
        finally:
            self.trying_since = None
            self.wake()  # a thread that has come meanwhile
        self._next_here = self._runtime.clock() + (self._pause() if self._lease.failing else 0.0)
        return True

    def _claim(self) -> bool:
        """Take the session for this thread alone, and `trying_since` with it; False where another one has it."""
        now = self._runtime.clock()
        with self._lock:
            if self.trying_since is not None:
                return False
            self.trying_since = now
            return True

    def _attempt(self) -> None:
        """Try once: connect where needed, read, install, acknowledge. What fails on the way is remembered."""
        self.late = False
        try:
            if self._session is None:
                self._session = self._store.connect(listen=True)
                self.registration.say_again()
            with self._session.within(self._settings.limit):
                self._cycle(self._session)
        except FlagError as exc:
            self._lease.fail(str(exc))
        except Exception as exc:  # noqa: BLE001 - without this thread, an answer would stand for ever
            self._stumble(exc)
        finally:
            self.trying_since = None
            self._after(self)

    def _run(self) -> None:
        self.begun = True
        try:
            while self._turn():
                pass
        finally:
            # Whatever has ended this thread: the next request past the deadline starts another.
            self.started = self.begun = False
            self._ended.set()

    def _turn(self) -> bool:
        """Try and rest; False once the process has left."""
        if not self._claim():
            self._waker.wait(self._settings.limit)  # a request tries, over the same session
            return True
        try:
            if self._may_end():
                self._leave()  # and keeps the claim: nobody tries any more
                return False
            began = self._runtime.clock()
            self._attempt()
            self._rest(began)
        except BaseException as exc:  # noqa: BLE001 - of the app's own code too, which runs here and may call sys.exit()
            self.trying_since = None
            self._stumble(exc)
            self._waker.wait(self._pause())
        return True

    def _may_end(self) -> bool:
        if not self._stopping:
            return False
        # Everything in flight counts under a flag that is off, and nobody's code is asked about it.
        load = self.registration.measure(Snapshot(enabled=False))
        return load is None or load.in_flight == 0

    def _stumble(self, exc: BaseException) -> None:
        self._failures += 1
        self.late = isinstance(exc, LateError)
        expected = isinstance(exc, StoreError)
        self._lease.fail(str(exc) if expected else f"an unexpected {type(exc).__name__}, which the log shows")
        if not expected:
            log(logging.ERROR, "a refresh failed as it never should; others follow", exc=exc)
        with contextlib.suppress(Exception):  # what has failed may fail to close, too
            self._hang_up()

    def _hang_up(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _cycle(self, session: Session) -> None:
        if self.registration.unheard:
            # The last registration took the connection with it, as each one does while a commit waits for a standby
            # that is gone. So the flag first, or a new process would never hear of it. Under `block` this answer
            # renews no lease. Under `serve` it does, as it does where nobody can register; but it is followed by no
            # acknowledgement: that takes the read below, which is sent once the row is there.
            self._install(*self._read(session))
            self._after(self)
        if self.registration.due:
            self.registration.register(session)
        sent, ticket, reading = self._read(session)
        if self.registration.there and not reading.registered:
            # Somebody removed the row. It must be there before the read that a lease rests on.
            self.registration.register(session)
            sent, ticket, reading = self._read(session)
        self.registration.check(registered=reading.registered)
        self._install(sent, ticket, reading)
        if reading.primary:
            self.registration.acknowledge(session, self._lease.known, asked=reading.drain)
        else:
            self._hang_up()  # where the address leads now, there may be a primary

    def _read(self, session: Session) -> tuple[float, int, Reading]:
        ticket = self._lease.ticket()
        # Before it is sent: what is committed after this moment may be missing in the answer.
        sent = self._runtime.clock()
        return sent, ticket, session.read(self.registration.instance.id)

    def _install(self, sent: float, ticket: int, reading: Reading) -> None:
        snapshot = reading.snapshot(read_at=sent)
        unfit = self._unfit(reading)
        renew = unfit is None and self._renews
        taken = self._lease.install(snapshot, ticket=ticket, renew=renew, lagging=not reading.primary)
        self.answered = True
        if unfit:
            self._lease.fail(unfit)
        elif not taken:
            self.wake()  # an own write returned meanwhile; what else this read saw must not be lost

    def _unfit(self, reading: Reading) -> str | None:
        """Why an answer renews no lease."""
        if not reading.primary:
            return LAGGING
        if self._settings.when_stale == "block" and self.registration.due:
            return self.registration.error or "this process is not registered"
        return None

    def _rest(self, began: float) -> None:
        """Wait until something changed or a read is due, counted from when the last one began."""
        due = began + self._pause()
        if self._session is None:
            self._waker.wait(due - self._runtime.clock())
            return
        try:
            while not self._wait(self._session, due - self._runtime.clock()):
                pass
            self._failures = 0
        except Exception as exc:  # noqa: BLE001 - without this thread, an answer would stand for ever
            self._stumble(exc)
        if self._failures:
            # Ended by the server. The failures stay counted until a rest has ended well, or a server that
            # accepts and hangs up would be asked as fast as it can refuse.
            self._waker.wait(self._pause())

    def _wait(self, session: Session, left: float) -> bool:
        if left <= 0 or self._may_end():
            return True
        looking = self.registration.draining or self._stopping
        if session.wait(min(left, LOOK) if looking else left, self._waker):
            return True
        if self.registration.draining:
            self.registration.follow_drain(session, self._lease.known)
        return False

    def _pause(self) -> float:
        """Seconds until the next try: ahead of the lease's end, or soon where the last one failed; with jitter."""
        limit, uniform = self._settings.limit, self._runtime.uniform
        if self._failures:
            return min(limit, 0.05 * 2.0 ** min(self._failures, 10)) * uniform(0.5, 1.0)
        if self._lease.failing or self.registration.late:
            return limit * uniform(0.5, 1.0)
        return self._settings.ttl * uniform(0.6, 0.8)

    def _leave(self) -> None:
        """Remove the row: over another connection where the one that there is was lost, noticed or not."""
        for _ in range(1 if self._session is None else 2):
            try:
                if self.registration.may_be_there:
                    self._session = self._session or self._store.connect()
                    self.registration.remove(self._session)
                break
            except StoreError as exc:
                log(logging.INFO, "the row of instance %s is not removed: %s", self.registration.instance.id, exc)
                self._hang_up()
        self._hang_up()
        self._waker.close()

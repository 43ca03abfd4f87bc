"""The state of a process: what its requests ask, and what its own code calls."""

import atexit
import contextlib
import datetime as dt
import functools
import itertools
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from maintenance.base.options import check_bool, check_function, check_seconds, check_when_stale
from maintenance.base.runtime import REAL, Runtime, boot_id, is_importing
from maintenance.base.values import Change, Details, Fleet, Load, Mode, Snapshot, WhenStale
from maintenance.errors import ConfigurationError, MaintenanceError, StoreError
from maintenance.process.in_flight import Entry, load
from maintenance.process.lease import LAGGING, Answer, Lease, fallback
from maintenance.process.lifecycle import Lifecycle
from maintenance.process.listeners import Listeners
from maintenance.process.status import Condition, Health, Status
from maintenance.process.watcher import Watcher
from maintenance.proof.judge import Progress, Proof, Question
from maintenance.proof.membership import Settings, hostname
from maintenance.proof.prover import Prover
from maintenance.stores import Session, Store, open_store

WRITE_LIMIT: Final = 10.0
"""Seconds after which a write that hangs is ended."""

Callback = TypeVar("Callback", bound=Callable[[Snapshot], object])


class MaintenanceState:
    """The flag as one process knows it: a snapshot in memory, kept fresh in the background.

    Nothing is connected and no thread runs before the first request, `prime` or `refresh`, so that a state may be
    made at import and inherited through any kind of fork.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        ttl: float = 10.0,
        when_stale: WhenStale = "serve",
        boot_timeout: float = 5.0,
        register: bool = True,
        runtime: Runtime = REAL,
    ) -> None:
        """Check the options.

        Args:
            store: A store, or the URL of one.
            ttl: Seconds; no answer rests on a read older than this while the store can be reached.
            when_stale: ``serve`` keeps the last known answer when the store is away; ``block`` answers 503 then,
                which is what lets an operator prove that a silent process has stopped.
            boot_timeout: Seconds for which the first requests wait for the first read.
            register: Whether the process counts as one that serves; False for one that only watches.
            runtime: The clock and the threads, for tests.

        Raises:
            ConfigurationError: An option, the URL or ``MAINTENANCE_MODE`` is wrong.
        """
        check_seconds("ttl", ttl)
        check_when_stale(when_stale)
        check_seconds("boot_timeout", boot_timeout)
        check_bool("register", register)
        if when_stale == "block" and not register:
            raise ConfigurationError("when_stale is 'block' and register is False: only what is registered may admit")
        self.store = open_store(store) if isinstance(store, str) else _store(store)
        self._settings = Settings(ttl=float(ttl), when_stale=when_stale, register=register)
        self._boot_timeout = boot_timeout
        self._runtime = runtime
        self.clock = runtime.clock
        before = fallback(os.environ.get("MAINTENANCE_MODE"))
        self.lease = Lease(before, ttl=ttl, when_stale=when_stale, runtime=runtime)
        self.closed = False
        self._primed_in: int | None = None
        self._meters: tuple[InFlightSource, ...] = ()
        self._changes = Listeners(self.lease, runtime=runtime)
        self._flips = Listeners(self.lease, runtime=runtime)
        self._lock = runtime.lock()
        self._health = Health(self.lease, when_stale=when_stale)
        self.follower = Lifecycle(
            self.lease,
            functools.partial(Watcher, self.store, self.lease, self._settings, runtime=runtime, measure=self._measure),
            boot_timeout=boot_timeout,
            runtime=runtime,
            after=self._attempted,
            on_fork=self._begin_anew,
        )
        _states.add(self)

    def peek(self) -> Answer | None:
        """What a request past the deadline rests on; None where it has to `settle`, because somebody must wait."""
        return self.follower.peek()

    def wait_for_answer(self) -> Answer:
        """Wait, never for long, for what a request past the deadline rests on."""
        return self.follower.wait_for_answer()

    def snapshot(self) -> Snapshot:
        """What is known, from memory; where nothing was read yet, or no thread reads, it waits as a request does."""
        now, held = self.clock(), self.lease.current
        if now < held.deadline or self.closed:
            return held.snapshot
        if self._settings.when_stale == "serve" and self._is_primed():
            if not is_importing():  # or this process may be about to fork
                self.start()
            return self.lease.known
        # `settled` first: it notices a fork without hooks. Where no thread runs, as in a child forked for one job,
        # nobody else would ever read.
        held = self.peek() or (self.wait_for_answer() if self.follower.must_ask else self.lease.outlived())
        return held.snapshot

    @property
    def enabled(self) -> bool:
        """Whether maintenance is on; see `snapshot`."""
        return self.snapshot().enabled

    def prime(self) -> Snapshot:
        """Read now and return what is known; a store that is away is logged, never raised.

        Starts no thread that stays, so that it may be called at import, before a server forks.
        """
        with contextlib.suppress(StoreError):
            self.refresh()
        return self.lease.known

    def refresh(self) -> Snapshot:
        """Read now.

        Raises:
            StoreError: The store cannot be reached, or the row is missing or wrong.
        """
        try:
            with self._conversation(self._boot_timeout) as session:
                ticket, sent = self.lease.ticket(), self.clock()
                reading = session.read()
            snapshot = reading.snapshot(read_at=sent)
        except StoreError as exc:
            self.lease.fail(str(exc))
            self._note()
            raise
        lagging = not reading.primary
        if not self.lease.install(snapshot, ticket=ticket, renew=False, lagging=lagging):
            self.follower.wake()  # another answer came meanwhile; what else this read saw must not be lost
        if self.follower.refresher is None:
            self.lease.error = LAGGING if lagging else None  # from then on, only what renews the lease clears it
        self._primed_in = self._runtime.pid()
        self._note()
        self._tell()
        return self.lease.known

    def set(
        self,
        enabled: bool,
        *,
        message: str | None = None,
        until: dt.datetime | None = None,
        retry_after: int | None = None,
        mode: Mode = "full",
        actor: str | None = None,
        updated_by: UUID | str | None = None,
        reason: str | None = None,
    ) -> Snapshot:
        """Flip the flag for the whole fleet: the store first, this process's memory after.

        Args:
            enabled: On or off.
            message: What visitors are told.
            until: When it is expected to end; aware. Passing it does not switch off.
            retry_after: Seconds, sent as ``Retry-After``.
            mode: ``full``, or ``read_only`` to let GET, HEAD and OPTIONS pass.
            actor: Who flips, as text.
            updated_by: Who flips, as the platform's own key; a UUID or its text.
            reason: Why, for the record; never shown to visitors.

        Returns:
            The snapshot as written.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was written.
            StoreError: It was not written, or that could not be learned; this process's memory is as before.
        """
        details = Details(mode=mode, message=message, until=until, retry_after=retry_after, actor=actor, reason=reason)
        change = Change(enabled=enabled, details=details, updated_by=_uuid(updated_by))
        with self._conversation(WRITE_LIMIT) as session:
            asked, sent = self.lease.ticket(), self.clock()
            snapshot = session.write(change).snapshot(read_at=sent)
        if snapshot.enabled is not enabled:
            raise StoreError(
                f"{self.store.name}: the flag was written, and is {'on' if snapshot.enabled else 'off'} all the same: "
                "look for a trigger that overrules it"
            )
        # A read that was sent before the write returned may not have seen it; one that has seen more stands.
        self.lease.install(snapshot, asked=asked, ticket=self.lease.ticket(), renew=False)
        if self.follower.refresher is None:
            self.lease.error = None  # whatever was wrong with the row
        self._primed_in = self._runtime.pid()
        self.follower.wake()
        self._tell()
        return snapshot

    def prove(
        self,
        snapshot: Snapshot,
        *,
        drain: bool = False,
        timeout: float | None = None,
        expect: int | None = None,
        presume_dead: float | None = None,
        progress: Progress = lambda _: None,
    ) -> Proof:
        """Wait until every instance has provably followed a flip.

        Args:
            snapshot: What `set` returned.
            drain: Also wait until nothing that the flag refuses is in flight.
            timeout: Seconds; None for a time above the longest lease.
            expect: How many instances there must be at least.
            presume_dead: Seconds of silence after which an instance is taken for dead, on the caller's word.
            progress: Called with each judgement on the way.

        Returns:
            The proof, true where it is proven; else it names each laggard.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was asked.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"snapshot is {snapshot!r}: write prove(state.set(...)) or prove(state.refresh())")
        if not isinstance(drain, bool):
            raise TypeError(f"drain is {drain!r}: write True or False")
        if not callable(progress):
            raise TypeError(f"progress is {progress!r}: write a function of one Proof")
        if snapshot.source != "store":
            raise ValueError("the snapshot was never in a store: write prove(state.set(...)) or prove(state.refresh())")
        if drain and not snapshot.enabled:
            raise ValueError("drain is True and the flag is off, which refuses nothing: write drain=False")
        host, boot = hostname(), boot_id()
        question = Question(
            revision=snapshot.revision,
            enabled=snapshot.enabled,
            drain=drain,
            expect=expect,
            presume_dead=presume_dead,
            is_gone=lambda it: bool(boot) and (it.host, it.boot) == (host, boot) and self._runtime.is_gone(it.pid),
        )
        return Prover(self.store, question, runtime=self._runtime).run(timeout=timeout, progress=progress)

    async def aprove(self, snapshot: Snapshot, **options: Any) -> Proof:
        """`prove` in a thread, for async code; cancelling it ends the wait."""
        from maintenance.base.threads import run_for_call  # noqa: PLC0415 - WSGI processes never load it

        cancelled = False
        progress = options.pop("progress", lambda _: None)

        def report(proof: Proof) -> None:
            if cancelled:
                raise MaintenanceError("the wait was cancelled")
            progress(proof)

        try:
            work = functools.partial(self.prove, snapshot, progress=report, **options)
            return await run_for_call(work, abandon=True)
        finally:
            cancelled = True

    def fleet(self) -> Fleet:
        """The flag and every registered instance, read in one statement.

        Raises:
            StoreError: The store cannot be reached.
        """
        with self._conversation(WRITE_LIMIT) as session:
            return session.fleet()

    def forget(self, instance: str) -> bool:
        """Remove an instance's row, on the caller's word that its process has ended; False where there was none.

        Args:
            instance: The `id` of one of `fleet`.

        Raises:
            TypeError: It is no str; nothing was asked.
            StoreError: The store cannot be reached.
        """
        if not isinstance(instance, str):
            raise TypeError(f"instance is {instance!r}: write its id, as fleet().instances tells it")
        with contextlib.suppress(ValueError):
            instance = UUID(instance).hex
        with self._conversation(WRITE_LIMIT) as session:
            return session.remove(instance)

    def status(self) -> Status:
        """How this process stands with its store; reads memory only."""
        # Under a flag that is off all that is in flight counts, and no bypass is asked about it.
        refresher, load = self.follower.refresher, self._measure(Snapshot(enabled=False))
        registration = refresher.registration if refresher else None
        condition = self._note()
        return Status(
            condition=condition,
            since=self._health.since,
            snapshot=self.lease.known,
            last_error=self.lease.error,
            store=self.store.name,
            ttl=self._settings.ttl,
            when_stale=self._settings.when_stale,
            listening=refresher is not None and refresher.listening,
            instance=registration.instance.id if registration else None,
            registered=registration is not None and registration.there,
            registration_error=registration.error if registration else None,
            in_flight=load.in_flight if load else None,
        )

    def on_change(self, callback: Callback) -> Callback:
        """Have a function called with each new snapshot whose flag or details differ; usable as a decorator.

        It is called in a thread of its own, or in one that called `set` or `refresh`. Calls never overlap, and the last
        one is about what is known: while one runs, changes wait for its end. Nothing is heard before this process
        follows: from `start`, its first request, or the first time that its code asks.

        Raises:
            ConfigurationError: It cannot be called.
        """
        check_function("callback", callback)
        self._changes.add(callback)
        return callback

    def leave(self) -> None:
        """End the thread and remove this process from the fleet; the next request brings both back."""
        self._primed_in = None
        self.follower.leave()

    def close(self) -> None:
        """Admit nothing any more, then remove this process from the fleet. A second time changes nothing.

        The row stays until the requests that are in flight have ended, where they are counted.
        """
        self.closed = True
        self.lease.close()
        self.leave()

    def attach(self, meter: "InFlightSource") -> None:
        """Count what a middleware lets in, and tell it of each flip at once."""
        with self._lock:
            if meter not in self._meters:
                self._meters = (*self._meters, meter)
                self._flips.add(meter.told)

    def start(self) -> None:
        """Begin to read in the background, ahead of the first request."""
        self.peek()

    def forked(self) -> None:
        """In the child of a fork: the thread, the connection, the requests and the lease were the parent's."""
        for meter in self._meters:
            meter.clear()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """As `forked`, where a request notices the fork: it is in flight itself, so nothing in flight is forgotten."""
        self._lock = self._runtime.lock()
        self._changes.forked()
        self._flips.forked()
        self.follower.forked()

    def _attempted(self) -> None:
        self._note()
        self._flips.tell()
        self._changes.tell_apart()

    def _measure(self, snapshot: Snapshot) -> Load | None:
        entries = [meter.entries(snapshot) for meter in self._meters]
        return None if None in entries else load(itertools.chain(*filter(None, entries)), now=self.clock())

    def _is_primed(self) -> bool:
        """Whether this very process, not its parent, has read within the TTL, and its thread has not yet."""
        refresher = self.follower.refresher
        if (refresher is not None and refresher.answered) or self._primed_in != self._runtime.pid():
            return False
        return self.clock() < self.lease.known.read_at + self._settings.ttl

    def _note(self) -> Condition:
        return self._health.note(recent=self._is_primed())

    def _tell(self) -> None:
        """Tell of a change in the caller's thread."""
        self._flips.tell()
        self._changes.tell()

    @contextlib.contextmanager
    def _conversation(self, limit: float) -> Iterator[Session]:
        """A session of its own, ended where it takes longer than `limit` seconds."""
        with contextlib.closing(self.store.connect()) as session, session.within(limit):
            yield session


class InFlightSource(Protocol):
    """What counts the requests of one middleware."""

    def entries(self, snapshot: Snapshot) -> list[tuple[Entry, bool]] | None:
        """What is in flight, and whether a flag refuses it; None where it is not tracked."""

    def clear(self) -> None:
        """Forget all."""

    def told(self, snapshot: Snapshot) -> None:
        """Hear of a flip; takes no time."""


def _store(value: Store) -> Store:
    if isinstance(value, type):
        raise ConfigurationError(f"store is the class {value.__name__}: write {value.__name__}(...)")
    if not callable(getattr(value, "connect", None)):
        # Only its type: it may be a URL in another form, with a password.
        raise ConfigurationError(
            f"store is a {type(value).__name__}: write a Store, or a URL such as postgresql://user@host/database"
        )
    return value


def _uuid(value: UUID | str | None) -> UUID | None:
    if not isinstance(value, str):
        return value
    try:
        return UUID(value)
    except ValueError:
        raise ValueError(f"updated_by is {value!r}: write a UUID, or None") from None


_states: weakref.WeakSet[MaintenanceState] = weakref.WeakSet()


def _leave_all() -> None:
    for state in list(_states):
        state.leave()


def _forked_all() -> None:
    for state in list(_states):
        state.forked()


atexit.register(_leave_all)
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows forks nothing
    os.register_at_fork(after_in_child=_forked_all)

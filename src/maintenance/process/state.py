"""The state of a process: requests and the app's own code ask it."""

import contextlib
import datetime as dt
import functools
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar
from uuid import UUID

from maintenance.base.flags import Flags, StoreClock
from maintenance.base.history import Entry
from maintenance.base.instances import Fleet, Instance
from maintenance.base.options import Settings, check_function
from maintenance.base.quoting import quote
from maintenance.base.runtime import REAL, Runtime, is_importing
from maintenance.base.scopes import check_scope
from maintenance.base.secret import choose_token, hash_token
from maintenance.base.values import Change, Details, Mode, Snapshot, WhenStale, split_message
from maintenance.errors import ConfigurationError, ConflictError, FlagError, MaintenanceError, StoreError
from maintenance.process import leaving
from maintenance.process.in_flight import EVERYTHING, InFlightSource, Jobs, Sources
from maintenance.process.lease import LAGGING, Answer, Lease, fallback
from maintenance.process.life import Event, Purpose
from maintenance.process.lifecycle import Lifecycle
from maintenance.process.listeners import Listeners
from maintenance.process.metrics import publish_if_loaded
from maintenance.process.status import Status, StatusLog
from maintenance.proof.judge import Progress, Proof
from maintenance.proof.membership import Row
from maintenance.proof.prover import prove
from maintenance.stores import Session, Store, open_store
from maintenance.stores.conversation import Conversation

WRITE_LIMIT: Final = 10.0
"""Seconds after which a write that hangs is ended."""

MAX_HISTORY: Final = 100_000
"""The most entries of the history that one call returns."""

Callback = TypeVar("Callback", bound=Callable[[Snapshot], object])


class MaintenanceState:
    """The flag as one process knows it: a snapshot in memory, kept fresh in the background.

    Nothing is connected and no thread runs before the first request, `prime` or `refresh`. So a state may be made at
    import and inherited through any kind of fork.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        ttl: float = 10.0,
        when_stale: WhenStale = "serve",
        boot_timeout: float = 5.0,
        register: bool = True,
        service: str | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        """Check the options.

        Args:
            store: A store, or the URL of one.
            ttl: Seconds. No answer is older than this while the store can be reached.
            when_stale: ``serve`` keeps the last known answer while the store is down. ``block`` answers 503 then, so
                that an operator can prove that a silent process has stopped.
            boot_timeout: Seconds for which the first requests wait for the first read.
            register: Whether the process counts as one that serves; False for one that only watches.
            service: Which kind of process it is, such as ``web``; None for ``MAINTENANCE_SERVICE``, or without that
                variable, the program's name.
            runtime: The clock and the threads, for tests.

        Raises:
            ConfigurationError: An option, the URL or ``MAINTENANCE_MODE`` is wrong.
        """
        if service is None:
            service = os.environ.get("MAINTENANCE_SERVICE", "")
        settings = Settings(
            ttl=ttl, when_stale=when_stale, boot_timeout=boot_timeout, register=register, service=service
        )
        self.store = open_store(store) if isinstance(store, str) else _check_store(store)
        self.clock = runtime.clock
        self.lease = Lease(fallback(os.environ.get("MAINTENANCE_MODE")), settings=settings, runtime=runtime)
        self._sources = Sources(runtime=runtime)
        self._status = StatusLog(self.lease)
        self._listeners = Listeners(self.lease, self._sources, self._status)
        self.lifecycle = Lifecycle(self.store, self.lease, self._sources, self._listeners)
        self._kept: Conversation | None = None
        _states[id(self)] = self
        publish_if_loaded(lambda publish: publish())

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.lease.life.closed

    def peek(self) -> Answer | None:
        """Return the answer for a request past its deadline, or None if it must use `wait_for_answer`."""
        return self.lifecycle.peek()

    @property
    def jobs(self) -> Jobs:
        """The jobs that run and wait in this process."""
        return self._sources.jobs

    @property
    def sources(self) -> tuple[InFlightSource, ...]:
        """What counts the requests and the jobs of this state."""
        return tuple(self._sources)

    def wait_for_answer(self) -> Answer:
        """Return the answer for a request past its deadline; wait for it if needed, never for long."""
        return self.lifecycle.wait_for_answer()

    def snapshot(self) -> Snapshot:
        """Return the flag from memory. Before the first read, wait for it as a request does.

        To ask registers nothing. A process that only asks is not in the fleet.
        """
        current = self.lease.current
        if self.clock() < current.until or self.closed:
            return current.snapshot
        lifecycle = self.lifecycle
        lifecycle.notice_fork()
        if self.lease.primed and not self.lease.blocks:
            if not is_importing():  # or this process may be about to fork
                lifecycle.begin(Purpose.ASK)
            return self.lease.flags.site
        # `peek` first: it starts the life that `must_wait` looks at. Without a thread, as in a child that is forked
        # for one job, only the caller reads.
        answer = lifecycle.peek(Purpose.ASK)
        if answer is None and lifecycle.must_wait:
            answer = lifecycle.wait_for_answer(Purpose.ASK)
        return (answer or self.lease.stale_answer(grace=0.0)).snapshot

    def is_enabled(self, scope: str | None = None) -> bool:
        """Whether maintenance is on; see `snapshot`.

        Args:
            scope: A part of the site. It is closed too while the whole site is.

        Raises:
            TypeError, ValueError: It does not name a scope.
        """
        check_scope(scope)
        return self.snapshot().enabled or (scope is not None and self.lease.flags.get(scope).enabled)

    @property
    def enabled(self) -> bool:
        """Whether the whole site is in maintenance; see `snapshot`."""
        return self.snapshot().enabled

    def prime(self) -> Snapshot:
        """Read now and return what is known. An unreachable store is logged, never raised.

        No thread stays, so this may be called at import, before a server forks.
        """
        with contextlib.suppress(StoreError):
            self.refresh()
        return self.lease.flags.site

    def refresh(self) -> Snapshot:
        """Read now.

        Raises:
            StoreError: The store cannot be reached, or the row is missing or wrong.
        """
        try:
            with self._converse(self.lease.settings.boot_timeout) as session:
                ticket, sent, before = self.lease.ticket(), self.clock(), self.lease.known
                reading = session.read(known=before)
            flags = reading.flags(before, sent=sent, received=self.clock())
        except StoreError as exc:
            self.lease.fail(str(exc))
            self._status.note()
            raise
        lagging = not reading.primary
        if not self.lease.install(flags, ticket=ticket, lagging=lagging) and self.lifecycle.watcher:
            self.lifecycle.watcher.wake()  # another answer came first; what else this read showed must not be lost
        self._finish(LAGGING if lagging else None)
        return self.lease.flags.site

    def set(
        self,
        enabled: bool,
        *,
        scope: str | None = None,
        message: str | Mapping[str, str] | None = None,
        starts: dt.datetime | None = None,
        until: dt.datetime | None = None,
        auto_off: bool = False,
        retry_after: int | None = None,
        mode: Mode = "full",
        actor: str | None = None,
        updated_by: UUID | str | None = None,
        reason: str | None = None,
        secret: bool | str | None = None,
        if_revision: int | None = None,
        drain: bool = False,
    ) -> Snapshot:
        """Flip a flag for the whole fleet: the store first, this process's memory after. It replaces every detail.

        Args:
            enabled: On or off.
            scope: A part of the site; None for all of it.
            message: The text for visitors, or a mapping from language to text: ``{"en": ..., "de": ...}``. Visitors who
                read none of its languages get the first text.
            starts: When it is to begin; aware, and in the future. Every process begins then.
            until: When it is expected to end; aware. Passing it does not switch off.
            auto_off: Switch off at `until`, in every process.
            retry_after: Seconds, sent as ``Retry-After``.
            mode: ``full``, or ``read_only`` to admit GET, HEAD and OPTIONS.
            actor: Who flips, as text.
            updated_by: Who flips, as the platform's own key; a UUID or its text.
            reason: Why, for the record; never shown to visitors.
            secret: True to make a secret link: whoever has its token is admitted until the flag is switched off. Or a
                token of the caller's own. The store keeps only its hash.
            if_revision: Write only if the flag is still at this revision; 0 for a scope that was never flipped.
            drain: Ask every process, in the same write, to report when its requests in flight have ended.

        Returns:
            The flag as written. With a secret, its `token` is the token, which is kept nowhere else.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was written.
            ConflictError: The flag is not at `if_revision` any more; nothing was written.
            StoreError: It was not written, or that is unknown; this process's memory is unchanged.
        """
        token = choose_token(secret)
        details = Details(
            mode=mode,
            **split_message(message),
            starts=starts,
            until=until,
            auto_off=auto_off,
            retry_after=retry_after,
            actor=actor,
            reason=reason,
            secret=token and hash_token(token),
        )
        change = Change(
            enabled=enabled,
            details=details,
            scope=scope,
            updated_by=_parse_uuid(updated_by),
            drain=drain,
            if_revision=if_revision,
        )
        return self.write(change)[0].with_token(token)

    def update(self, *, scope: str | None = None, if_revision: int | None = None, **details: Any) -> Snapshot:
        """Change some details of a flag that is on or scheduled. Nothing that is not named changes.

        Args:
            scope: A part of the site; None for all of it.
            if_revision: Write only if the flag is still at this revision.
            **details: ``message``, ``starts``, ``until``, ``auto_off``, ``retry_after``, ``mode``, ``actor``,
                ``updated_by``, ``reason`` and ``secret``, as in `set`.

        Returns:
            The flag as written. With a new secret, its `token` is the token.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was written.
            ConflictError: The flag is off, or another caller has changed it; nothing was written.
            StoreError: It was not written, or that is unknown; this process's memory is unchanged.
        """
        if "message" in details and "messages" not in details:
            details |= split_message(details["message"])
        check_scope(scope)
        token = choose_token(details.get("secret"))
        if "secret" in details:
            details["secret"] = token and hash_token(token)
        self.refresh()
        flag = self.lease.flags.get(scope)
        if not flag.in_force:
            raise ConflictError(f"{self.store.name}: maintenance is off, so it has no details: use set_maintenance()")
        updated_by = _parse_uuid(details.pop("updated_by", flag.updated_by))
        began = {"starts": None} if flag.enabled else {}
        kept = {it.name: getattr(flag, it.name) for it in fields(Details)} | began
        if unknown := details.keys() - kept.keys():
            raise TypeError(f"{', '.join(sorted(unknown))}: use the details of set_maintenance()")
        change = Change(
            enabled=True,
            details=Details(**kept | details),
            scope=scope,
            updated_by=updated_by,
            if_revision=flag.revision if if_revision is None else if_revision,
        )
        return self.write(change)[0].with_token(token)

    def write(self, change: Change) -> tuple[Snapshot, Snapshot | None]:
        """Write a change: the store first, this process's memory after.

        Returns:
            The flag as written, and as it was before; None if it is new.

        Raises:
            ValueError, ConflictError, StoreError: See `set`.
        """
        with self._converse(WRITE_LIMIT) as session:
            asked, sent = self.lease.ticket(), self.clock()
            written = session.write(change)
        flag = written.row.snapshot(read_at=sent, written=change.details)
        if flag.enabled is not change.value:
            raise StoreError(
                f"{self.store.name}: the flag was written, but it is {'on' if flag.enabled else 'off'}: "
                "look for a trigger that overrides it"
            )
        # A read that was sent before the write returned may lack it. A read that shows more stays.
        complete = self.lease.put(written, flag, clock=StoreClock(written.now, sent, self.clock()), asked=asked)
        self.lifecycle.wake(read=not complete)
        self._finish(None)
        before = None
        with contextlib.suppress(FlagError):  # a row that was wrong is replaced
            before = None if written.before is None else written.before.snapshot(read_at=sent)
        return flag, before

    def upcoming(self) -> Snapshot | None:
        """The maintenance that begins next, of the site or of a scope; None if none is scheduled. Reads memory only."""
        self.snapshot()
        now = self.lease.store_now
        ahead = [
            (it.starts, it.scope or "", it) for it in self.lease.flags if it.starts is not None and it.starts > now
        ]
        return min(ahead, default=(None, "", None))[-1]

    def history(self, *, scope: str | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """The last changes, the newest first.

        Args:
            scope: Of one scope only; None for every flag.
            limit: The most entries.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was asked.
            StoreError: The store cannot be reached, or keeps no history.
        """
        check_scope(scope)
        if limit not in range(1, MAX_HISTORY + 1):
            raise ValueError(f"limit is {limit!r}: use a whole number from 1 to {MAX_HISTORY}")
        with self._converse(WRITE_LIMIT) as session:
            return session.history(scope, limit=limit)

    def prove(
        self,
        snapshot: Snapshot,
        *,
        drain: bool = False,
        timeout: float | None = None,
        expect: int | Mapping[str, int] | None = None,
        presume_dead: float | None = None,
        progress: Progress = lambda _: None,
    ) -> Proof:
        """Wait until every instance has provably followed a flip.

        Args:
            snapshot: What `set` returned.
            drain: Also wait until nothing that the flag refuses is in flight.
            timeout: Seconds; None for a time above the longest lease.
            expect: How many instances there must be at least, or how many of each service, as ``{"web": 24}``.
            presume_dead: Seconds of silence after which an instance counts as dead, at the caller's own risk.
            progress: Called with each judgement on the way.

        Returns:
            The proof, true if it is proven; else it names each laggard.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was asked.
        """
        with self._open_conversation() as conversation:
            return prove(
                conversation,
                snapshot,
                drain=drain,
                timeout=timeout,
                expect=expect,
                presume_dead=presume_dead,
                progress=progress,
                runtime=self.lease.runtime,
            )

    async def aprove(self, snapshot: Snapshot, **options: Any) -> Proof:
        """Run `prove` in a thread, for async code. A cancelled task ends the wait."""
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

    def fleet(self, *, scope: str | None = None) -> Fleet:
        """The flags and every registered instance, read in one statement.

        Args:
            scope: A scope whose flag to read even if it is off.

        Raises:
            StoreError: The store cannot be reached.
        """
        with self._converse(WRITE_LIMIT) as session:
            return session.fleet(scope)

    def find(self, beginning: str) -> tuple[Instance, ...]:
        """The registered instances whose `id` begins with a text. No other row is read.

        Raises:
            StoreError: The store cannot be reached.
        """
        with self._converse(WRITE_LIMIT) as session:
            return session.find(beginning)

    def forget(self, *instances: str) -> bool:
        """Remove the rows of instances, in one step. The caller must know that their processes have ended.

        Args:
            *instances: The `id` of each, as in `fleet`.

        Returns:
            False if there was none.

        Raises:
            TypeError: One is not a str; nothing was asked.
            StoreError: The store cannot be reached, or this role may not remove one of them; none was removed.
        """
        keys = [_parse_id(instance) for instance in instances]
        with self._converse(WRITE_LIMIT) as session:
            return session.remove(*keys) > 0

    def status(self) -> Status:
        """How this process and its store get on; reads memory only."""
        watcher, load = self.lifecycle.watcher, self._sources.measure(EVERYTHING)
        membership = watcher.reader.membership if watcher and watcher.purpose is not Purpose.ASK else None
        condition, flags = self._status.note(), self.lease.flags
        return Status(
            condition=condition,
            since=self._status.since,
            snapshot=flags.site,
            last_error=self.lease.error,
            store=self.store.name,
            ttl=self.lease.settings.ttl,
            when_stale=self.lease.settings.when_stale,
            listening=watcher is not None and watcher.reader.listening,
            instance=membership.instance.id if membership else None,
            registered=membership is not None and membership.row is Row.PRESENT,
            registration_error=membership.error if membership else None,
            in_flight=load.in_flight if load else None,
            flags=flags,
        )

    def on_change(self, callback: Callback) -> Callback:
        """Call a function with each new snapshot whose flag or details differ; usable as a decorator.

        It runs in a thread of its own, or in one that called `set` or `refresh`. Calls never overlap, and the last one
        is about what is known: while one runs, changes wait for its end. There are no calls before this process
        follows, that is before `start`, its first request, or the first time that its code asks.

        Raises:
            ConfigurationError: It cannot be called.
        """
        check_function("callback", callback)
        self._listeners.add(callback)
        return callback

    def leave(self) -> None:
        """End the thread and remove this process from the fleet; the next request brings both back."""
        self.lifecycle.leave()

    def close(self) -> None:
        """Refuse everything from now on, then remove this process from the fleet. A second call changes nothing.

        The row stays until the requests in flight have ended, if they are counted.
        """
        self.lifecycle.leave(Event.CLOSE)

    def attach(self, source: InFlightSource) -> None:
        """Count the requests of a middleware, and notify it of each flip at once."""
        self._sources.add(source)

    def start(self) -> None:
        """Begin to read in the background, before the first request."""
        self.lifecycle.begin()

    def notify(self) -> None:
        """Report a change of the flags, in the caller's thread."""
        self._listeners.notify()

    def fork(self) -> None:
        """Begin again in the child of a fork: thread, connection, requests and lease are the parent's."""
        self._sources.clear()
        self.lifecycle.fork()

    @contextlib.contextmanager
    def keep_connection(self) -> Iterator[None]:
        """Use one session for all calls of a block, for a program that makes several and has one thread."""
        with contextlib.closing(Conversation(self.store, clock=self.clock)) as conversation:
            self._kept = conversation
            try:
                yield
            finally:
                self._kept = None

    @contextlib.contextmanager
    def _open_conversation(self) -> Iterator[Conversation]:
        if self._kept is not None:
            yield self._kept
            return
        with contextlib.closing(Conversation(self.store, clock=self.clock)) as conversation:
            yield conversation

    @contextlib.contextmanager
    def _converse(self, limit: float) -> Iterator[Session]:
        """A session for one call, which fails if it takes longer than `limit` seconds."""
        with self._open_conversation() as conversation, conversation.within(limit) as session:
            yield session

    def _finish(self, error: str | None) -> None:
        """Report the answer of a direct read or write, in the caller's thread."""
        if self.lifecycle.watcher is None:
            self.lease.error = error  # with a watcher, only what renews the lease clears it
        self.notify()


def _check_store(value: Store) -> Store:
    if isinstance(value, type):
        raise ConfigurationError(f"store is the class {value.__name__}: use {value.__name__}(...)")
    if not callable(getattr(value, "connect", None)):
        # Only its type: it may be a URL in another form, with a password.
        raise ConfigurationError(
            f"store is a {type(value).__name__}: use a Store, or a URL such as postgresql://user@host/database"
        )
    return value


def _parse_id(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"instance is {quote(value)}: use its id, as in fleet().instances")
    with contextlib.suppress(ValueError):
        return UUID(value).hex
    return value


def _parse_uuid(value: UUID | str | None) -> UUID | None:
    if not isinstance(value, str):
        return value
    try:
        return UUID(value)
    except ValueError:
        raise ValueError(f"updated_by is {quote(value)}: use a UUID, or None") from None


_states: weakref.WeakValueDictionary[int, MaintenanceState] = weakref.WeakValueDictionary()


def list_states() -> list[MaintenanceState]:
    """Return the states of this process. Another thread may build one at the same time."""
    # `valuerefs` copies in one step, unlike the other ways to go through it.
    return [state for ref in _states.valuerefs() if (state := ref()) is not None]


def pin_all(flags: Flags | None) -> None:
    """Have every state of this process follow these flags instead of its store's; None to undo that."""
    Lease.pinned = flags
    for state in list_states():
        state.lease.follow_pin()
        state.notify()


def _fork_all() -> None:
    for state in list_states():
        state.fork()


leaving.leave_at_exit(lambda: [state.lifecycle for state in list_states()])
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows forks nothing
    os.register_at_fork(after_in_child=_fork_all)

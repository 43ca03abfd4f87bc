"""The newest answer of the store, and until when a request may use it."""

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from maintenance.base.flags import Flags, StoreClock, close, keep_newer
from maintenance.base.options import Settings
from maintenance.base.quoting import quote
from maintenance.base.runtime import Runtime
from maintenance.base.values import Snapshot, Written
from maintenance.errors import ConfigurationError
from maintenance.process.life import Event, Life, Phase, Purpose
from maintenance.process.metrics import FAILURES

GRACE: Final = 1.0
"""Seconds for which requests use the last known answer before one of them looks again, while the store is down."""

LAGGING: Final = "a standby answered: it may not have the last change yet"
"""Why an answer renews no lease."""

_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Answer:
    """All that a request looks at: one immutable value, replaced as a whole.

    Attributes:
        snapshot: The site's flag, as it holds until `until`.
        until: When (clock) the lease ends, or the next schedule begins or ends.
        scopes: The flags of the scopes that are on.
        serves: Whether requests and jobs may use it. In a life that only asks, the process is not registered.
        deadline: Until when (clock) a request may use it: `until`, or minus infinity.
        open_until: `deadline` if every flag is off, else minus infinity. Most requests compare the clock to it alone.
    """

    snapshot: Snapshot
    until: float
    scopes: Mapping[str, Snapshot] = field(default_factory=dict)
    serves: bool = True
    deadline: float = field(init=False)
    open_until: float = field(init=False)

    def __post_init__(self) -> None:
        """Derive `deadline` and `open_until`."""
        object.__setattr__(self, "deadline", self.until if self.serves else float("-inf"))
        is_off = not self.snapshot.enabled and not self.scopes
        object.__setattr__(self, "open_until", self.deadline if is_off else float("-inf"))


class Lease:
    """The newest answer and its lease. Answers are ordered by when they were asked for, never by their revision.

    Attributes:
        settings: How this process follows.
        runtime: Its clock and threads.
        life: Its phase and epoch.
        known: The flags that were installed last, as stored.
        current: What a request uses.
        holds_until: When (clock) the next schedule begins or ends, which changes `current`.
        until: When (clock) the lease ends.
        error: Why the last try did not renew the lease; None if it did.
        known_in: The epoch in which `known` was installed; None before the first answer.
        serves: Whether this life is for more than to ask.
        pinned: The flags that a test puts in the place of every known one; see `maintenance.testing`.
    """

    pinned: ClassVar[Flags | None] = None

    def __init__(self, before: Snapshot, *, settings: Settings, runtime: Runtime) -> None:
        """Begin with the answer that applies before the first read."""
        self.settings, self.runtime = settings, runtime
        self.life = Life(runtime=runtime)
        self._lock = runtime.lock()
        self._tickets = itertools.count(1)
        self._newest = self._taken = 0
        self.known = Flags(site=before)
        self.known_in: int | None = None
        self.until = float("-inf")
        self.error: str | None = None
        self.serves = True
        self._blocked = _refuse_all(before)
        self._use(self.known, self.until)

    def start(self, purpose: Purpose) -> None:
        """Begin a life."""
        with self._lock:
            self.serves = purpose is not Purpose.ASK
            self.life.apply(Event.START)
            self._use(self.known, self.until)

    def _use(self, known: Flags, until: float) -> None:
        """Choose what applies at this moment. Only the lock's holder calls this."""
        pinned = Lease.pinned
        if pinned is not None:
            known, until = pinned, float("inf")
        flags, holds_until = known.at(self.runtime.clock())
        on = {scope: flag for scope, flag in flags.scopes.items() if flag.enabled}
        answer = Answer(flags.site, min(until, holds_until), on, self.serves or pinned is not None)
        self.current = self._blocked if self.life.closed and pinned is None else answer
        # Last, because readers take no lock. One that finds nothing to begin or end must find `current` up to date.
        self.holds_until = holds_until

    def follow_pin(self) -> None:
        """Use what is pinned, or what is known again."""
        with self._lock:
            self._use(self.known, self.until)

    def advance(self) -> bool:
        """Begin or end what a schedule says for this moment, without asking the store. True if something changed."""
        if self.runtime.clock() < self.holds_until:
            return False
        with self._lock:
            self._use(self.known, self.until)
            return True

    def find_answer(self, purpose: Purpose = Purpose.SERVE) -> Answer | None:
        """Return what may be used now for a purpose; None once the lease is over."""
        while True:
            # One reading for the lease and for the schedules, before the answer: a newer answer is safe.
            now, answer = self.runtime.clock(), self.current
            if now < (answer.until if purpose is Purpose.ASK else answer.deadline):
                return answer
            if not self.advance():
                return None

    def ticket(self) -> int:
        """A place in the order of answers: taken before a read is sent, and after a write has returned."""
        return next(self._tickets)

    def install(
        self,
        flags: Flags,
        *,
        ticket: int,
        epoch: int | None = None,
        lagging: bool = False,
    ) -> bool:
        """Take the answer to a read, unless one with a later ticket was taken.

        Two answers over different connections may overtake each other. If they overlap, an older revision never
        replaces a newer one, because the newer one may be acknowledged.

        Args:
            flags: The answer.
            ticket: Its place in the order.
            epoch: The epoch in which it was asked for, if it renews the lease from `Snapshot.read_at` on; else None.
            lagging: Whether a standby answered, which may be behind.

        Returns:
            Whether it was taken.
        """
        with self._lock:
            overlaps = ticket < self._taken
            if ticket < self._newest or ((lagging or overlaps) and flags.revision < self.known.newest):
                return False
            until = self.until
            if lagging and self.known.clock is not None:
                # The clock of a standby may be another one, and a schedule may be acknowledged by that of the primary.
                flags = replace(flags, clock=self.known.clock)
            if epoch == self.life.epoch:
                until = flags.site.read_at + self.settings.ttl
                self.error = None
            self._take(keep_newer(self.known, flags, now=self.runtime.clock()), ticket=ticket, until=until)
            return True

    def put(self, written: Written, flag: Snapshot, *, clock: StoreClock, asked: int) -> bool:
        """Take an own write, unless a read that was sent in between shows a later one.

        Args:
            written: What the store returned.
            flag: Its row as a snapshot.
            clock: The store's clock at the write.
            asked: A ticket from before the write was sent.

        Returns:
            Whether this process now knows every change up to the write, which it may acknowledge then.
        """
        with self._lock:
            known = self.known
            if asked < self._taken and flag.revision < known.get(flag.scope).revision:
                return False
            complete = known.revision == written.follows
            # Without its token, the next read brings every flag: a request to drain may have come in between.
            flags = replace(
                known.put(flag), revision=written.last if complete else known.revision, token=None, clock=clock
            )
            self._take(flags, ticket=self.ticket(), until=self.until)
            return complete

    def _take(self, flags: Flags, *, ticket: int, until: float) -> None:
        self._newest, self._taken = ticket, next(self._tickets)
        self._blocked = _refuse_all(flags.site)
        # In this order, because readers take no lock. A thread that finds the answer known may acknowledge it, and
        # one that finds the lease running may admit a request: both must find the answer in `current`.
        self._use(flags, until)
        self.known, self.known_in, self.until = flags, self.life.epoch, until

    def fail(self, error: str) -> None:
        """Remember that the store did not answer, or not well enough to renew the lease."""
        self.error = error
        FAILURES.add()

    @property
    def failing(self) -> bool:
        """Whether the last try did not renew the lease."""
        return self.error is not None

    @property
    def running(self) -> bool:
        """Whether requests may use what is known."""
        return self.runtime.clock() < self.until

    @property
    def primed(self) -> bool:
        """Whether `refresh` or `set` brought an answer in this life, younger than the TTL, and no watcher has yet."""
        age = self.runtime.clock() - self.known.site.read_at
        is_first = self.known_in == self.life.epoch and self.life.phase is not Phase.FOLLOWING
        return is_first and age < self.settings.ttl

    @property
    def age(self) -> float | None:
        """Seconds since the read that renewed the lease last was sent, or any read if none has; None before the first.

        The answer of a standby, which may lag, makes it no younger.
        """
        if self.known.site.source != "store":
            return None
        until = self.until
        sent = self.known.site.read_at if until == float("-inf") else until - self.settings.ttl
        return self.runtime.clock() - sent

    @property
    def blocks(self) -> bool:
        """Whether requests are refused once the lease is over."""
        return self.settings.when_stale == "block"

    @property
    def refuses_all(self) -> bool:
        """Whether the lease is over, so that requests are refused whatever the flag is."""
        return self.blocks and not self.running and not self.primed

    def stale_answer(self, *, grace: float) -> Answer:
        """Return what applies once the lease is over and no request waits.

        Args:
            grace: Seconds for which requests then use it without looking again.
        """
        if self.blocks:
            return self._blocked
        with self._lock:
            now = self.runtime.clock()
            if now >= self.holds_until:
                self._use(self.known, self.until)
            if grace and now >= self.current.until and not self.life.closed:
                self.current = replace(self.current, until=min(now + grace, self.holds_until))
            return self.current

    @property
    def store_now(self) -> dt.datetime:
        """What the store's clock shows now; this machine's wall clock before the first read."""
        clock = self.known.clock
        return dt.datetime.now(dt.UTC) if clock is None else clock.read(self.runtime.clock())

    @property
    def flags(self) -> Flags:
        """The known flags as they hold now."""
        return (Lease.pinned or self.known).at(self.runtime.clock())[0]

    def end(self, event: Event) -> bool:
        """End the lease and its epoch. The known answer stays.

        Args:
            event: LEAVE or CLOSE.

        Returns:
            Whether the phase changed.
        """
        with self._lock:
            if event is Event.CLOSE:
                # First. A request that finds the process closed uses `current`, whatever its deadline.
                self.current = self._blocked
            changed = self.life.apply(event)
            self._expire()
            return changed

    def _expire(self) -> None:
        self.until = float("-inf")
        self.error = None
        self._use(self.known, self.until)

    def fork(self) -> None:
        """Begin without a lease in a child. A thread of the parent may hold the lock, so the child gets a new one."""
        self._lock = self.runtime.lock()
        self.life.fork()
        self._expire()


def _refuse_all(known: Snapshot) -> Answer:
    """What refuses everything. Made once for each answer, because responses are cached by its snapshot."""
    # When it ends is unknown, so the known message and end do not belong to it.
    unknown = replace(close(known), source="default")
    return Answer(unknown, float("-inf"))


def fallback(environment: str | None) -> Snapshot:
    """The snapshot that applies before the first read.

    Args:
        environment: The value of ``MAINTENANCE_MODE``, or None.

    Raises:
        ConfigurationError: The value is neither on nor off.
    """
    if environment is None:
        return Snapshot(enabled=False, source="default")
    word = environment.strip().lower()
    if word not in _ON | _OFF:
        raise ConfigurationError(
            f"MAINTENANCE_MODE is {quote(environment)}: use 1, true, yes or on, or 0, false, no or off"
        )
    return Snapshot(enabled=word in _ON, source="environment")

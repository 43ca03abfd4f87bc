"""The newest answer of the store, and until when a request may use it."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Final

from maintenance.base.options import Settings
from maintenance.base.quoting import quote
from maintenance.base.runtime import Runtime
from maintenance.base.values import Snapshot
from maintenance.errors import ConfigurationError
from maintenance.process.life import Event, Life, Phase

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
        snapshot: The flag.
        deadline: Until when (clock) a request may use it.
        open_until: `deadline` if the flag is off, else minus infinity. Most requests compare the clock to it alone.
    """

    snapshot: Snapshot
    deadline: float
    open_until: float = field(init=False)

    def __post_init__(self) -> None:
        """Derive `open_until`."""
        object.__setattr__(self, "open_until", float("-inf") if self.snapshot.enabled else self.deadline)


class Lease:
    """The newest answer and its lease. Answers are ordered by when they were asked for, never by their revision.

    Attributes:
        settings: How this process follows.
        runtime: Its clock and threads.
        life: Its phase and epoch.
        known: The snapshot that was installed last.
        current: What a request uses.
        until: When (clock) the lease ends.
        error: Why the last try did not renew the lease; None if it did.
        known_in: The epoch in which `known` was installed; None before the first answer.
    """

    def __init__(self, before: Snapshot, *, settings: Settings, runtime: Runtime) -> None:
        """Begin with the answer that applies before the first read."""
        self.settings, self.runtime = settings, runtime
        self.life = Life(runtime=runtime)
        self._lock = runtime.lock()
        self._tickets = itertools.count(1)
        self._newest = self._taken = 0
        self.known = before
        self.known_in: int | None = None
        self.until = float("-inf")
        self.error: str | None = None
        self._blocked = _refuse_all(before)
        self.current = self._choose(before, self.until)

    def _choose(self, known: Snapshot, until: float) -> Answer:
        return self._blocked if self.life.closed else Answer(known, until)

    def ticket(self) -> int:
        """A place in the order of answers: taken before a read is sent, and after a write has returned."""
        return next(self._tickets)

    def install(
        self,
        snapshot: Snapshot,
        *,
        ticket: int,
        epoch: int | None = None,
        lagging: bool = False,
        asked: int | None = None,
    ) -> bool:
        """Take an answer, unless one with a later ticket was taken.

        Two answers over different connections may overtake each other. If they overlap, an older revision never
        replaces a newer one, because the newer one may be acknowledged.

        Args:
            snapshot: The answer.
            ticket: Its place in the order.
            epoch: The epoch in which it was asked for, if it renews the lease from `Snapshot.read_at` on; else None.
            lagging: Whether a standby answered, which may be behind.
            asked: A ticket from before it was asked for, if that is not `ticket`.

        Returns:
            Whether it was taken.
        """
        with self._lock:
            overlaps = (ticket if asked is None else asked) < self._taken
            if ticket < self._newest or ((lagging or overlaps) and snapshot.revision < self.known.revision):
                return False
            self._newest, self._taken, until = ticket, next(self._tickets), self.until
            if epoch == self.life.epoch:
                until = snapshot.read_at + self.settings.ttl
                self.error = None
            self._blocked = _refuse_all(snapshot)
            # In this order, because readers take no lock. A thread that finds the answer known may acknowledge it, and
            # one that finds the lease running may admit a request: both must find the answer in `current`.
            self.current = self._choose(snapshot, until)
            self.known, self.known_in, self.until = snapshot, self.life.epoch, until
            return True

    def fail(self, error: str) -> None:
        """Remember that the store did not answer, or not well enough to renew the lease."""
        self.error = error

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
        age = self.runtime.clock() - self.known.read_at
        is_first = self.known_in == self.life.epoch and self.life.phase is not Phase.FOLLOWING
        return is_first and age < self.settings.ttl

    @property
    def blocks(self) -> bool:
        """Whether requests are refused once the lease is over."""
        return self.settings.when_stale == "block"

    def stale_answer(self, *, grace: float) -> Answer:
        """Return what applies once the lease is over and no request waits.

        Args:
            grace: Seconds for which requests then use it without looking again.
        """
        if self.blocks:
            return self._blocked
        until = self.runtime.clock() + grace
        with self._lock:
            if grace and until - grace >= self.current.deadline and not self.life.closed:
                self.current = replace(self.current, deadline=until)
            return self.current

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
        self.current = self._choose(self.known, self.until)

    def fork(self) -> None:
        """Begin without a lease in a child. A thread of the parent may hold the lock, so the child gets a new one."""
        self._lock = self.runtime.lock()
        self.life.fork()
        self._expire()


def _refuse_all(known: Snapshot) -> Answer:
    """What refuses everything. Made once for each answer, because responses are cached by its snapshot."""
    # When it ends is unknown, so the known message and end do not belong to it.
    unknown = replace(known, enabled=True, mode="full", message=None, until=None, retry_after=None, source="default")
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

"""What this process knows of the flag, and until when a request may rest on it."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Final

from maintenance.base.runtime import Runtime
from maintenance.base.values import Snapshot, WhenStale
from maintenance.errors import ConfigurationError

GRACE: Final = 1.0
"""Seconds for which requests rest on the last known answer before somebody looks again, while the store is away."""

LAGGING: Final = "a standby answered, which may not have heard of the last change"
"""Why an answer renews no lease."""

_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Answer:
    """All that a request asks for: one immutable value, swapped whole.

    Attributes:
        snapshot: What is known.
        deadline: Until when (clock) a request may rest on it.
        open: Whether it lets everything pass.
        open_until: `deadline` where it is open, else minus infinity: the one number that a request looks at.
    """

    snapshot: Snapshot
    deadline: float
    open: bool
    open_until: float = field(init=False)

    def __post_init__(self) -> None:
        """Derive `open_until`."""
        object.__setattr__(self, "open_until", self.deadline if self.open else float("-inf"))


class Lease:
    """The newest answer and its lease. Answers are ordered by when they were asked for, never by what they say."""

    def __init__(self, before: Snapshot, *, ttl: float, when_stale: WhenStale, runtime: Runtime) -> None:
        """Know nothing but what stands before the first read."""
        self._ttl = ttl
        self._when_stale = when_stale
        self._clock = runtime.clock
        self._make_lock = runtime.lock
        self._lock = runtime.lock()
        self._tickets = itertools.count(1)
        self._newest = 0
        self._taken = 0
        self._expired = 0
        self.closed = False
        self.until = float("-inf")
        self.error: str | None = None
        self.known = before
        self._blocked = _blocked(before)
        self.current = self._hold(before, self.until)

    def _hold(self, known: Snapshot, until: float) -> Answer:
        return self._blocked if self.closed else Answer(known, until, open=not known.enabled)

    def ticket(self) -> int:
        """A place in the order of answers: taken before a read is sent, and after a write has returned."""
        return next(self._tickets)

    def install(
        self, snapshot: Snapshot, *, ticket: int, renew: bool, lagging: bool = False, asked: int | None = None
    ) -> bool:
        """Take an answer, unless one with a later ticket is held.

        One that was asked for before the answer that is held had come may have been overtaken by it, whatever the
        tickets say: another connection carried it. What is held may be acknowledged, so nothing older replaces it.

        Args:
            snapshot: The answer.
            ticket: Its place in the order.
            renew: Whether the lease runs anew from `Snapshot.read_at`.
            lagging: Whether it comes from a standby, which may not have heard yet what is known here.
            asked: A ticket from before it was asked for, where `ticket` is not.

        Returns:
            Whether it was taken.
        """
        with self._lock:
            overlaps = (ticket if asked is None else asked) < self._taken
            if ticket < self._newest or ((lagging or overlaps) and snapshot.revision < self.known.revision):
                return False
            self._newest, self._taken, until = ticket, next(self._tickets), self.until
            if renew and ticket > self._expired:
                until = snapshot.read_at + self._ttl
                self.error = None
            self._blocked = _blocked(snapshot)
            # In this order, because nobody locks to look: who finds the answer known, and acknowledges it, or finds
            # the lease running, and admits a request, must find the answer held.
            self.current = self._hold(snapshot, until)
            self.known, self.until = snapshot, until
            return True

    def fail(self, error: str) -> None:
        """Remember that the store did not answer, or not well enough to renew the lease."""
        self.error = error

    @property
    def failing(self) -> bool:
        """Whether the last try did not renew the lease."""
        return self.error is not None

    def runs(self) -> bool:
        """Whether requests may rest on what is known."""
        return self._clock() < self.until

    def run_out(self) -> Answer:
        """What requests rest on once the lease has run out and nobody is waited for."""
        if self._when_stale == "block":
            return self._blocked
        now = self._clock()
        with self._lock:
            if now >= self.current.deadline and not self.closed:
                self.current = replace(self.current, deadline=now + GRACE)
            return self.current

    def outlived(self) -> Answer:
        """What code is told once the lease has run out: as `run_out`, without the grace that it gives to requests."""
        return self._blocked if self._when_stale == "block" else self.current

    def expire(self) -> None:
        """End the lease. What is known stands, and no read that is under way renews it."""
        with self._lock:
            self._expired = next(self._tickets)
            self.until = float("-inf")
            self.error = None
            self.current = self._hold(self.known, self.until)

    def forked(self) -> None:
        """In the child of a fork, where the parent's other threads cannot give back what they had locked."""
        self._lock = self._make_lock()
        self.expire()

    def close(self) -> None:
        """Admit nothing from now on."""
        with self._lock:
            self.current = self._blocked
            self.closed = True  # last: whoever finds it closed rests on `held`, whatever the time


def _blocked(known: Snapshot) -> Answer:
    """What refuses everything; made once for each answer, because responses are kept by its snapshot."""
    # When it will be over is not known, so neither the message nor the end is this answer's.
    unknown = replace(known, enabled=True, mode="full", message=None, until=None, retry_after=None, source="default")
    return Answer(unknown, float("-inf"), open=False)


def fallback(environment: str | None) -> Snapshot:
    """What stands before the first read.

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
            f"MAINTENANCE_MODE is {environment!r}: write 1, true, yes or on, or 0, false, no or off"
        )
    return Snapshot(enabled=word in _ON, source="environment")

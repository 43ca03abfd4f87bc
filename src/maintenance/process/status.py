"""How a process stands with its store, and the one line that the log gets when that changes."""

import datetime as dt
import logging
from dataclasses import dataclass
from typing import Literal

from maintenance.base.log import log
from maintenance.base.values import Snapshot, WhenStale
from maintenance.process.lease import Lease

Condition = Literal["fresh", "stale", "never read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a process stands with its store.

    Attributes:
        condition: ``fresh``, ``stale`` (older than the TTL) or ``never read``.
        since: When that began; aware.
        snapshot: What is known.
        last_error: Why the last try failed, without a password; None where it did not.
        store: The store, without a password.
        ttl: Seconds.
        when_stale: ``serve`` or ``block``.
        listening: Whether a change arrives at once.
        instance: The id of this process; None before its first request.
        registered: Whether a wait for the fleet can see this process.
        registration_error: Why not.
        in_flight: Requests that have not ended, those that pass while it is on too; None where none are tracked.
    """

    condition: Condition
    since: dt.datetime
    snapshot: Snapshot
    last_error: str | None
    store: str
    ttl: float
    when_stale: WhenStale
    listening: bool
    instance: str | None
    registered: bool
    registration_error: str | None
    in_flight: int | None


class Health:
    """Notices, and logs once, that the answer has become too old, and that it is fresh again."""

    def __init__(self, lease: Lease, *, when_stale: WhenStale) -> None:
        """Begin with nothing read."""
        self._lease, self._when_stale = lease, when_stale
        self._complained = False
        self.condition: Condition = "never read"
        self.since = dt.datetime.now(dt.UTC)

    def note(self, *, recent: bool) -> Condition:
        """Look at the lease.

        Args:
            recent: Whether what is known counts as fresh without a lease, in a process that has none yet.
        """
        condition: Condition = "fresh" if recent or self._lease.runs() else "stale"
        if self._lease.known.source != "store":
            condition = "never read"
        if condition != self.condition:
            self.condition, self.since = condition, dt.datetime.now(dt.UTC)
        bad = condition != "fresh"
        # An answer that is merely old is asked for again; it is bad news once that has failed.
        if bad != self._complained and (not bad or self._lease.failing):
            self._complained = bad
            self._log(condition)
        return condition

    def _log(self, condition: Condition) -> None:
        known = self._lease.known
        if condition == "fresh":
            log(logging.WARNING, "the flag is fresh again, at revision %d", known.revision)
            return
        unread = condition == "never read"
        which = "what stands before the first read" if unread else "the last known answer"
        answer = "503" if self._when_stale == "block" else f"{which}, {'on' if known.enabled else 'off'}"
        said = "has not been read yet" if unread else "is stale"
        log(logging.WARNING, "the flag %s, requests get %s: %s", said, answer, self._lease.error)

"""How a process and its store get on, and the one log line when that changes."""

import datetime as dt
import logging
from dataclasses import dataclass
from typing import Final, Literal

from maintenance.base.flags import Flags
from maintenance.base.log import log
from maintenance.base.values import Snapshot, WhenStale
from maintenance.process.lease import Lease

TAKEN_BACK: Final = (
    "the database shows an older state than the one that processes follow, as after a restore: maintenance stays on "
    "until you run `maintenance on` or `maintenance off`, and the same with --scope for each scope that was on"
)
"""What an operator has to decide."""

Condition = Literal["fresh", "stale", "never read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a process and its store get on.

    Attributes:
        condition: ``fresh``, ``stale`` (older than the TTL) or ``never read``.
        since: When that began; aware.
        snapshot: The flag as this process knows it.
        last_error: Why the last try failed, without a password; None if it did not.
        store: The store, without a password.
        ttl: Seconds.
        when_stale: ``serve`` or ``block``.
        listening: Whether a change arrives at once.
        instance: The id of this process; None before its first request.
        registered: Whether a wait for the fleet includes this process.
        registration_error: Why not.
        in_flight: Requests that have not ended, exempt ones included; None if they are not tracked.
        flags: Every flag that is on or scheduled, as it holds now.
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
    flags: Flags


class StatusLog:
    """Logs once that the answer has become too old, once that it is fresh again, and what is wrong in each change."""

    def __init__(self, lease: Lease) -> None:
        """Begin with nothing read."""
        self._lease = lease
        self._complained = False
        self._named: tuple[object, ...] = ()
        self._taken_back = False
        self.condition: Condition = "never read"
        self.since = dt.datetime.now(dt.UTC)

    def note(self) -> Condition:
        """Look at the lease, log a change, and return the condition."""
        condition = self._find_condition()
        if condition != self.condition:
            self.condition, self.since = condition, dt.datetime.now(dt.UTC)
        bad = condition != "fresh"
        # An answer that is merely old is read again. It is bad news once that has failed.
        if bad != self._complained and (not bad or self._lease.failing):
            self._complained = bad
            self._log(condition)
        self._name_problems(self._lease.known.site)
        self._name_taken_back(taken_back=self._lease.known.taken_back)
        return condition

    def _name_taken_back(self, *, taken_back: bool) -> None:
        before, self._taken_back = self._taken_back, taken_back
        if taken_back and not before:
            log(logging.WARNING, "%s", TAKEN_BACK)
        elif before and not taken_back:
            log(logging.WARNING, "the flags of the database are followed again")

    def _name_problems(self, known: Snapshot) -> None:
        named, self._named = self._named, (known.revision, *known.problems)
        if known.problems and named != self._named:
            log(
                logging.WARNING,
                "the flag is followed (maintenance %s at revision %d), but wrong values in its row are ignored: %s",
                _word(known),
                known.revision,
                "; ".join(known.problems),
            )

    def _find_condition(self) -> Condition:
        if self._lease.known.site.source != "store":
            return "never read"
        return "fresh" if self._lease.primed or self._lease.running else "stale"

    def _log(self, condition: Condition) -> None:
        known = self._lease.flags.site
        if condition == "fresh":
            log(logging.WARNING, "the flag is fresh again, at revision %d", known.revision)
            return
        value = "MAINTENANCE_MODE, or off without it" if condition == "never read" else "the last known value"
        effect = "refusing all requests" if self._lease.blocks else f"using {value} (maintenance {_word(known)})"
        log(logging.WARNING, "cannot read the flag from the database, %s: %s", effect, self._lease.error)


def _word(known: Snapshot) -> str:
    return "on" if known.enabled else "off"

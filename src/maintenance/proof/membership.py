"""The row of one process among the instances, and when it is written."""

import logging
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from pathlib import PurePath
from typing import Final, NamedTuple

from maintenance._version import __version__
from maintenance.base.flags import Flags
from maintenance.base.instances import MAX_NAME, Instance, Load
from maintenance.base.log import log
from maintenance.base.options import Settings
from maintenance.base.runtime import Runtime, boot_id
from maintenance.errors import LateError, RegistrationError, StoreError
from maintenance.stores import Session

HEARTBEAT: Final = 60.0
"""Seconds between two reports of an instance that has nothing new to report. Each costs 251 bytes of WAL (measured)."""

DRAIN_REPORT: Final = 1.0
"""Seconds between two reports of a drain that goes on."""


class Row(Enum):
    """Whether the store holds the row of this process."""

    ABSENT = auto()
    UNCERTAIN = auto()  # it was sent; no later read has shown it yet
    PRESENT = auto()


class Report(NamedTuple):
    """What a process follows, and what it has in flight.

    Attributes:
        revision: The newest revision of any flag that it has installed.
        on: The scopes whose flags are on (None: the site's).
        load: The requests in flight; None if they are not tracked.
        waited_for: How many of these requests an operator waits for.
    """

    revision: int
    on: frozenset[str | None]
    load: Load | None
    waited_for: int


def make_report(known: Flags, flags: Flags, load: Load | None) -> Report:
    """Make a report of the flags as stored, the flags as they hold, and what is in flight under them."""
    on = {flag.scope for flag in flags if flag.enabled}
    waited_for = 0
    if load is not None:
        waited_for = sum(load.drains.values()) + (load.in_flight if None in known.drains else 0)
    return Report(known.revision, frozenset(on), load, waited_for)


class Membership:
    """The row of one life of a process. The child of a fork makes another one.

    Attributes:
        instance: The row as it is registered.
        row: Whether the store holds it.
        error: Why the last write failed; None if it did not.
        late: Whether it failed because the store was slow.
        draining: Whether an operator waits for requests that are in flight here.
    """

    def __init__(self, settings: Settings, *, runtime: Runtime) -> None:
        """Describe this process; nothing is written yet."""
        self._settings, self._runtime = settings, runtime
        self.instance = Instance(
            id=uuid.uuid4().hex,
            host=hostname(),
            boot=boot_id(),
            pid=runtime.pid(),
            program=_program(),
            version=__version__,
            when_stale=settings.when_stale,
            ttl=settings.ttl,
            service=settings.service or _program(),
        )
        self.row = Row.ABSENT
        self.error: str | None = None
        self.late = self.draining = False
        self._reported: Instance | None = None
        self._reported_on: frozenset[str | None] = frozenset()
        self._reported_at = float("-inf")

    def register(self, session: Session) -> None:
        """Write the row, before the read that a lease depends on."""
        before = self._reported
        self.row, self._reported = Row.UNCERTAIN, self.instance
        if not self._write(session, self.instance):
            self.row, self._reported = Row.ABSENT, before

    def confirm(self, *, registered: bool) -> None:
        """Take what a later read shows. The answer to the registration itself proves nothing: a trigger may drop it."""
        if self.row is Row.UNCERTAIN and registered:
            self.row, self.error = Row.PRESENT, None
        elif self.row is not Row.ABSENT and not registered:
            self.row = Row.ABSENT
            self._complain("its row was written and is not there: look for a trigger or a policy that drops it")

    def acknowledge(self, session: Session, report: Report) -> None:
        """Report what is installed, if the row does not show it yet. Call it only after the install."""
        self.draining = report.waited_for > 0
        before = self._reported
        if self.row is not Row.PRESENT or before is None:
            return
        is_due = self._runtime.clock() - self._reported_at >= HEARTBEAT
        has_moved = (self.draining or bool(before.drains)) and _counts(report.load) != _counts(before)
        if is_due or has_moved or self._has_flipped(before, report) or _has_ended(before, report.load):
            self._report(session, report)

    def owes(self, report: Report) -> bool:
        """Whether the row shows something else than what is installed, or requests that have ended."""
        before = self._reported
        if before is None:
            return False
        if self._has_flipped(before, report) or _has_ended(before, report.load):
            return True
        is_due = self.draining and self._runtime.clock() - self._reported_at >= DRAIN_REPORT
        return is_due and _counts(report.load) != _counts(before)

    def _has_flipped(self, before: Instance, report: Report) -> bool:
        return (before.revision, self._reported_on) != (report.revision, report.on)

    def follow_up(self, session: Session, report: Report) -> None:
        """Report what the row owes, between two reads."""
        self._report(session, report)
        self.draining = report.waited_for > 0

    @property
    def shows_requests(self) -> bool:
        """Whether the row shows requests in flight."""
        return self._reported is not None and bool(self._reported.in_flight)

    def report_again(self) -> None:
        """Repeat the next acknowledgement, because a failover may have lost the last one."""
        self._reported_at = float("-inf")

    @property
    def may_exist(self) -> bool:
        """Whether the store may hold the row."""
        return self._reported is not None

    def remove(self, session: Session) -> None:
        """Remove the row.

        Raises:
            StoreError: It stays.
        """
        with session.within(self._settings.limit):
            session.remove(self.instance.id)

    def _report(self, session: Session, report: Report) -> None:
        counts = {} if report.load is None else report.load._asdict()
        if self._write(session, replace(self.instance, revision=report.revision, **counts)):
            self.error, self._reported_on = None, report.on

    def _write(self, session: Session, instance: Instance) -> bool:
        """Write the row. If a later report fails, the row stays, and the report is repeated."""
        try:
            session.report(instance)
        except RegistrationError as exc:
            self.late = isinstance(exc, LateError)
            self._complain(str(exc))
            return False
        except StoreError as exc:
            self.error = str(exc)
            raise
        self.late = False
        self._reported, self._reported_at = instance, self._runtime.clock()
        return True

    def _complain(self, error: str) -> None:
        before, self.error = self.error, error
        if before == error:
            return
        problem = (
            "cannot report what it follows, so `maintenance on --wait` cannot confirm it"
            if self.row is Row.PRESENT
            else "is not registered, so `maintenance on --wait` will not wait for it"
        )
        log(logging.WARNING, "this process %s: %s", problem, error)


def _has_ended(before: Instance, load: Load | None) -> bool:
    """Whether the last of the requests that a row shows has ended, or the last of a scope's."""
    if load is None:
        return before.in_flight is not None
    drained = any(count == 0 and before.drains.get(scope) != 0 for scope, count in load.drains.items())
    return drained or (load.in_flight == 0 and before.in_flight != 0)


def _counts(of: Load | Instance | None) -> tuple[int | None, Mapping[str, int]]:
    return (None, {}) if of is None else (of.in_flight, of.drains)


def hostname() -> str:
    """The machine's name, in a form that every store can keep."""
    return _storable(socket.gethostname())


def _program() -> str:
    """What runs, for people: ``uvicorn`` for ``python -m uvicorn`` too."""
    # An embedded interpreter has no arguments, or no sys.argv.
    path = PurePath(next(iter(getattr(sys, "argv", ())), "") or "python")
    return _storable(path.parent.name if path.name == "__main__.py" else path.name)


def _storable(text: str) -> str:
    # ASCII fits every encoding of a database. Bytes that the locale cannot decode arrive as surrogates.
    return text.encode("ascii", "backslashreplace").decode("ascii").replace("\0", "?")[:MAX_NAME]

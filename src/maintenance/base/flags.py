"""Every flag of a site as one value, and what holds at a moment. Pure."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from maintenance.base.scopes import KEY
from maintenance.base.values import Row, Snapshot
from maintenance.errors import FlagError

NEVER: Final = float("inf")

CLOCK_RATE: Final = 0.01
"""How much faster or slower than true time a clock may run. NTP slews at most 0.05 %. Crystals drift far less."""

SCHEDULE_RATE: Final = 0.001
"""The same for a schedule, which may be far ahead. A process that is cut off for an hour begins up to 7 s early."""

SEEDED: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""The `updated_at` of a row that a migration has written, until the first flip."""

_DRIFT: Final = (1 + SCHEDULE_RATE) / (1 - SCHEDULE_RATE)
"""The most that one clock shows while another one shows 1."""


@dataclass(frozen=True, slots=True)
class StoreClock:
    """The store's clock, as one read showed it. Both clocks may drift since then by `SCHEDULE_RATE`.

    Attributes:
        at: What it showed.
        sent: This machine's clock before the read was sent.
        received: This machine's clock after the answer came.
    """

    at: dt.datetime
    sent: float
    received: float

    def begin(self, when: dt.datetime) -> float:
        """This machine's clock at an instant of the store's: never late, early by the read's time and the drift."""
        return self.sent + (when - self.at).total_seconds() / _DRIFT

    def end(self, when: dt.datetime) -> float:
        """The same: never early, late by the time of the read and the drift."""
        return self.received + (when - self.at).total_seconds() * _DRIFT

    def read(self, clock: float) -> dt.datetime:
        """What the store's clock shows when this machine's clock shows `clock`."""
        return self.at + dt.timedelta(seconds=clock - self.received)


def evaluate(flag: Snapshot, clock: StoreClock | None, now: float) -> tuple[bool, float]:
    """Whether a flag is on, and until when (on this machine's clock) that holds.

    Args:
        flag: As stored.
        clock: None before the first read; a schedule is not known then.
        now: This machine's clock.
    """
    if clock is None or (flag.starts is None and not flag.auto_off):
        return flag.enabled, NEVER
    if flag.starts is None and not flag.enabled:
        return False, NEVER
    begin = clock.begin(flag.starts) if flag.starts is not None and not flag.enabled else -NEVER
    end = clock.end(flag.until) if flag.auto_off and flag.until is not None else NEVER
    if now >= end or _is_empty(flag):
        return False, NEVER
    return (False, begin) if now < begin else (True, end)


def _is_empty(flag: Snapshot) -> bool:
    """Whether a schedule, written by hand, ends before it begins."""
    starts, until = flag.starts, flag.until
    ends_first = starts is not None and until is not None and until <= starts
    return flag.auto_off and ends_first and not flag.enabled


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags as a process holds them: one immutable value, replaced as a whole.

    Attributes:
        site: The site's flag.
        scopes: The flag of each scope that is on or scheduled.
        revision: The newest revision of any flag. This value has every change up to it.
        token: Differs whenever a process has something to read; None if that is unknown.
        clock: The store's clock; None if no store was read.
        drains: The flags (None: the site's) for which an operator waits until their requests have ended.
        taken_back: Whether the store shows older values than this process follows; see `keep_newer`.
    """

    site: Snapshot
    scopes: Mapping[str, Snapshot] = field(default_factory=dict)
    revision: int = 0
    token: str | None = None
    clock: StoreClock | None = None
    drains: frozenset[str | None] = frozenset()
    taken_back: bool = False

    def __iter__(self) -> Iterator[Snapshot]:
        """Every flag, the site's first."""
        yield self.site
        yield from self.scopes.values()

    @property
    def newest(self) -> int:
        """The newest revision in it. After an own write, it may be above `revision`."""
        return max(self.revision, *(flag.revision for flag in self))

    def get(self, scope: str | None) -> Snapshot:
        """The flag of a scope, or the site's; off if nothing is known about it."""
        if scope is None:
            return self.site
        return self.scopes.get(scope) or Snapshot(
            enabled=False, scope=scope, revision=self.revision, source=self.site.source, read_at=self.site.read_at
        )

    def put(self, flag: Snapshot) -> Self:
        """The same with another value of one flag."""
        if flag.scope is None:
            return replace(self, site=flag)
        others = {scope: it for scope, it in self.scopes.items() if scope != flag.scope}
        return replace(self, scopes={**others, flag.scope: flag} if flag.in_force else others)

    def at(self, now: float) -> tuple[Self, float]:
        """What holds at a moment: `Snapshot.enabled` of each flag is its effective value.

        A schedule that is over has no start.

        Returns:
            The flags, and until when (on this machine's clock) that holds.
        """
        scheduled = [flag for flag in self if flag.starts is not None or flag.auto_off]
        if not scheduled:
            return self, NEVER
        site, scopes, holds = self.site, dict(self.scopes), NEVER
        for flag in scheduled:
            enabled, until = evaluate(flag, self.clock, now)
            holds = min(holds, until)
            starts = None if self.clock is not None and not enabled and until == NEVER else flag.starts
            effective = flag
            if (flag.enabled, flag.starts) != (enabled, starts):
                effective = replace(flag, enabled=enabled, starts=starts)
            if flag.scope is None:
                site = effective
            else:
                scopes[flag.scope] = effective
        return replace(self, site=site, scopes=scopes), holds


def keep_newer(known: Flags, read: Flags, *, now: float) -> Flags:
    """Refuse to switch off what is on because of an older value, as after a restore of a dump.

    A value is older if its revision **and** its time are: a database that lost its last changes begins again with lower
    revisions, and a flip that settles the matter has a later time. A row that a migration has written is older than any
    flip, because no operator has decided anything.

    Returns:
        `read`, with the flags of `known` that are on and older there; `Flags.taken_back` says whether there are any.
    """
    on, _ = known.at(now)
    kept = [known.get(flag.scope) for flag in on if flag.enabled and _is_older(read, flag)]
    read = replace(read, scopes={scope: flag for scope, flag in read.scopes.items() if flag.in_force})
    if not kept:
        return read
    for flag in kept:
        read = read.put(flag)
    # A revision that the store does not have: whoever reads it among the instances learns of it too.
    return replace(read, revision=known.revision, token=None, taken_back=True)


def _is_older(read: Flags, known: Snapshot) -> bool:
    if known.source != "store":
        return False
    if known.scope is not None and known.scope not in read.scopes:
        return read.revision < known.revision
    found = read.get(known.scope)
    if found.updated_at is None or known.updated_at is None:
        return False
    is_seed = found.updated_at == SEEDED
    return (is_seed or found.revision < known.revision) and found.updated_at < known.updated_at


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of one read, unchecked.

    Attributes:
        row: The row of the site's flag; None if it is missing.
        scopes: The rows of the scopes that are on or scheduled, and of those that were asked for; None if the caller's
            token is still the present one.
        last: The newest revision of any flag; None if the store keeps none.
        token: See `Flags`.
        now: The store's clock.
        primary: False if a standby answered, whose answer may lag.
        registered: Whether the row of the instance that reads exists.
        ahead: Whether an instance has acknowledged a revision above `last` after the site's flag was written, so that
            the store was taken back. Asked only for a caller that could not know.
        store: The name of the store, for an error.
    """

    row: Row | None
    scopes: tuple[Row, ...] | None = ()
    last: object = None
    token: str | None = None
    now: dt.datetime | None = None
    primary: bool = True
    registered: bool = False
    ahead: bool = False
    store: str = "the store"

    def snapshot(self, *, read_at: float) -> Snapshot:
        """The site's row as a snapshot, as stored.

        Raises:
            FlagError: The row is missing or wrong.
        """
        if self.row is None:
            raise FlagError(
                f"{self.store}: platform_settings has no row {KEY!r}: run `maintenance migrate`, "
                "or flip it once with set_maintenance() or `maintenance off`"
            )
        try:
            return self.row.snapshot(read_at=read_at)
        except FlagError as exc:
            raise FlagError(f"{self.store}: {exc}") from exc

    def flags(self, before: Flags, *, sent: float, received: float) -> Flags:
        """All flags.

        Args:
            before: What the caller knew when it asked.
            sent: This machine's clock before the read was sent.
            received: The same after the answer came.

        Raises:
            FlagError: The site's row is missing or wrong, or the store keeps no revisions.
        """
        site = self.snapshot(read_at=sent)
        if not isinstance(self.last, int):
            raise FlagError(f"{self.store}: platform_settings_revision has no row: run `maintenance migrate`")
        drains = {None} if self.row and self.row.drain else set[str | None]()
        if self.scopes is None:
            scopes, drains = dict(before.scopes), drains | (before.drains - {None})
        else:
            scopes, problems = _read_scopes(self.scopes, read_at=sent)
            drains |= {row.scope for row in self.scopes if row.drain}
            site = replace(site, problems=site.problems + problems)
        # A process that has followed a newer state keeps what it knows, see `keep_newer`. One that has just started
        # knows only that others do.
        is_new = before.site.source != "store" or (before.taken_back and before.revision <= self.last)
        taken_back = is_new and self.ahead
        return Flags(
            site=close(site) if taken_back else site,
            scopes=scopes,
            revision=self.last,
            token=None if taken_back else self.token,
            clock=None if self.now is None else StoreClock(self.now, sent, received),
            drains=frozenset(drains),
            taken_back=taken_back,
        )


def close(site: Snapshot) -> Snapshot:
    """The site's flag switched on, because a newer state that is unknown may have been on."""
    return replace(
        site,
        enabled=True,
        mode="full",
        message=None,
        messages=None,
        starts=None,
        until=None,
        auto_off=False,
        retry_after=None,
        secret=None,
    )


def _read_scopes(rows: tuple[Row, ...], *, read_at: float) -> tuple[dict[str, Snapshot], tuple[str, ...]]:
    """The flags of scopes. A row that is wrong must not keep the others from being followed."""
    found, problems = {}, []
    for row in rows:
        try:
            flag = row.snapshot(read_at=read_at)
        except FlagError as exc:
            problems.append(str(exc))
            continue
        if row.scope is not None:
            found[row.scope] = flag
    return found, tuple(problems)

"""A pure judgement over one reading of the fleet: which processes provably follow a flip, and which do not."""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from maintenance.base.flags import CLOCK_RATE, NEVER, Reading, StoreClock, evaluate
from maintenance.base.instances import Fleet, Instance
from maintenance.base.quoting import quote
from maintenance.base.values import Mode, Row, Snapshot
from maintenance.errors import FlagError

LEAST_SILENCE: Final = 1
"""The fewest seconds of silence after which an instance may be presumed dead."""


def lease_end(ttl: float) -> float:
    """Seconds after which a lease has run out, whatever the rates of the two clocks are.

    The holder's clock shows at most `ttl`, which is at most ``ttl / (1 - r)`` of true time, in which the waiter's
    clock shows at most ``(1 + r)`` times as much.
    """
    return ttl * (1 + CLOCK_RATE) / (1 - CLOCK_RATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The claim to prove.

    Attributes:
        revision: Of the flag.
        enabled: Whether that flag is on, or is to begin at `starts`.
        scope: Which flag; None for the site's.
        starts: When it begins, by the store's clock; None if it has begun with its write.
        mode: What it refuses.
        drain: Whether requests that it refuses must have ended.
        expect: How many instances there must be at least of each service; ``""`` stands for all.
        presume_dead: Seconds of silence after which the operator presumes that an instance is dead.
        is_gone: Whether an instance's process has provably ended.
    """

    revision: int
    enabled: bool
    scope: str | None = None
    starts: dt.datetime | None = None
    mode: Mode = "full"
    drain: bool = False
    expect: Mapping[str, int] = field(default_factory=dict)
    presume_dead: float | None = None
    is_gone: Callable[[Instance], bool] = lambda _: False

    def __post_init__(self) -> None:
        """Refuse a number that would prove nothing, or anything.

        Raises:
            TypeError, ValueError: `expect` or `presume_dead` is wrong.
        """
        if not isinstance(self.drain, bool):
            raise TypeError(f"drain is {quote(self.drain)}: use True or False")
        if self.drain and not self.enabled:
            raise ValueError("drain is True and the flag is off, which refuses nothing: use drain=False")
        check_number("presume_dead", self.presume_dead, least=LEAST_SILENCE)


def read_expect(value: object) -> Mapping[str, int]:
    """How many instances there must be: of all services as an int, or of each service as a mapping.

    Raises:
        TypeError, ValueError: It is something else.
    """
    wanted = {"": value} if isinstance(value, int) else {} if value is None else value
    if not isinstance(wanted, Mapping) or not all(isinstance(name, str) for name in wanted):
        raise TypeError(f"expect is {quote(value)}: use a number, or a number by service such as {{'web': 24}}")
    for number in wanted.values():
        if not isinstance(number, int):
            raise TypeError(f"expect is {quote(value)}: use whole numbers of instances")
        check_number("expect", number, least=0)
    return wanted


def check_number(name: str, value: object, *, least: int) -> None:
    """Refuse what is not a number of at least `least`, or None.

    Raises:
        TypeError, ValueError: It is something else.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {quote(value)}: use a number, or None")
    if not value >= least:  # a NaN fails it too
        raise ValueError(f"{name} is {quote(value)}: use {least} or more, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far a fleet has followed a flip. True if it is proven.

    Attributes:
        proven: Whether every instance has provably followed.
        revision: Of the flag.
        confirmed: Instances that have acknowledged it, and drained if that was asked for.
        fenced: Instances under ``block`` that are silent, and whose lease has certainly run out.
        gone: Instances whose process has ended, on this host. Their rows are removed. `Prover.run` collects them over
            the whole wait.
        presumed: Instances that the operator presumes dead.
        laggards: Those that cannot be accounted for, and why.
        in_flight: Requests in flight that the flag refuses, as last reported.
        problem: Any other obstacle.
        final: True if waiting longer cannot help.
        elapsed: Seconds since the wait began.
        limit: Seconds after which the wait gives up; None in a judgement outside of a wait.
    """

    proven: bool
    revision: int
    confirmed: tuple[Instance, ...] = ()
    fenced: tuple[Instance, ...] = ()
    gone: tuple[Instance, ...] = ()
    presumed: tuple[Instance, ...] = ()
    laggards: tuple[tuple[Instance, str], ...] = ()
    in_flight: int = 0
    problem: str | None = None
    final: bool = False
    elapsed: float = 0.0
    limit: float | None = None

    def __bool__(self) -> bool:
        """Whether it is proven."""
        return self.proven


Progress = Callable[[Proof], object]


def judge(fleet: Fleet, question: Question, *, elapsed: float) -> Proof:
    """Judge one reading of the fleet.

    Args:
        fleet: The flag and the instances, read in one statement that was sent `elapsed` seconds after the commit
            had returned, or later.
        question: The claim to prove.
        elapsed: Seconds.
    """
    sorted_out: dict[str, list[Instance]] = {"confirmed": [], "gone": [], "presumed": [], "fenced": []}
    laggards = []
    for instance in fleet.instances:
        verdict, why = _account(instance, fleet.reading, question, elapsed)
        if why:
            laggards.append((instance, why))
        else:
            sorted_out[verdict].append(instance)
    # Once the table was emptied, only confirmed processes count. A silent row may belong to one that has restarted.
    dead = {instance.id for instance in (*sorted_out["gone"], *sorted_out["presumed"])}
    alive = [instance for instance in fleet.instances if instance.id not in dead]
    present = alive if fleet.intact else sorted_out["confirmed"]
    final, problem = _obstacle(fleet, question, present, elapsed)
    return Proof(
        proven=not laggards and problem is None,
        revision=question.revision,
        laggards=tuple(laggards),
        in_flight=sum(_count(instance, question.scope) or 0 for instance in fleet.instances),
        problem=problem,
        final=final,
        elapsed=elapsed,
        confirmed=tuple(sorted_out["confirmed"]),
        fenced=tuple(sorted_out["fenced"]),
        gone=tuple(sorted_out["gone"]),
        presumed=tuple(sorted_out["presumed"]),
    )


def _account(instance: Instance, reading: Reading, question: Question, elapsed: float) -> tuple[str, str]:
    """How an instance is accounted for, or why it is not."""
    if instance.problem:
        return "", f"its row cannot be trusted: {instance.problem}. Remove it: maintenance forget {instance.id}"
    why = _missing(instance, reading, question, elapsed)
    if not why:
        return "confirmed", ""
    if question.is_gone(instance):
        return "gone", ""
    dead = question.presume_dead is not None and instance.silent_for >= question.presume_dead
    if (left := lease_end(instance.ttl) - elapsed) > 0:
        return "", f"{why}; it counts as dead in {left:.1f} s, when its lease is over" if dead else why
    # Requests in flight in a silent process are unknown, so a lease ends admissions and proves no drain. A lease does
    # not open a process either that has not read that the flag is off.
    if instance.when_stale == "block" and question.enabled and not question.drain:
        return "fenced", ""
    # Only after its lease: a live process is silent between two heartbeats, and would have reported by then.
    return ("presumed", "") if dead else ("", why)


def _missing(instance: Instance, reading: Reading, question: Question, elapsed: float) -> str:
    """What an instance has not reported yet; empty if it has reported all that is asked."""
    if why := _find_lag(instance, reading, question):
        return f"{why}. {_effect(instance, elapsed)}" if question.enabled else why
    count = _count(instance, question.scope)
    if not question.drain or count == 0:
        return ""
    if instance.in_flight is None:
        return "does not count its requests in flight (in_flight=False)"
    if count is None:
        return "has not reported yet what it has in flight there"
    oldest = f", the oldest is {instance.oldest} for {instance.oldest_for:.1f} s" if instance.oldest else ""
    plural = "" if count == 1 else "s"
    return f"{count} request{plural} in flight{oldest if question.scope is None else ''}"


def _find_lag(instance: Instance, reading: Reading, question: Question) -> str:
    """Why an instance's last report does not show that it follows the flag."""
    last = reading.last if isinstance(reading.last, int) else question.revision
    if instance.revision is not None and instance.revision > last:
        return f"follows revision {instance.revision}, and the database, which was taken back, has only {last}"
    if instance.revision is None or instance.revision < question.revision:
        seen = "none" if instance.revision is None else str(instance.revision)
        return f"no reply since the flip (last confirmed revision: {seen}, now {question.revision})"
    # A report from before the start counts other requests. One that follows the written value is from after it.
    row = find_row(reading, question.scope)
    if question.drain and question.starts is not None and row is not None and row.value_bool is False:
        return "no process has written yet that it has begun"
    return ""


def _count(instance: Instance, scope: str | None) -> int | None:
    """The requests in flight that a flag refuses; None if they are not reported."""
    return instance.in_flight if scope is None else instance.drains.get(scope)


def find_row(reading: Reading, scope: str | None) -> Row | None:
    """The row of a flag."""
    if scope is None:
        return reading.row
    return next((row for row in reading.scopes or () if row.scope == scope), None)


def _effect(instance: Instance, elapsed: float) -> str:
    """Whether an instance that does not reply may still serve."""
    if instance.when_stale == "serve":
        return "It may still be serving visitors"
    if elapsed < lease_end(instance.ttl):
        return "It may still be serving visitors until its lease runs out"
    return "Its lease has run out, so it admits no requests, but some may still be running"


def _obstacle(fleet: Fleet, question: Question, present: list[Instance], elapsed: float) -> tuple[bool, str | None]:
    """The obstacle to any proof, as (whether for good, what)."""
    if not fleet.reading.primary:
        return False, "connect to the primary: a standby answered"
    if (obstacle := _find_change(fleet.reading, question)) is not None:
        return obstacle
    if (shortage := _find_shortage(fleet, question, present)) is not None:
        return False, shortage
    if fleet.intact:
        return False, None
    if not question.expect:
        return False, "pass --expect N: the table of instances was emptied, so it may not list every process"
    longest = max((lease_end(instance.ttl) for instance in fleet.instances), default=0.0)
    waiting = elapsed < longest
    return False, "the table of instances was emptied: waiting for the longest lease to end" if waiting else None


def _find_change(reading: Reading, question: Question) -> tuple[bool, str] | None:
    """Whether the flag is another one than the question is about, or has not begun yet."""
    row, flag = find_row(reading, question.scope), read_flag(reading, question.scope)
    if row is None or flag is None or row.revision != question.revision:
        return True, f"the flag has changed since revision {question.revision}: {_describe(row)}"
    on, left = hold(flag, reading.now)
    if on is question.enabled:
        return None
    if question.enabled and left is not None:
        return False, f"it begins in {left:.0f} s, at {flag.starts}"
    now = "it has reached its end" if row.value_bool is True and question.enabled else _describe(row)
    return True, f"the flag has changed since revision {question.revision}: {now}"


def read_flag(reading: Reading, scope: str | None) -> Snapshot | None:
    """A flag as stored; None if its row is missing or wrong."""
    row = find_row(reading, scope)
    try:
        return None if row is None else row.snapshot(read_at=0.0)
    except FlagError:
        return None


def hold(flag: Snapshot, now: dt.datetime | None) -> tuple[bool, float | None]:
    """Whether a flag is on by the store's clock, and the seconds until its start if that is ahead."""
    if now is None:
        return flag.enabled, None
    enabled, until = evaluate(flag, StoreClock(now, 0.0, 0.0), 0.0)
    begins = None if enabled or until == NEVER else flag.starts
    return enabled, None if begins is None else (begins - now).total_seconds()


def _find_shortage(fleet: Fleet, question: Question, present: list[Instance]) -> str | None:
    for service, wanted in question.expect.items():
        found = sum(service in ("", instance.service) for instance in present)
        if found < wanted:
            kind = f" of the service {service}" if service else ""
            joining = (
                "are registered. A process registers when it starts (ASGI with lifespan) or on its first request: "
                "send one, for example to /health, or check that all workers are running"
            )
            have = joining if fleet.intact else "have confirmed since the table of instances was emptied"
            return f"{found} of {wanted} expected processes{kind} {have}"
    return None


def _describe(row: Row | None) -> str:
    if row is None:
        return "its row is gone"
    word = {True: "on", False: "off"}.get(row.value_bool, "neither on nor off")  # type: ignore[call-overload]
    by = row.details.get("actor") if isinstance(row.details, Mapping) else None
    return f"it is {word} at revision {row.revision}{f', by {by:.100}' if isinstance(by, str) else ''}"

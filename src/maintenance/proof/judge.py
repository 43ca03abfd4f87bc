"""A pure judgement over one reading of the fleet: which processes provably follow a flip, and which do not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from maintenance.base.quoting import quote
from maintenance.base.values import Fleet, Instance, Row

CLOCK_RATE: Final = 0.01
"""How much faster or slower than true time a clock may run. NTP slews at most 0.05 %. Crystals drift far less."""

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
        enabled: Whether that flag is on.
        drain: Whether requests that it refuses must have ended.
        expect: How many instances there must be at least.
        presume_dead: Seconds of silence after which the operator presumes that an instance is dead.
        is_gone: Whether an instance's process has provably ended.
    """

    revision: int
    enabled: bool
    drain: bool = False
    expect: int | None = None
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
        if self.expect is not None and not isinstance(self.expect, int):
            raise TypeError(f"expect is {quote(self.expect)}: use the number of instances, as an int, or None")
        check_number("expect", self.expect, least=0)
        check_number("presume_dead", self.presume_dead, least=LEAST_SILENCE)


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
        verdict, why = _account(instance, question, elapsed)
        if why:
            laggards.append((instance, why))
        else:
            sorted_out[verdict].append(instance)
    # Once the table was emptied, only confirmed processes count. A silent row may belong to one that has restarted.
    dead = len(sorted_out["gone"]) + len(sorted_out["presumed"])
    present = len(fleet.instances) - dead if fleet.intact else len(sorted_out["confirmed"])
    final, problem = _obstacle(fleet, question, present, elapsed)
    return Proof(
        proven=not laggards and problem is None,
        revision=question.revision,
        laggards=tuple(laggards),
        in_flight=sum(instance.in_flight or 0 for instance in fleet.instances),
        problem=problem,
        final=final,
        elapsed=elapsed,
        **{verdict: tuple(instances) for verdict, instances in sorted_out.items()},
    )


def _account(instance: Instance, question: Question, elapsed: float) -> tuple[str, str]:
    """How an instance is accounted for, or why it is not."""
    if instance.problem:
        return "", f"its row cannot be trusted: {instance.problem}. Remove it: maintenance forget {instance.id}"
    why = _missing(instance, question, elapsed)
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


def _missing(instance: Instance, question: Question, elapsed: float) -> str:
    """What an instance has not reported yet; empty if it has reported all that is asked."""
    # Equal, not at least: a restored backup starts again with lower revisions.
    if instance.revision != question.revision:
        last = "none" if instance.revision is None else str(instance.revision)
        effect = f". {_effect(instance, elapsed)}" if question.enabled else ""
        return f"no reply since the flip (last confirmed revision: {last}, now {question.revision}){effect}"
    if not question.drain or instance.in_flight == 0:
        return ""
    if instance.in_flight is None:
        return "does not count its requests in flight (in_flight=False)"
    oldest = f", the oldest is {instance.oldest} for {instance.oldest_for:.1f} s" if instance.oldest else ""
    plural = "" if instance.in_flight == 1 else "s"
    return f"{instance.in_flight} request{plural} in flight{oldest}"


def _effect(instance: Instance, elapsed: float) -> str:
    """Whether an instance that does not reply may still serve."""
    if instance.when_stale == "serve":
        return "It may still be serving visitors"
    if elapsed < lease_end(instance.ttl):
        return "It may still be serving visitors until its lease runs out"
    return "Its lease has run out, so it admits no requests, but some may still be running"


def _obstacle(fleet: Fleet, question: Question, present: int, elapsed: float) -> tuple[bool, str | None]:
    """The obstacle to any proof, as (whether for good, what)."""
    if not fleet.reading.primary:
        return False, "connect to the primary: a standby answered"
    row = fleet.reading.row
    if row is None or row.revision != question.revision or row.value_bool is not question.enabled:
        return True, f"the flag has changed since revision {question.revision}: {_describe(row)}"
    if question.expect is not None and present < question.expect:
        joining = (
            "are registered. A process registers when it starts (ASGI with lifespan) or on its first request: "
            "send one, for example to /health, or check that all workers are running"
        )
        have = joining if fleet.intact else "have confirmed since the table of instances was emptied"
        return False, f"{present} of {question.expect} expected processes {have}"
    if fleet.intact:
        return False, None
    if question.expect is None:
        return False, "pass --expect N: the table of instances was emptied, so it may not list every process"
    longest = max((lease_end(instance.ttl) for instance in fleet.instances), default=0.0)
    waiting = elapsed < longest
    return False, "the table of instances was emptied: waiting for the longest lease to end" if waiting else None


def _describe(row: Row | None) -> str:
    if row is None:
        return "its row is gone"
    word = {True: "on", False: "off"}.get(row.value_bool, "neither on nor off")  # type: ignore[call-overload]
    by = row.details.get("actor") if isinstance(row.details, Mapping) else None
    return f"it is {word} at revision {row.revision}{f', by {by:.100}' if isinstance(by, str) else ''}"

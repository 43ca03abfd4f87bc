"""The proof that a whole fleet has stopped: a pure judgement over one reading, and the loop that repeats it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from maintenance.errors import RegistrationError, StoreError
from maintenance.model import SENTINEL, Fleet, Instance, Row
from maintenance.runtime import Runtime
from maintenance.stores import Session, Store

CLOCK_RATE: Final = 0.01
"""How much faster or slower than true time a clock may run. NTP slews at most 0.05 %; crystals drift far less."""

MARGIN: Final = 5.0
"""Seconds of the default time-out above the longest lease."""

DRAIN_MARGIN: Final = 30.0
"""Seconds of the default time-out for requests to end: as long as gunicorn lets one run."""

PAUSE: Final = 0.0004
"""Seconds between two looks, for each laggard: while a whole fleet is busy following, looks only slow it down."""

PAUSE_GROWTH: Final = 0.01
"""Seconds between two looks, for each second of the wait: a long one costs little, and ends at most 1 % late."""

LATE: Final = 0.001
"""Seconds by which a look follows the end of a lease, so that it never comes a moment too early."""

LEAST_SILENCE: Final = 1
"""Seconds of silence below which no instance is presumed dead."""

_HANG: Final = 5.0
"""Seconds after which a look that hangs is given up."""

_LEAST: Final = 1.0
"""Seconds that even the last look has, so that a time-out of 0 allows one honest look."""


def lease_end(ttl: float) -> float:
    """Seconds after which a lease has run out, whatever the rates of the two clocks.

    The holder's clock shows at most `ttl`, which is at most ``ttl / (1 - r)`` of true time, in which the waiter's
    clock shows at most ``(1 + r)`` times as much.
    """
    return ttl * (1 + CLOCK_RATE) / (1 - CLOCK_RATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be proven.

    Attributes:
        revision: Of the flag.
        enabled: Whether that flag is on.
        drain: Whether nothing that it refuses may be in flight any more.
        expect: How many instances there must be at least.
        presume_dead: Seconds of silence after which the operator takes an instance for dead.
        is_gone: Whether an instance's process has provably ended.
    """

    revision: int
    enabled: bool
    drain: bool = False
    expect: int | None = None
    presume_dead: float | None = None
    is_gone: Callable[[Instance], bool] = lambda _: False

    def __post_init__(self) -> None:
        """Refuse a number that would prove nothing, or everything.

        Raises:
            TypeError, ValueError: `expect` or `presume_dead` is wrong.
        """
        if self.expect is not None and not isinstance(self.expect, int):
            raise TypeError(f"expect is {self.expect!r}: write how many instances, as an int, or None")
        _check_number("expect", self.expect, least=0)
        _check_number("presume_dead", self.presume_dead, least=LEAST_SILENCE)


def _check_number(name: str, value: object, *, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}: write a number, or None")
    if not value >= least:  # which a NaN is not either
        raise ValueError(f"{name} is {value!r}: write {least} or more, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far a fleet has followed a flip. True where it is proven.

    Attributes:
        proven: Whether every instance has provably followed.
        revision: Of the flag.
        confirmed: Instances that have acknowledged it, and drained where that was asked for.
        fenced: Instances under ``block`` that are silent, and whose lease has certainly run out.
        gone: Instances whose process has ended, on this host; their rows are removed. In what `Prover.run` tells, all
            since the wait began.
        presumed: Instances taken for dead on the operator's word.
        laggards: Those that cannot be accounted for, and why.
        in_flight: Requests in flight that the flag refuses, as last reported.
        problem: What stands in the way beside the laggards.
        final: Whether waiting longer cannot help.
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
        question: What is to be proven.
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
    # Once the table was emptied, only who has confirmed since counts: a silent row may be of a process that restarted.
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
    why = _missing(instance, question, elapsed)
    if not why:
        return "confirmed", ""
    if question.is_gone(instance):
        return "gone", ""
    dead = question.presume_dead is not None and instance.silent_for >= question.presume_dead
    if (left := lease_end(instance.ttl) - elapsed) > 0:
        return "", f"{why}; it counts as dead once its lease is over, in {left:.1f} s" if dead else why
    # What is in flight in a silent process is unknown, so a lease ends admissions and proves no drain. Nor does it
    # bring a process back that has not heard that the flag is off.
    if instance.when_stale == "block" and question.enabled and not question.drain:
        return "fenced", ""
    # Only after its lease: a process that lives is silent between two heartbeats, and has had time to speak by then.
    return ("presumed", "") if dead else ("", why)


def _missing(instance: Instance, question: Question, elapsed: float) -> str:
    """What an instance has not said yet; empty where it has said all that is asked."""
    # Equal, not at least: a restored backup counts its revisions anew.
    if instance.revision != question.revision:
        last = "nothing yet" if instance.revision is None else f"revision {instance.revision}"
        meanwhile = f"; {_meanwhile(instance, elapsed)}" if question.enabled else ""
        return f"has acknowledged {last}, not revision {question.revision}{meanwhile}"
    if not question.drain or instance.in_flight == 0:
        return ""
    if instance.in_flight is None:
        return "does not track its requests in flight"
    oldest = f", the oldest {instance.oldest} for {instance.oldest_for:.1f} s" if instance.oldest else ""
    return f"has {instance.in_flight} in flight{oldest}"


def _meanwhile(instance: Instance, elapsed: float) -> str:
    """Whether an instance that has not heard that the flag is on may go on."""
    if instance.when_stale == "serve":
        return "it serves when stale"
    if elapsed < lease_end(instance.ttl):
        return "its lease has not run out"
    return "its lease has run out, so it admits nothing; what is in flight there is unknown"


def _obstacle(fleet: Fleet, question: Question, present: int, elapsed: float) -> tuple[bool, str | None]:
    """What stands in the way of any proof, as (whether for good, what)."""
    if not fleet.reading.primary:
        return False, "a standby answered: connect to the primary"
    row = fleet.reading.row
    if row is None or row.revision != question.revision or row.value_bool is not question.enabled:
        return True, f"the flag has changed since revision {question.revision}: {_as_it_is(row)}"
    if question.expect is not None and present < question.expect:
        joining = "are registered: each joins when it starts up (ASGI with lifespan), or with its first request"
        have = joining if fleet.intact else "have confirmed since the table of instances was emptied"
        return False, f"{present} of {question.expect} expected instances {have}"
    if fleet.intact:
        return False, None
    if question.expect is None:
        return False, "the table of instances was emptied, so who was in it is unknown: say how many with --expect N"
    longest = max((lease_end(instance.ttl) for instance in fleet.instances), default=0.0)
    waiting = elapsed < longest
    return False, "the table of instances was emptied: the longest lease is waited for" if waiting else None


def _as_it_is(row: Row | None) -> str:
    if row is None:
        return "its row is gone"
    said = {True: "on", False: "off"}.get(row.value_bool, "neither on nor off")  # type: ignore[call-overload]
    by = row.details.get("actor") if isinstance(row.details, Mapping) else None
    return f"it is {said} at revision {row.revision}{f', by {by:.100}' if isinstance(by, str) else ''}"


def _mark_whole(session: Session) -> None:
    """Trust the table of instances again, on the operator's word, which is how many there are."""
    try:
        session.report(SENTINEL)
    except RegistrationError as exc:
        raise StoreError(f"the table of instances cannot be marked as whole again: {exc}") from exc


class Prover:
    """Asks again and again, over one connection, until it is proven or the time is over."""

    def __init__(self, store: Store, question: Question, *, runtime: Runtime) -> None:
        """Start counting: call this after the commit has returned."""
        self._store, self._question, self._runtime = store, question, runtime
        self._started = runtime.clock()
        self._session: Session | None = None
        self._asked = False
        self._proof = Proof(proven=False, revision=question.revision)
        self._gone: dict[str, Instance] = {}
        self._longest = 0.0

    def run(self, *, timeout: float | None, progress: Progress) -> Proof:
        """Wait.

        Args:
            timeout: Seconds; None for a time above the longest lease.
            progress: Called with each new judgement.

        Returns:
            The last judgement.

        Raises:
            TypeError, ValueError: `timeout` is wrong.
        """
        _check_number("timeout", timeout, least=0)
        try:
            while True:
                self._look(self._limit(timeout) - self._elapsed())
                progress(self._proof)
                elapsed = self._elapsed()
                if self._proof.proven or self._proof.final or elapsed >= self._limit(timeout):
                    return replace(self._proof, elapsed=elapsed)
                self._runtime.sleep(self._pause(elapsed))
        finally:
            self._drop()

    def _elapsed(self) -> float:
        return self._runtime.clock() - self._started

    def _pause(self, elapsed: float) -> float:
        """Seconds until the next look; it is not missed when a lease runs out."""
        laggards = [instance for instance, _ in self._proof.laggards]
        pause = min(max(PAUSE * len(laggards), PAUSE_GROWTH * elapsed, 0.01), 0.5)
        ends = (lease_end(instance.ttl) + LATE - elapsed for instance in laggards)
        return min([pause, *(end for end in ends if end > LATE)])

    def _limit(self, timeout: float | None) -> float:
        if timeout is not None:
            return timeout
        return lease_end(self._longest) + MARGIN + (DRAIN_MARGIN if self._question.drain else 0.0)

    def _look(self, left: float) -> None:
        try:
            self._session = self._session or self._store.connect()
            with self._session.within(min(_HANG, max(left, _LEAST))):
                proof = self._read(self._session)
        except StoreError as exc:
            self._drop()
            proof = replace(self._proof, problem=str(exc), elapsed=self._elapsed())
        self._proof = proof

    def _read(self, session: Session) -> Proof:
        if self._question.drain and not self._asked:
            session.ask_drain(self._question.revision)
            self._asked = True
        # Before it is sent: a lease must have run out by the time that the flag is read again.
        elapsed = self._elapsed()
        fleet = session.fleet()
        self._longest = max((instance.ttl for instance in fleet.instances), default=self._longest)
        proof = judge(fleet, self._question, elapsed=elapsed)
        present = {instance.id for instance in fleet.instances}
        # What is removed here is not found by the next look; what is found there has come back.
        self._gone = {key: it for key, it in self._gone.items() if key not in present}
        self._gone |= {it.id: it for it in proof.gone}
        for instance in proof.gone:
            session.remove(instance.id)
        if proof.proven and not fleet.intact:
            _mark_whole(session)
        return replace(proof, gone=tuple(self._gone.values()))

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

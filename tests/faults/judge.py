"""What is wrong with the answers of one process. It decides from what was measured, and touches nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from tests.faults.fault import Effect

LONGEST_WAIT: Final = 1.0
LONGEST_GAP: Final = 0.05
SLACK: Final = 0.3
"""Seconds that a busy machine may add to a wait for another thread."""

SHORT: Final = 0.1 + SLACK
"""Seconds that all requests but one may wait."""

RECOVERY: Final = 2.0
"""Seconds, in addition to the TTL, until a process has noticed that a fault is over."""

Span = tuple[float, float]
Story = Literal["during", "after"]


class Seen(NamedTuple):
    """One answer: 200, 503, or `unknown` for the 503 of a process that does not know the flag.

    The first request of a process, such as a forked one, waits for the first read.
    """

    sent: float
    done: float
    status: str
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What happened when: each span is the time that the act took."""

    begin: Span
    flip: Span
    end: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One process and one fault."""

    effect: Effect
    when_stale: str
    on: bool
    ttl: float
    times: Times
    seen: Sequence[Seen]
    loop_gaps: Sequence[Span] = ()
    thread_gaps: Sequence[Span] = ()
    lines: Sequence[tuple[float, str]] = ()

    @property
    def blocks(self) -> bool:
        """Whether requests are refused because nobody knows the flag."""
        return self.when_stale == "block" and self.effect in (Effect.CUT, Effect.LEARNS)

    @property
    def follows(self) -> bool:
        """Whether a flip reaches the process during the fault."""
        return self.effect is Effect.FOLLOWS or (self.effect is Effect.LEARNS and self.when_stale == "serve")

    def count(self, words: str) -> int:
        return sum(words in line for when, line in self.lines if when > self.times.begin[0])

    @property
    def other_lines(self) -> list[str]:
        words = ("cannot read the flag", "fresh again")
        return [line for when, line in self.lines if when > self.times.begin[0] and not any(it in line for it in words)]

    @property
    def truth_seen(self) -> float:
        """From when on each answer shows the value after the flip; infinity if none does."""
        new = "200" if self.on else "503"
        wrong = max((one.sent for one in self.seen if one.status != new), default=float("-inf"))
        return min((one.done for one in self.seen if one.sent > max(wrong, self.times.flip[0])), default=float("inf"))

    @property
    def delay(self) -> float:
        """Seconds from the flip, or from the end of the fault if that comes later, until the truth is seen."""
        times = self.times
        if self.truth_seen < times.end[0] or times.flip[0] > times.end[0]:
            return self.truth_seen - times.flip[1]
        return self.truth_seen - times.end[1]

    @property
    def during(self) -> list[str]:
        """The different answers between the begin of the fault and the flip, in order."""
        until = min(self.times.flip[0], self.times.end[0])
        span = sorted(one for one in self.seen if one.sent >= self.times.begin[0] and one.done < until)
        # A message that is lost with the details makes no difference to what the process knows.
        return list(dict.fromkeys(one.status if self.blocks or one.status != "unknown" else "503" for one in span))

    @property
    def waits(self) -> list[float]:
        """How long each request took since the begin, without the time in which the process got no processor."""
        return [
            one.done - one.sent - _overlap((one.sent, one.done), self.thread_gaps)
            for one in self.seen
            if one.done > self.times.begin[0] and not one.first
        ]

    @property
    def stall(self) -> float:
        """For how long the whole process got no processor at most."""
        return max((end - start for start, end in self.thread_gaps if self._is_after((start, end))), default=0.0)

    @property
    def gap(self) -> float:
        """For how long the event loop stood still while other threads of the process went on."""
        late = [gap[1] - gap[0] - _overlap(gap, self.thread_gaps) for gap in self.loop_gaps if self._is_after(gap)]
        return max(late, default=0.0)

    def _is_after(self, gap: Span) -> bool:
        return gap[1] > self.times.begin[0]


def _overlap(span: Span, gaps: Iterable[Span]) -> float:
    return sum(max(0.0, min(span[1], end) - max(span[0], start)) for start, end in gaps)


def judge(trial: Trial) -> list[str]:
    """Return each promise that the process broke."""
    return [*_wrong_answers(trial), *_late(trial), *_waits(trial), *_lines(trial)]


def _wrong_answers(trial: Trial) -> Iterator[str]:
    wrong = [(one, why) for one in trial.seen if (why := _wrong(trial, one))]
    if wrong:
        one, why = wrong[0]
        yield f"{len(wrong)} answers: {one.status} {one.sent - trial.times.begin[0]:+.2f} s after the begin, {why}"


def _wrong(trial: Trial, one: Seen) -> str | None:
    times, lease = trial.times, trial.ttl + SLACK
    if one.status not in ("200", "503", "unknown"):
        return "which is no answer"
    if one.done < times.flip[0]:
        return _wrong_before(trial, one)
    if trial.on or one.status != "200":
        return None  # `_late` judges what comes too late
    is_known = trial.when_stale == "block" and one.sent > times.flip[1] + lease
    return "although it was on for longer than the lease" if is_known else None


def _wrong_before(trial: Trial, one: Seen) -> str | None:
    began, lease = trial.times.begin, trial.ttl + SLACK
    if trial.on:
        return "although it is on" if one.status == "200" else None
    if one.status != "200":
        may_block = trial.when_stale == "block" and trial.effect is not Effect.FOLLOWS
        # A steady read comes at half of the lease at the latest, so that much of it is left.
        is_over = one.done > began[0] + 0.4 * trial.ttl
        return None if may_block and is_over else "although it is off"
    is_down = trial.blocks and began[1] + lease < one.sent and one.done < trial.times.end[0]
    return "although the lease is over" if is_down else None


def _late(trial: Trial) -> Iterator[str]:
    times = trial.times
    known_at = times.flip[1] if trial.follows else max(times.flip[1], times.end[1])
    late = trial.truth_seen - known_at
    if late > trial.ttl + (SLACK if trial.follows else RECOVERY):
        yield f"the truth was seen after {late:.2f} s"


def _waits(trial: Trial) -> Iterator[str]:
    waits = trial.waits
    if (longest := max(waits, default=0.0)) > LONGEST_WAIT + SLACK:
        yield f"a request waited for {longest:.2f} s"
    if (waited := sum(wait > SHORT for wait in waits)) > 1:
        yield f"{waited} requests waited for more than {SHORT:.1f} s"
    if trial.gap > LONGEST_GAP:
        yield f"the event loop stood still for {trial.gap * 1000:.0f} ms"


def _lines(trial: Trial) -> Iterator[str]:
    counts = trial.count("cannot read the flag"), trial.count("fresh again")
    least = 1 if trial.effect in (Effect.CUT, Effect.LEARNS) else 0
    most = 0 if trial.effect is Effect.FOLLOWS else 1
    # A process that gets no processor for a part of its lease may miss a read.
    most += sum(end - start > trial.ttl / 5 for start, end in trial.thread_gaps if end > trial.times.begin[0])
    if counts[0] != counts[1] or not least <= counts[0] <= most:
        yield f"{counts[0]} lines that the flag cannot be read, {counts[1]} that it is fresh again"

"""Runs one fault over real processes, and returns one row for each of them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.fault import Case, Fault, Lab, Place
from tests.faults.judge import Seen, Span, Times, Trial, judge
from tests.support.postgres import server
from tests.support.servers import ROOT
from tests.support.waiting import eventually

TTL: Final = 1.0
LASTS: Final = 3 * TTL
SLOTS: Final = 30
"""Connections for roles that are no superusers."""

SETTINGS: Final = {
    "max_connections": f"{SLOTS + 10}",
    "superuser_reserved_connections": "10",
    "synchronous_commit": "on",
}
"""Few connections, so that they can all be taken. A flip that has returned survives a crash."""


class Process:
    """A member, and the way to talk to it."""

    def __init__(self, case: Case, when_stale: str, place: Place, *, ttl: float = TTL, keep: int | None = None) -> None:
        self.case, self.when_stale = case, when_stale
        options = {"url": case.url, "ttl": ttl, "when_stale": when_stale, "user": place.user, "keep": keep}
        self.popen = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.member", json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, **place.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, word: str) -> Any:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(f"{word}\n")
        self.popen.stdin.flush()
        return json.loads(self.popen.stdout.readline())

    def shows(self, status: str) -> bool:
        """Whether it is fresh, and its last answer was this one."""
        return self.tell("status") == ["fresh", status]

    def close(self) -> None:
        with self.popen:
            assert self.popen.stdin is not None
            self.popen.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(5)
            self.popen.kill()


@contextmanager
def lab() -> Iterator[Lab]:
    """What the faults share: one server."""
    with server(**SETTINGS) as shared:
        yield Lab(shared, shared._folder)


@contextmanager
def _crew(fault: Fault, place: Place) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        crew = []
        for case in place.cases:
            for when_stale in ("serve", "block"):
                one = Process(case, when_stale, place)
                stack.callback(one.close)
                crew.append(one)
        place.pids = [one.popen.pid for one in crew]
        place.tell = lambda word: [one.tell(word) for one in crew]
        for one in crew:
            eventually(lambda one=one: one.shows("503" if one.case.on else "200"), 15.0, what=f"{fault.name}: a start")
        yield crew


def run(fault: Fault, lab: Lab) -> list[dict[str, Any]]:
    """Run a fault, and return one row for each process."""
    with fault.place(lab) as place:
        place.cases = tuple(case for case in place.cases if case.on in fault.values)
        fault.prepare(place)
        with _crew(fault, place) as crew:
            moments = _Moments(fault, place)
            time.sleep(TTL / 2)
            moments.run()
            _wait_for_truth(crew)
            return [_row(fault, one, moments) for one in crew]


@dataclass(slots=True)
class _Moments:
    """The fault from its begin to its end, and when each part happened."""

    fault: Fault
    place: Place
    begin: Span = (0.0, 0.0)
    end: Span = (0.0, 0.0)
    ready: float = field(default_factory=time.monotonic)
    flips: tuple[tuple[bool, Span], ...] = ()

    def run(self) -> None:
        self.begin = _timed(lambda: self.fault.begin(self.place))
        began = self.begin[1]
        if self.fault.when == "during":
            time.sleep(max(0.0, began + LASTS / 2 - time.monotonic()))
            self.flip()
        time.sleep(max(0.0, began + LASTS - time.monotonic()))
        self.end = _timed(lambda: self.fault.end(self.place))
        if self.fault.when == "after":
            time.sleep(TTL / 10)
            self.flip()

    def flip(self) -> None:
        self.flips = tuple(
            (case.on, _timed(lambda case=case: self.fault.flip(case, on=not case.on))) for case in self.place.cases
        )


def _timed(act: Any) -> Span:
    began = time.monotonic()
    act()
    return began, time.monotonic()


def _wait_for_truth(crew: list[Process]) -> None:
    """Wait until each process shows the new value, but not for ever. What is late is judged."""
    limit = time.monotonic() + 10.0
    for one in crew:
        while not one.shows("200" if one.case.on else "503") and time.monotonic() < limit:
            time.sleep(0.02)
    time.sleep(0.2)


def _row(fault: Fault, one: Process, moments: _Moments) -> dict[str, Any]:
    report = one.tell("report")
    trial = Trial(
        effect=fault.effect,
        when_stale=one.when_stale,
        on=one.case.on,
        ttl=TTL,
        times=Times(begin=moments.begin, flip=dict(moments.flips)[one.case.on], end=moments.end),
        seen=[Seen(*seen) for seen in report["seen"] if seen[0] > moments.ready],
        loop_gaps=[(start, end) for start, end in report["loop_gaps"]],
        thread_gaps=[(start, end) for start, end in report["thread_gaps"]],
        lines=[(when, line) for when, line in report["lines"]],
    )
    return _describe(fault, trial)


def _describe(fault: Fault, trial: Trial) -> dict[str, Any]:
    return {
        "group": fault.group,
        "fault": fault.name,
        "when_stale": trial.when_stale,
        "flag": "on" if trial.on else "off",
        "answers": trial.during,
        "requests": len(trial.seen),
        "longest_wait_ms": round(max(trial.waits, default=0.0) * 1000),
        "loop_gap_ms": round(trial.gap * 1000),
        "stall_ms": round(trial.stall * 1000),
        "truth_seen": "during" if trial.truth_seen < trial.times.end[0] else "after",
        "truth_after_ms": round(min(max(trial.delay, 0.0), 60.0) * 1000),
        "lines": [trial.count("cannot read the flag"), trial.count("fresh again")],
        "other_lines": trial.other_lines,
        "broken": judge(trial),
    }

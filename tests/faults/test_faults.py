"""A few of the faults, the judge of all of them, and the table that `make faults` has saved."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.results import load
from tests.docs.pages import text
from tests.faults import judge as judge_module
from tests.faults.fault import Effect, Fault, Lab
from tests.faults.judge import Seen, Times, Trial, judge
from tests.faults.page import BEGIN, END, PAGE, render
from tests.faults.runner import lab as make_lab
from tests.faults.runner import run
from tests.faults.soak import grown, soak
from tests.faults.table import FAULTS


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with make_lab() as shared:
        yield shared


@pytest.mark.parametrize(
    "fault",
    [pytest.param(it, id=it.name, marks=[] if it.quick else [pytest.mark.all_faults]) for it in FAULTS],
)
def test_each_promise_holds(fault: Fault, lab: Lab) -> None:
    rows = run(fault, lab)
    assert len(rows) == 2 * len(fault.values)
    assert [(row["when_stale"], row["flag"], row["broken"]) for row in rows if row["broken"]] == []


def test_outages_leave_nothing_behind(lab: Lab) -> None:
    assert grown(soak(lab, 20)) == []


# The judge


def answers(*parts: tuple[float, float, str]) -> list[Seen]:
    """One answer each 0.05 s, for each (from, to, status)."""
    seen = []
    for start, end, status in parts:
        seen += [
            Seen(start + step * 0.05, start + step * 0.05 + 0.001, status) for step in range(round((end - start) * 20))
        ]
    return seen


STALE = "maintenance: cannot read the flag from the database"
FRESH = "maintenance: the flag is fresh again"
BLOCKS = Trial(
    effect=Effect.CUT,
    when_stale="block",
    on=False,
    ttl=1.0,
    times=Times(begin=(10.0, 10.0), flip=(13.1, 13.1), end=(13.0, 13.0)),
    seen=answers((9.0, 11.0, "200"), (11.0, 13.2, "unknown"), (13.2, 14.0, "503")),
    lines=[(11.0, STALE), (13.2, FRESH)],
)
SERVES = replace(BLOCKS, when_stale="serve", seen=answers((9.0, 13.2, "200"), (13.2, 14.0, "503")))


def test_the_judge_finds_nothing_wrong_with_a_good_process() -> None:
    assert judge(BLOCKS) == judge(SERVES) == []


@pytest.mark.parametrize(
    ("trial", "changed", "found"),
    [
        (SERVES, {"seen": answers((9.0, 13.2, "503"), (13.2, 14.0, "503"))}, "although it is off"),
        (SERVES, {"on": True, "seen": answers((9.0, 14.0, "200"))}, "although it is on"),
        (BLOCKS, {"seen": answers((9.0, 13.2, "200"), (13.2, 14.0, "503"))}, "although the lease is over"),
        (BLOCKS, {"seen": answers((9.0, 10.2, "200"), (10.2, 13.2, "unknown"), (13.2, 14.0, "503"))}, "it is off"),
        (
            BLOCKS,
            {"effect": Effect.FOLLOWS, "times": replace(BLOCKS.times, flip=(11.0, 11.0)), "lines": []},
            "the truth was seen after 2.2",
        ),
        (
            BLOCKS,
            {
                "times": replace(BLOCKS.times, flip=(10.5, 10.5)),
                "seen": answers((9.0, 12.0, "200"), (12.0, 14.0, "503")),
            },
            "for longer than the lease",
        ),
        (SERVES, {"seen": answers((9.0, 17.0, "200"), (17.0, 18.0, "503"))}, "the truth was seen after"),
        (SERVES, {"seen": answers((9.0, 18.0, "200"))}, "the truth was seen after inf"),
        (SERVES, {"seen": [*SERVES.seen, Seen(11.0, 12.5, "200")]}, "a request waited for 1.50 s"),
        (SERVES, {"seen": [*SERVES.seen, Seen(11.0, 11.9, "200"), Seen(11.1, 11.9, "200")]}, "2 requests waited"),
        (SERVES, {"seen": [*SERVES.seen, Seen(11.0, 11.1, "OSError()")]}, "which is no answer"),
        (SERVES, {"loop_gaps": [(11.0, 11.3)], "thread_gaps": [(11.0, 11.2)]}, "stood still for 100 ms"),
        (SERVES, {"lines": []}, "0 lines that the flag cannot be read"),
        (SERVES, {"lines": [*SERVES.lines, *SERVES.lines]}, "2 lines that the flag cannot be read"),
    ],
)
def test_the_judge_finds_each_broken_promise(trial: Trial, changed: dict[str, Any], found: str) -> None:
    broken = judge(replace(trial, **changed))
    assert any(found in line for line in broken), broken


# The page


def test_the_page_shows_the_saved_table() -> None:
    _, _, rest = text(PAGE).partition(BEGIN)
    shown, mark, _ = rest.partition(END)
    assert mark
    assert shown.strip() == render(load("faults"))


def test_the_saved_table_has_every_fault_and_no_broken_promise() -> None:
    rows = load("faults")["data"]["faults"]
    assert {(row["group"], row["fault"]) for row in rows} == {(fault.group, fault.name) for fault in FAULTS}
    assert [row for row in rows if row["broken"]] == []
    assert grown(load("faults")["data"]["soak"]) == []
    limits = {
        "longest_wait_ms": judge_module.LONGEST_WAIT + judge_module.SLACK,
        "loop_gap_ms": judge_module.LONGEST_GAP,
    }
    for name, limit in limits.items():
        assert max(row[name] for row in rows) <= limit * 1000

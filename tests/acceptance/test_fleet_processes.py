"""A few flips of a small fleet of real processes; ``make torture`` does a thousand of a large one."""

import sys

import pytest

from tests.torture.fleet import Process
from tests.torture.trial import Plan, Tally, Trial, trial

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a stopped process ends with its parent on Linux only")


@pytest.fixture(scope="module")
def running():
    with trial(processes=18, seed=1, ttls=(1.0,)) as started:
        yield started


def plan(**happens) -> Plan:
    nothing = {"when": "before", "frozen": [], "cut": [], "killed": [], "forked": [], "lingering": [], "drain": False}
    return Plan(**{**nothing, **happens})


def of(running: Trial, when_stale: str, count: int, *, relayed: bool = False) -> list[Process]:
    members = [one for one in running.fleet.members if one.when_stale == when_stale]
    return [one for one in members if bool(one.relay) is relayed][:count]


def holds(running: Trial, what: Plan) -> Tally:
    """What one flip adds to the tally, and that nothing is wrong with it."""
    before = running.tally
    running.tally = Tally()
    running.flip(what)
    made, running.tally = running.tally, before
    assert not made.violations
    # Or it would have shown nothing.
    assert made.admitted
    assert made.refused
    return made


def test_a_fleet_that_comes_and_goes_is_proven_by_acknowledgement(running: Trial) -> None:
    serving, blocking = of(running, "serve", 2), of(running, "block", 2)
    made = holds(running, plan(killed=[serving[0], blocking[0]], forked=[serving[1], blocking[1]]))
    assert made.outcomes.keys() == {"proven by acknowledgement"}
    assert made.faults == {"killed": 2, "forked": 2}


def test_a_drain_waits_for_the_handlers_that_are_still_running(running: Trial) -> None:
    made = holds(running, plan(lingering=[*of(running, "serve", 3), *of(running, "block", 3)], drain=True))
    assert made.outcomes.keys() == {"proven by acknowledgement"}


def test_frozen_and_cut_off_processes_that_block_are_fenced(running: Trial) -> None:
    [cut] = {one.relay for one in of(running, "block", 3, relayed=True)}
    made = holds(running, plan(frozen=of(running, "block", 3), cut=[cut]))
    assert made.outcomes.keys() == {"proven, some fenced"}
    assert made.instances["fenced"] == 6


@pytest.mark.parametrize("drain", [False, True])
def test_processes_that_serve_when_silent_are_named_and_prevent_the_proof(running: Trial, drain: bool) -> None:
    [cut] = {one.relay for one in of(running, "serve", 3, relayed=True)}
    made = holds(running, plan(frozen=of(running, "serve", 2), cut=[cut], drain=drain))
    assert made.outcomes == {"not proven: serve instance is silent": 1, "proven by acknowledgement": 1}
    assert made.instances["laggards"] == 5


def test_a_drain_is_not_proven_of_a_frozen_process_that_blocks(running: Trial) -> None:
    made = holds(running, plan(frozen=of(running, "block", 2), drain=True))
    assert made.outcomes == {"not proven: block instance is silent": 1, "proven by acknowledgement": 1}


def test_faults_in_the_middle_of_a_proof_make_it_no_less_true(running: Trial) -> None:
    serving, blocking = of(running, "serve", 5), of(running, "block", 5)
    cut = [one.relay for one in of(running, "block", 1, relayed=True) if one.relay]
    frozen, killed, forked = [serving[0], *blocking[:2]], [serving[1], blocking[3]], [serving[2], blocking[4]]
    holds(running, plan(when="during", frozen=frozen, cut=cut, killed=killed, forked=forked))

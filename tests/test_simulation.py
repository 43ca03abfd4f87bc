"""The real code in simulated time: a sample of what `make simulate` runs, and the bugs that it must catch."""

import pytest

from tests.simulation.planted import PLANTED, caught, violated
from tests.simulation.scenario import run

RUNS = 100
"""In ten samples, so that a failure says where."""


@pytest.mark.parametrize("tenth", range(10))
def test_whatever_happens_no_proof_is_wrong_and_everybody_follows_in_the_end(tenth):
    for seed in range(tenth * RUNS // 10, (tenth + 1) * RUNS // 10):
        outcome = run(seed)
        assert not outcome.violations, f"replay: python -m tests.simulate --seed {seed}\n{outcome.violations[0]}"


def test_a_fleet_of_200():
    outcome = run(7, size=200)
    assert not outcome.violations, "replay: python -m tests.simulate --seed 7 --size 200"
    assert outcome.counts["last flips"] == 2


def test_a_healthy_fleet_is_proven_and_drained_each_time():
    outcome = run(1, size=12, faults=frozenset(), when_stale="serve")
    assert not outcome.violations
    assert outcome.counts["on proven"] or outcome.counts["drain proven"]


@pytest.mark.parametrize("seed", [3, 11])
def test_a_seed_is_one_story(seed):
    assert run(seed).digest == run(seed).digest
    assert run(seed).digest != run(seed + 1).digest


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught_and_the_true_code_is_clean(bug):
    plant = PLANTED[bug]
    seed = caught(plant)
    assert seed is not None, f"{bug}: not caught within {plant.runs} runs"
    assert not violated(plant, seed), f"{bug}: the true code is caught, too"

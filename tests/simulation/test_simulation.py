"""The real code in simulated time: a sample of what `make simulate` runs, and the bugs that it must catch."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest

from tests.simulation.planted import PLANTED, caught, violated
from tests.simulation.scenario import story, summary

RUNS = 60
"""In six samples, so that a failure says where. `make simulate` runs thousands."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """A process on each core. Nothing here runs in this one, because a tracer that counts lines confuses greenlets.

    What the library's lines do is tested line by line elsewhere.
    """
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.mark.parametrize("sixth", range(6))
def test_whatever_happens_no_proof_is_wrong_and_everybody_follows_in_the_end(sixth, pool):
    seeds = range(sixth * RUNS // 6, (sixth + 1) * RUNS // 6)
    for seed, _, violations, _ in pool.map(story, ((seed, None) for seed in seeds)):
        assert not violations, f"replay: python -m tests.simulation --seed {seed}\n{violations[0]}"


def test_a_fleet_of_100(pool):
    violations, counts, _ = pool.submit(summary, 7, size=100).result()
    assert not violations, "replay: python -m tests.simulation --seed 7 --size 100"
    assert counts["last flips"] == 2


def test_a_healthy_fleet_is_proven_and_drained_each_time(pool):
    violations, counts, _ = pool.submit(summary, 1, size=12, faults=frozenset(), when_stale="serve").result()
    assert not violations
    assert counts["on proven"] or counts["drain proven"]


@pytest.mark.parametrize("seed", [3, 11])
def test_a_seed_is_one_story(seed, pool):
    one, again, other = (digest for _, _, digest in pool.map(summary, (seed, seed, seed + 1)))
    assert one == again
    assert one != other


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught_and_the_true_code_is_clean(bug, pool):
    seed = caught(bug, pool)
    assert seed is not None, f"{bug}: not caught within {PLANTED[bug].runs} runs"
    assert not pool.submit(violated, bug, seed).result(), f"{bug}: the true code is caught, too"

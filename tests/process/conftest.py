"""What the tests of a process share: a clock, a store that fails, and states over it."""

from collections.abc import Iterator

import pytest

from maintenance import MaintenanceState
from tests.support.clock import Clock, Waits, refuse, runtime
from tests.support.faulty import FaultyStore
from tests.support.life import Life


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return Clock()


@pytest.fixture
def waits(clock: Clock) -> Iterator[Waits]:
    """The waits of requests. Each moves the clock by all that it was allowed."""
    waits = Waits(clock)
    yield waits
    waits.meanwhile = lambda: None  # a state that is left at exit may wait once more


@pytest.fixture
def faulty() -> FaultyStore:
    """A store that fails when a test says so."""
    return FaultyStore()


@pytest.fixture
def threadless(faulty: FaultyStore, clock: Clock) -> MaintenanceState:
    """A process that can start no thread, so its requests read."""
    return MaintenanceState(faulty, runtime=runtime(clock, start=refuse))


@pytest.fixture
def life() -> Life:
    """A life whose steps the test takes."""
    return Life()

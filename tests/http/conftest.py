"""States without a thread, on a clock that a test moves."""

import pytest

from maintenance import MaintenanceState
from tests.http.adapters import Adapter
from tests.support.clock import Clock, refuse, runtime
from tests.support.faulty import FaultyStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def state(store: FaultyStore, clock: Clock) -> MaintenanceState:
    """A state that has read a flag that is off."""
    state = MaintenanceState(store, runtime=runtime(clock, start=refuse))
    state.wait_for_answer()
    return state


@pytest.fixture(params=["wsgi", "asgi"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return Adapter(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name

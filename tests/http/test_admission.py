"""Which running requests a flag counts, and what a middleware does when its state is replaced."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from maintenance import MaintenanceState, Snapshot
from maintenance.base.flags import Flags
from maintenance.base.instances import Load
from maintenance.base.values import WEBSOCKET
from maintenance.process import api
from maintenance.wsgi import MaintenanceMiddleware
from tests.http.adapters import Adapter, flip, hold
from tests.support.clock import Clock, refuse, runtime
from tests.support.entering import enter
from tests.support.faulty import FaultyStore
from tests.support.plain_apps import wsgi

OFF, ON = Flags(site=Snapshot(enabled=False)), Flags(site=Snapshot(enabled=True))

# Which requests count


@pytest.fixture
def loaded(state: MaintenanceState, clock: Clock) -> Any:
    """A middleware with one request of each kind in flight."""
    app = MaintenanceMiddleware(wsgi, state, bypass=lambda request: "x-me" in request.headers)
    assert app._admission.in_flight is not None
    for method, path, root, environ in [
        ("GET", "/page", "/app", {}),
        ("POST", "/form", "/app", {}),
        ("POST", "/form", "/app", {"HTTP_X_ME": "1"}),
        ("POST", "/admin/flip", "/app", {}),
        (WEBSOCKET, "/live", "", {}),
    ]:
        enter(app._admission.in_flight, method, path, root, environ, clock())
        clock.now += 1
    return app


@pytest.mark.parametrize(
    ("flag", "load"),
    [
        (OFF, Load(5, 1, "GET /page", 5.0)),
        (ON, Load(3, 1, "GET /page", 5.0)),
        (Flags(site=Snapshot(enabled=True, mode="read_only")), Load(2, 1, "POST /form", 4.0)),
    ],
    ids=["off", "full", "read_only"],
)
def test_only_the_requests_that_the_flag_refuses_count(
    loaded: Any, state: MaintenanceState, flag: Snapshot, load: Load
) -> None:
    assert state._sources.measure(flag) == load


@pytest.mark.parametrize(("in_flight", "load"), [(True, Load()), (False, None)])
def test_a_fork_forgets_the_requests_of_the_parent(
    state: MaintenanceState, load: Load | None, *, in_flight: bool
) -> None:
    app = MaintenanceMiddleware(wsgi, state, in_flight=in_flight)
    if app._admission.in_flight is not None:
        enter(app._admission.in_flight, "GET", "/", "", {}, 1000.0)
    state.fork()
    assert state._sources.measure(ON) == load


def test_a_request_about_which_no_bypass_can_be_asked_counts(
    loaded: Any, state: MaintenanceState, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    enter(loaded._admission.in_flight, "POST", "/odd", "", {None: ""}, clock())  # the server has spoilt the environ
    load = state._sources.measure(ON)
    assert load is not None
    assert load.in_flight == 4
    assert "a bypass failed" in caplog.text


class _Meanwhile(str):
    """A name at which the app writes to its environ while it is looked at."""

    __slots__ = ("write",)
    write: Callable[[], None]

    def startswith(self, *arguments: Any) -> bool:
        self.write()
        return super().startswith(*arguments)


def test_an_app_may_write_to_its_environ_while_a_bypass_is_asked(state: MaintenanceState, clock: Clock) -> None:
    app = MaintenanceMiddleware(wsgi, state, bypass=lambda request: "x-me" in request.headers)
    assert app._admission.in_flight is not None
    name = _Meanwhile("HTTP_A")
    environ: dict[str, Any] = {name: "a", "HTTP_X_ME": "1"}
    name.write = lambda: environ.update({f"app.{len(environ)}": 1})
    enter(app._admission.in_flight, "POST", "/", "", environ, clock())
    load = state._sources.measure(ON)
    assert load is not None
    assert (load.in_flight, state.status().in_flight) == (0, 1)
    assert len(environ) > 2


def test_a_deleted_middleware_is_freed_and_its_requests_still_count(
    adapter: Adapter, state: MaintenanceState, clock: Clock
) -> None:
    app = adapter.wrap(state, default_exempt=False)
    end = hold(app, clock())
    dropped = weakref.ref(app._admission)
    del app
    gc.collect()
    assert dropped() is None
    load = state._sources.measure(flip(state))
    assert load is not None
    assert load.in_flight == 1
    end()
    assert state.status().in_flight == 0


# A state that replaces another


@pytest.fixture
def first(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaintenanceState]:
    """The default state, until a test makes another."""
    monkeypatch.setattr(api, "_state", None)
    yield replace_state(clock)
    api.default_state().close()


def replace_state(clock: Clock) -> MaintenanceState:
    state = api.init_maintenance(FaultyStore(), runtime=runtime(clock, start=refuse))
    state.wait_for_answer()
    return state


def test_a_state_counts_every_request_that_runs_under_it_and_a_replaced_one_those_it_let_in(
    adapter: Adapter, first: MaintenanceState, clock: Clock
) -> None:
    app = adapter.wrap()
    end_first = hold(app, clock())
    assert first.status().in_flight == 1
    clock.now += 1.0
    second = replace_state(clock)  # which closes the first one
    clock.now += 1.0
    end_second = hold(app, clock())
    assert (first.status().in_flight, second.status().in_flight) == (1, 2)
    clock.now += 1.0
    third = replace_state(clock)
    clock.now += 1.0
    end_third = hold(app, clock())
    states = first, second, third
    assert [it.status().in_flight for it in states] == [1, 2, 3]
    for end, left in [(end_first, [0, 1, 2]), (end_second, [0, 0, 1]), (end_third, [0, 0, 0])]:
        end()
        assert [it.status().in_flight for it in states] == left


def test_a_request_that_came_before_any_state_counts(adapter: Adapter, clock: Clock, request: Any) -> None:
    app = adapter.wrap()
    early = enter(app._admission.in_flight, "GET", "/", "", {"headers": []}, clock())
    state = request.getfixturevalue("first")
    assert state.status().in_flight == 0  # the middleware has not met it yet
    app._admission.wait_for_answer()
    assert state.status().in_flight == 1
    early.clear()
    assert state.status().in_flight == 0


def test_without_tracking_no_state_has_a_count(adapter: Adapter, first: MaintenanceState, clock: Clock) -> None:
    app, states = adapter.wrap(in_flight=False), [first]
    app._admission.wait_for_answer()
    states.append(replace_state(clock))
    app._admission.wait_for_answer()
    assert [it.status().in_flight for it in states] == [None, None]


def test_a_closed_state_is_attached_to_once_until_another_replaces_it(
    adapter: Adapter, first: MaintenanceState, clock: Clock
) -> None:
    app, attached = adapter.wrap(), []
    adapter.ask(app)
    first.close()
    app._admission._follow = attached.append
    assert [adapter.ask(app).status for _ in range(3)] == [503] * 3
    assert attached == []
    del app._admission._follow
    second = replace_state(clock)
    assert [adapter.ask(app).status for _ in range(2)] == [200] * 2
    assert app._admission._state is second


def test_a_given_state_that_is_closed_is_not_replaced(
    adapter: Adapter, state: MaintenanceState, first: MaintenanceState
) -> None:
    app = adapter.wrap(state)
    state.close()
    assert adapter.ask(app).status == 503
    assert app._admission._state is state


def test_each_new_snapshot_reaches_the_middleware_once(adapter: Adapter, first: MaintenanceState, clock: Clock) -> None:
    """Also if two requests find a new state at the same time."""
    app, seen = adapter.wrap(), []
    app._admission.wait_for_answer()
    second = replace_state(clock)
    app._admission._follow(second)
    app._admission._follow(second)
    app._admission.on_flips.append(lambda snapshot: seen.append(snapshot.revision))
    revision = second.set(True).revision
    assert seen == [revision]

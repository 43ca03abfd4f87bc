"""The ASGI adapter under asyncio and trio: what passes, what waits, and that nothing blocks the loop."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from maintenance import MaintenanceState, Response, aset_maintenance, init_maintenance
from maintenance.asgi import MaintenanceMiddleware
from maintenance.base.threads import run_for_request
from maintenance.http import asgi_io
from maintenance.process import api
from maintenance.stores import open_store
from tests.support.clients import acall_asgi, call_asgi, http_scope
from tests.support.clock import Clock, hang, refuse, runtime
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(store: FaultyStore, clock: Clock) -> MaintenanceState:
    state = MaintenanceState(store, runtime=runtime(clock, start=refuse))
    state.wait_for_answer()
    return state


class App:
    """Answers 200, and tells what it saw."""

    def __init__(self, inside: Callable[[], Any] = lambda: None) -> None:
        self.scopes: list[Any] = []
        self.inside = inside
        self.told: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.told.append(self.inside())
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"the app"})


def run(main: Callable[[], Any], backend: str = "asyncio") -> Any:
    return anyio.run(main, backend=backend)


async def nothing() -> Any:
    return {"type": "lifespan.startup"}


async def ignore(_: Any) -> None:
    return


# What passes


@pytest.mark.parametrize("kind", ["lifespan", "something.new"])
def test_what_is_no_request_passes_untouched(state: MaintenanceState, kind: str) -> None:
    app = App()
    state.set(True)
    scope = {"type": kind}
    run(lambda: MaintenanceMiddleware(app, state)(scope, nothing, ignore))
    assert app.scopes == [scope]
    assert app.scopes[0] is scope


def test_off_the_app_gets_the_very_scope(state: MaintenanceState) -> None:
    app = App()
    scope = http_scope("/x")
    run(lambda: MaintenanceMiddleware(app, state)(scope, nothing, ignore))
    assert app.scopes[0] is scope
    assert scope == http_scope("/x")


@BACKENDS
def test_the_lifespan_begins_the_reading_and_ends_it(backend: str, store: FaultyStore) -> None:
    state = MaintenanceState(store)
    told: list[bool] = []
    app = Lifespan(lambda: told.append(state.lifecycle.watcher is not None))
    run(lambda: MaintenanceMiddleware(app, state)({"type": "lifespan"}, nothing, ignore), backend)
    assert told == [True]
    assert state.lifecycle.watcher is None


@BACKENDS
def test_the_event_loop_goes_on_while_the_fleet_is_left(
    backend: str, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away makes that last up to 1 s."""
    state, going_on, left = MaintenanceState(store), threading.Event(), []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(MaintenanceMiddleware(Lifespan(), state), {"type": "lifespan"}, nothing, ignore)
            while not left:
                await anyio.lowlevel.checkpoint()
            going_on.set()

    def leave() -> None:
        left.append(going_on.is_set())
        left.append(going_on.wait(10))

    monkeypatch.setattr(state, "leave", leave)
    run(main, backend)
    assert left[:2] == [False, True]
    monkeypatch.undo()
    state.close()


@BACKENDS
def test_a_shutdown_that_says_nothing_leaves_the_fleet_too(backend: str, store: FaultyStore) -> None:
    async def ends(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})

    state = MaintenanceState(store)
    run(lambda: MaintenanceMiddleware(ends, state)({"type": "lifespan"}, nothing, ignore), backend)
    assert state.lifecycle.watcher is None
    assert store.inner.connect().fleet().instances == ()


@BACKENDS
def test_a_shutdown_that_fails_leaves_the_fleet_too(backend: str, store: FaultyStore) -> None:
    """As Starlette's, which says so and raises."""

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.failed"})
        raise OSError("a clean-up failed")

    state = MaintenanceState(store)
    with pytest.raises(OSError, match="a clean-up failed"):
        run(lambda: MaintenanceMiddleware(fails, state)({"type": "lifespan"}, nothing, ignore), backend)
    assert state.lifecycle.watcher is None
    assert store.inner.connect().fleet().instances == ()


@BACKENDS
def test_a_startup_that_fails_is_passed_on_and_leaves_nothing(backend: str, store: FaultyStore) -> None:
    told: list[str] = []

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no template"})

    async def send(message: Any) -> None:
        told.append(message["type"])

    state = MaintenanceState(store)
    run(lambda: MaintenanceMiddleware(fails, state)({"type": "lifespan"}, nothing, send), backend)
    assert told == ["lifespan.startup.failed"]
    state.close()


def test_an_app_that_lets_the_lifespan_go_by_stays_in_the_fleet(store: FaultyStore) -> None:
    state = MaintenanceState(store)
    run(lambda: MaintenanceMiddleware(App(), state)({"type": "lifespan"}, nothing, ignore))
    assert state.lifecycle.watcher is not None
    state.close()


def test_a_lifespan_that_the_app_does_not_know_raises_what_it_raises(state: MaintenanceState) -> None:
    def refuse_lifespan() -> None:
        raise ValueError("Django knows no lifespan")

    with pytest.raises(ValueError, match="Django"):
        run(lambda: MaintenanceMiddleware(App(refuse_lifespan), state)({"type": "lifespan"}, nothing, ignore))


class Lifespan:
    """An app that starts up, does something, and says so."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.then = then

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.then()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_default_state_is_resolved_once_the_app_has_started_up(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, backend: str
) -> None:
    """The app may build it itself while it starts up; a fleet that gets no request yet is there all the same."""
    open_store(sqlite_url).migrate()
    monkeypatch.setattr(api, "_state", None)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])
        registered = MaintenanceState(sqlite_url, register=False).fleet
        there = message["type"] == "lifespan.startup.complete"
        await anyio.to_thread.run_sync(lambda: eventually(lambda: len(registered().instances) == there))

    init = functools.partial(init_maintenance, sqlite_url)
    anyio.run(lambda: MaintenanceMiddleware(Lifespan(init))({"type": "lifespan"}, nothing, send), backend=backend)
    monkeypatch.setattr(api, "_state", None)
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", sqlite_url)
    anyio.run(lambda: MaintenanceMiddleware(Lifespan())({"type": "lifespan"}, nothing, send), backend=backend)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"] * 2


def test_a_default_state_that_is_replaced_while_the_app_starts_up_is_followed(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    """As one that was made at import, for tests or by another module, is."""
    monkeypatch.setattr(api, "_state", None)
    init_maintenance("memory://")
    told: list[bool] = []

    async def send(message: Any) -> None:
        if message["type"] == "lifespan.startup.complete":
            told.append(api.default_state().lifecycle.watcher is not None)

    init = functools.partial(init_maintenance, sqlite_url)
    run(lambda: MaintenanceMiddleware(Lifespan(init))({"type": "lifespan"}, nothing, send))
    assert told == [True]


def test_a_lifespan_without_a_database_goes_on_and_the_log_says_what_will_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """Probes are exempt, and a roll-out that they let through would be noticed by visitors first."""
    monkeypatch.setattr(api, "_state", None)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    run(lambda: MaintenanceMiddleware(Lifespan())({"type": "lifespan"}, nothing, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    [said] = caplog.records
    assert said.levelname == "ERROR"
    assert "each request that is not exempt will fail: no database is named: set MAINTENANCE_" in said.getMessage()
    told = request.getfixturevalue("failing_log")
    run(lambda: MaintenanceMiddleware(Lifespan())({"type": "lifespan"}, nothing, send))
    assert told == [said.getMessage()]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"] * 2


# In flight


@pytest.mark.parametrize("in_flight", [True, False])
def test_a_request_is_in_flight_until_the_app_returns(state: MaintenanceState, *, in_flight: bool) -> None:
    app = App(lambda: state.status().in_flight)
    wrapped = MaintenanceMiddleware(app, state, in_flight=in_flight)
    assert call_asgi(wrapped).body == b"the app"
    assert app.told == [1 if in_flight else None]
    assert state.status().in_flight == (0 if in_flight else None)


@pytest.mark.parametrize("in_flight", [True, False])
def test_what_the_app_raises_comes_through_unchanged(state: MaintenanceState, *, in_flight: bool) -> None:
    error = ValueError("the app's")

    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="the app's") as caught:
        call_asgi(MaintenanceMiddleware(App(fail), state, in_flight=in_flight))
    assert caught.value is error
    assert state.status().in_flight == (0 if in_flight else None)


@BACKENDS
def test_a_request_that_is_cancelled_leaves(backend: str, state: MaintenanceState) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    async def main() -> list[int | None]:
        told: list[int | None] = []
        async with anyio.create_task_group() as group:
            group.start_soon(MaintenanceMiddleware(app, state), http_scope(), nothing, ignore)
            await anyio.wait_all_tasks_blocked()
            told.append(state.status().in_flight)
            group.cancel_scope.cancel()
        return [*told, state.status().in_flight]

    assert run(main, backend) == [1, 0]


def test_a_request_is_entered_as_it_came_before_the_app_changes_it(state: MaintenanceState) -> None:
    def spoil() -> Any:
        app.scopes[0].update(method="GET", path="/health", root_path="")
        return state._measure(state.set(True))

    app = App(spoil)
    call_asgi(MaintenanceMiddleware(app, state), "/form", method="POST", root="/app")
    [load] = app.told
    assert (load.in_flight, load.oldest) == (1, "POST /app/form")


def test_a_bypass_is_asked_about_a_request_in_flight_as_it_came(state: MaintenanceState) -> None:
    def spoil() -> Any:
        app.scopes[0]["headers"].append((b"x-me", b"the app's"))
        return state._measure(state.set(True))

    app = App(spoil)
    call_asgi(MaintenanceMiddleware(app, state, bypass=lambda request: "x-me" in request.headers))
    [load] = app.told
    assert load.in_flight == 1


def test_a_refused_request_is_not_in_flight(state: MaintenanceState) -> None:
    wrapped = MaintenanceMiddleware(App(), state)
    state.set(True)
    assert call_asgi(wrapped).status == 503
    assert state.status().in_flight == 0


# Waiting


@BACKENDS
def test_the_loop_goes_on_while_first_requests_wait_and_none_leaks(backend: str, store: FaultyStore) -> None:
    MaintenanceState(store, register=False).set(True)
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        asked.set()
        assert go_on.wait(10)

    store.meanwhile = slow
    state = MaintenanceState(store)
    wrapped, statuses, beats = MaintenanceMiddleware(App(), state), [], 0

    async def ask() -> None:
        statuses.append((await acall_asgi(wrapped)).status)

    async def main() -> int:
        beats = 0
        async with anyio.create_task_group() as group:
            for _ in range(60):  # more than there are threads to wait in
                group.start_soon(ask)
            while not asked.is_set() or beats < 100:
                await anyio.lowlevel.checkpoint()
                beats += 1
            assert statuses == []
            go_on.set()
        return beats

    beats = run(main, backend)
    assert beats >= 100
    assert statuses == [503] * 60
    state.close()


@BACKENDS
def test_a_request_that_is_cancelled_while_it_waits_ends_at_once(backend: str, store: FaultyStore) -> None:
    state = MaintenanceState(store, boot_timeout=60.0, runtime=runtime(Clock(), start=hang))
    state.start()
    wrapped = MaintenanceMiddleware(App(), state)

    async def main() -> int | None:
        async with anyio.create_task_group() as group:
            group.start_soon(wrapped, http_scope(), nothing, ignore)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            inside = state.status().in_flight
            group.cancel_scope.cancel()
        assert inside == 1
        return state.status().in_flight

    began = time.monotonic()
    assert run(main, backend) == 0
    assert time.monotonic() - began < 20.0
    state.close()  # which lets go of the thread that still waits


def test_no_thread_is_asked_while_the_answer_is_fresh(state: MaintenanceState, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Any) -> Any:
        raise AssertionError("a request waited")

    monkeypatch.setattr("maintenance.http.asgi_io.run_for_request", never)
    wrapped = MaintenanceMiddleware(App(), state)
    assert call_asgi(wrapped).status == 200
    state.set(True)
    assert call_asgi(wrapped).status == 503


# What is read from the scope


def test_headers_that_come_twice_are_joined(state: MaintenanceState) -> None:
    seen: list[Any] = []
    wrapped = MaintenanceMiddleware(App(), state, bypass=seen.append)
    state.set(True)
    raw = [(b"X-A", b"1"), (b"x-a", b"2"), (b"accept", b"text/html"), (b"accept", b"text/plain;q=0.1")]
    sent: list[Any] = []

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await wrapped(http_scope(headers=raw), nothing, send)

    run(main)
    assert seen[-1].headers["x-a"] == "1, 2"
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/html")


@pytest.mark.parametrize("client", [None, "left out", ("10.0.0.1", 1)])
def test_a_client_may_be_unknown(state: MaintenanceState, client: Any) -> None:
    seen: list[Any] = []
    wrapped = MaintenanceMiddleware(App(), state, bypass=seen.append)
    state.set(True)
    scope = http_scope(client=client)
    if client == "left out":
        del scope["client"], scope["root_path"]
    run(lambda: wrapped(scope, nothing, ignore))
    assert seen[-1].client == ("10.0.0.1" if isinstance(client, tuple) else None)


def test_names_of_headers_are_sent_in_lower_case(state: MaintenanceState) -> None:
    sent: list[Any] = []
    state.set(True)

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        await MaintenanceMiddleware(App(), state)(http_scope(), nothing, send)

    run(main)
    assert all(name == name.lower() for name, _ in sent[0]["headers"])
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def encoded(response: Response) -> Any:
    return asgi_io.messages(response, False)[0]["headers"]


def test_what_is_done_to_the_headers_sent_once_is_not_sent_again() -> None:
    response = Response(503, (("X-A", "1"),), b"")
    encoded(response).append((b"x-b", b"2"))
    assert encoded(response) == [(b"x-a", b"1")]


def test_headers_are_known_by_themselves_and_do_not_pile_up() -> None:
    for number in range(2000):  # each made where one before was freed
        response = Response(503, (("X-Number", str(number)),), b"")
        assert encoded(response) == [(b"x-number", str(number).encode())]
        assert len(asgi_io._known) <= 512


# The threads that it waits in


@BACKENDS
def test_neither_a_request_nor_a_flip_needs_one_of_the_apps_threads(store: FaultyStore, backend: str) -> None:
    """As where every synchronous endpoint of the app hangs in them: the incident in which somebody wants to flip."""
    state = MaintenanceState(store)
    app = MaintenanceMiddleware(App(), state)

    async def main() -> None:
        hung = anyio.to_thread.current_default_thread_limiter()
        hung.total_tokens = 1
        async with hung:
            with anyio.fail_after(10):
                assert (await acall_asgi(app)).status == 200
                snapshot = await aset_maintenance(True, state=state)
                assert (await state.aprove(snapshot, timeout=5.0)).proven
                assert (await acall_asgi(app)).status == 503

    run(main, backend)
    state.close()


def test_what_a_wait_itself_raises_is_not_taken_for_a_lack_of_threads() -> None:
    threads = []

    def fail() -> None:
        threads.append(threading.current_thread())
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run(lambda: run_for_request(fail))
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


@BACKENDS
def test_where_no_thread_can_be_started_a_request_is_answered_in_the_loop(
    state: MaintenanceState, clock: Clock, store: FaultyStore, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    MaintenanceState(store).set(True)
    clock.now += 11.0
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        patch.setattr("trio._core._thread_cache.start_joinable_thread", none_left, raising=False)
        patch.setattr("trio._core._thread_cache.WorkerThread.__init__", none_left)
        assert run(lambda: acall_asgi(MaintenanceMiddleware(App(), state)), backend).status == 503

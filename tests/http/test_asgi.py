"""The ASGI adapter under asyncio and trio: the lifespan, requests that wait, and that nothing blocks the loop."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from maintenance import MaintenanceState, Request, Response, aset_maintenance, init_maintenance
from maintenance.asgi import MaintenanceMiddleware
from maintenance.base.threads import run_for_request
from maintenance.http import lifespan
from maintenance.http.asgi_io import build_messages
from maintenance.process import api
from maintenance.stores import open_store
from tests.support.clients import acall_asgi, call_asgi, http_scope
from tests.support.clock import Clock, hang, runtime
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually


class App:
    """Answers 200 and keeps each scope. A lifespan only calls `inside`."""

    def __init__(self, inside: Callable[[], Any] = lambda: None) -> None:
        self.scopes: list[Any] = []
        self.inside = inside

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.inside()
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"the app"})


class Lifespan:
    """An app that calls a function at startup and then sends messages."""

    def __init__(
        self,
        inside: Callable[[], object] = lambda: None,
        messages: tuple[str, ...] = ("startup.complete", "shutdown.complete"),
        error: Exception | None = None,
    ) -> None:
        self._inside, self._messages, self._error = inside, messages, error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._inside()
        for message in self._messages:
            await send({"type": f"lifespan.{message}"})
        if self._error:
            raise self._error


async def receive_nothing() -> Any:
    return {"type": "lifespan.startup"}


async def ignore(_: Any) -> None:
    return


def serve(app: Any, scope: Any, send: Any = ignore, backend: str = "asyncio") -> None:
    anyio.run(app, scope, receive_nothing, send, backend=backend)


def live(app: Any, send: Any = ignore, backend: str = "asyncio") -> None:
    serve(app, {"type": "lifespan"}, send, backend)


# What passes


@pytest.mark.parametrize(
    ("scope", "enabled"), [({"type": "lifespan"}, True), ({"type": "something.new"}, True), (http_scope("/x"), False)]
)
def test_the_app_gets_the_very_scope(state: MaintenanceState, scope: Any, *, enabled: bool) -> None:
    app, before = App(), dict(scope)
    state.set(enabled)
    serve(MaintenanceMiddleware(app, state), scope)
    assert app.scopes == [before]
    assert app.scopes[0] is scope


# The lifespan


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (("startup.complete", "shutdown.complete"), None),
        (("startup.complete",), None),  # the app ends without a word
        (("startup.complete", "shutdown.failed"), OSError("a clean-up failed")),  # as Starlette
    ],
    ids=str,
)
def test_the_lifespan_starts_the_state_and_leaves_the_fleet_however_it_ends(
    backend: str, store: FaultyStore, messages: tuple[str, ...], error: Exception | None
) -> None:
    state, started = MaintenanceState(store), []
    app = Lifespan(lambda: started.append(state.lifecycle.watcher is not None), messages, error)
    if error is None:
        live(MaintenanceMiddleware(app, state), backend=backend)
    else:
        with pytest.raises(OSError, match="a clean-up failed"):
            live(MaintenanceMiddleware(app, state), backend=backend)
    assert started == [True]
    assert state.lifecycle.watcher is None
    assert store.inner.connect().fleet().instances == ()


@pytest.mark.parametrize("messages", [(), ("startup.failed",)])
def test_a_lifespan_that_never_starts_up_passes_its_messages_and_leaves_no_fleet(
    backend: str, store: FaultyStore, messages: tuple[str, ...]
) -> None:
    """An app may know no lifespan, and its process serves all the same."""
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    state = MaintenanceState(store)
    live(MaintenanceMiddleware(Lifespan(messages=messages), state), send, backend)
    assert sent == [f"lifespan.{message}" for message in messages]
    assert state.lifecycle.watcher is not None
    state.close()


def test_an_app_that_refuses_the_lifespan_raises_its_own_error(state: MaintenanceState) -> None:
    with pytest.raises(ValueError, match="Django"):
        live(MaintenanceMiddleware(Lifespan(messages=(), error=ValueError("Django has no lifespan")), state))


def test_the_lifespan_of_an_app_without_one_is_answered_if_a_framework_asks_for_that(
    backend: str, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan, "stands_in", True)
    state, sent = MaintenanceState(store), []
    app = MaintenanceMiddleware(Lifespan(messages=(), error=ValueError("Django has no lifespan")), state)

    async def send(message: Any) -> None:
        sent.append((message["type"], state.lifecycle.watcher is not None))

    live(app, send, backend)
    assert sent == [("lifespan.startup.complete", True), ("lifespan.shutdown.complete", False)]


def test_the_event_loop_goes_on_while_the_fleet_is_left(
    backend: str, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an unreachable store, leaving lasts up to 1 s."""
    state, going_on, left = MaintenanceState(store), threading.Event(), []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(MaintenanceMiddleware(Lifespan(), state), {"type": "lifespan"}, receive_nothing, ignore)
            while not left:
                await anyio.lowlevel.checkpoint()
            going_on.set()

    def leave() -> None:
        left.append(going_on.is_set())
        left.append(going_on.wait(10))

    monkeypatch.setattr(state, "leave", leave)
    anyio.run(main, backend=backend)
    assert left[:2] == [False, True]
    monkeypatch.undo()
    state.close()


@pytest.mark.parametrize("by_app", [True, False])
def test_a_default_state_is_started_once_the_app_has_started_up(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, backend: str, *, by_app: bool
) -> None:
    """The app may build it during its startup. A process without a request registers too."""
    open_store(sqlite_url).migrate()
    monkeypatch.setattr(api, "_state", None)
    if not by_app:
        monkeypatch.setenv("MAINTENANCE_DATABASE_URL", sqlite_url)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])
        registered = MaintenanceState(sqlite_url, register=False).fleet
        there = message["type"] == "lifespan.startup.complete"
        await anyio.to_thread.run_sync(lambda: eventually(lambda: len(registered().instances) == there))

    app = Lifespan(functools.partial(init_maintenance, sqlite_url)) if by_app else Lifespan()
    live(MaintenanceMiddleware(app), send, backend)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_default_state_that_the_app_replaces_at_startup_is_followed(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    monkeypatch.setattr(api, "_state", None)
    init_maintenance("memory://")
    started: list[bool] = []

    async def send(message: Any) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.append(api.default_state().lifecycle.watcher is not None)

    live(MaintenanceMiddleware(Lifespan(functools.partial(init_maintenance, sqlite_url))), send)
    assert started == [True]


def test_a_lifespan_without_a_database_goes_on_and_the_log_says_which_requests_will_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """Probes are exempt, so without this line a roll-out would pass them and fail for visitors."""
    monkeypatch.setattr(api, "_state", None)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    live(MaintenanceMiddleware(Lifespan()), send)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    said = "misconfigured: every request except exempt paths will fail: no database is named: set MAINTENANCE_"
    assert said in record.getMessage()
    logged = request.getfixturevalue("failing_log")
    live(MaintenanceMiddleware(Lifespan()), send)
    assert logged == [record.getMessage()]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"] * 2


# Requests that wait


def test_a_request_that_is_cancelled_ends(backend: str, state: MaintenanceState) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    async def main() -> list[int | None]:
        async with anyio.create_task_group() as group:
            group.start_soon(MaintenanceMiddleware(app, state), http_scope(), receive_nothing, ignore)
            await anyio.wait_all_tasks_blocked()
            inside = state.status().in_flight
            group.cancel_scope.cancel()
        return [inside, state.status().in_flight]

    assert anyio.run(main, backend=backend) == [1, 0]


def test_the_loop_goes_on_while_first_requests_wait_and_none_slips_through(backend: str, store: FaultyStore) -> None:
    MaintenanceState(store, register=False).set(True)
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        asked.set()
        assert go_on.wait(10)

    store.meanwhile = slow
    state = MaintenanceState(store)
    wrapped, statuses = MaintenanceMiddleware(App(), state), []

    async def ask() -> None:
        statuses.append((await acall_asgi(wrapped)).status)

    async def main() -> None:
        beats = 0
        async with anyio.create_task_group() as group:
            for _ in range(60):  # more than there are threads to wait in
                group.start_soon(ask)
            while not asked.is_set() or beats < 100:
                await anyio.lowlevel.checkpoint()
                beats += 1
            assert statuses == []
            go_on.set()

    anyio.run(main, backend=backend)
    assert statuses == [503] * 60
    state.close()


def test_a_request_that_is_cancelled_while_it_waits_ends_at_once(backend: str, store: FaultyStore) -> None:
    state = MaintenanceState(store, boot_timeout=60.0, runtime=runtime(Clock(), start=hang))
    state.start()

    async def main() -> list[int | None]:
        async with anyio.create_task_group() as group:
            group.start_soon(MaintenanceMiddleware(App(), state), http_scope(), receive_nothing, ignore)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            inside = state.status().in_flight
            group.cancel_scope.cancel()
        return [inside, state.status().in_flight]

    began = time.monotonic()
    assert anyio.run(main, backend=backend) == [1, 0]
    assert time.monotonic() - began < 20.0
    state.close()  # which ends the thread that still waits


@pytest.mark.parametrize("stale", [False, True])
def test_no_thread_is_used_if_no_request_must_wait(
    state: MaintenanceState, clock: Clock, store: FaultyStore, monkeypatch: pytest.MonkeyPatch, *, stale: bool
) -> None:
    async def never(_: Any) -> Any:
        raise AssertionError("a request waited")

    monkeypatch.setattr("maintenance.http.asgi_io.run_for_request", never)
    wrapped = MaintenanceMiddleware(App(), state)
    for enabled in (False, True):
        state.set(enabled)
        if stale:
            monkeypatch.setattr(state, "peek", lambda: state.lease.current)
            clock.now += 11.0
        assert call_asgi(wrapped).status == (503 if enabled else 200)


def test_neither_a_request_nor_a_flip_needs_a_thread_of_the_app(store: FaultyStore, backend: str) -> None:
    """Every synchronous endpoint may hang in those: that is the incident in which an operator wants to flip."""
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

    anyio.run(main, backend=backend)
    state.close()


def test_an_error_of_the_wait_itself_is_not_mistaken_for_a_lack_of_threads() -> None:
    threads = []

    def fail() -> None:
        threads.append(threading.current_thread())
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        anyio.run(run_for_request, fail)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_if_no_thread_can_be_started_a_request_is_answered_in_the_loop(
    state: MaintenanceState, clock: Clock, store: FaultyStore, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    MaintenanceState(store).set(True)
    clock.now += 11.0
    with monkeypatch.context() as patch:
        patch.setattr("_thread.start_new_thread", none_left)
        assert call_asgi(MaintenanceMiddleware(App(), state), backend=backend).status == 503


# What is read from the scope, and sent


@pytest.mark.parametrize(
    ("raw", "joined"),
    [
        ([(b"X-A", b"1"), (b"x-a", b"2")], {"x-a": "1, 2"}),
        # As HTTP/2 clients send cookies, and as servers pass them on.
        ([(b"cookie", b"a=1"), (b"accept", b"a/b"), (b"cookie", b"b=2")], {"cookie": "a=1; b=2", "accept": "a/b"}),
        ([(b"accept", b"text/html"), (b"accept", b"text/plain;q=0.1")], {"accept": "text/html, text/plain;q=0.1"}),
    ],
)
def test_headers_that_come_twice_are_joined(state: MaintenanceState, raw: Any, joined: dict[str, str]) -> None:
    seen: list[Request] = []
    wrapped = MaintenanceMiddleware(App(), state, bypass=lambda request: bool(seen.append(request)))
    state.set(True)

    async def with_headers(scope: Any, receive: Any, send: Any) -> None:
        await wrapped({**scope, "headers": raw}, receive, send)

    kind = call_asgi(with_headers).headers["content-type"]
    assert dict(seen[-1].headers) == joined
    assert kind.startswith("text/html") is joined.get("accept", "").startswith("text/html")


@pytest.mark.parametrize("client", [None, "left out", ("10.0.0.1", 1)])
def test_a_client_and_a_mount_point_may_be_missing(state: MaintenanceState, client: Any) -> None:
    seen: list[Any] = []
    scope = http_scope(client=client)
    if client == "left out":
        del scope["client"], scope["root_path"]
    state.set(True)
    serve(MaintenanceMiddleware(App(), state, bypass=seen.append), scope)
    assert seen[-1].client == ("10.0.0.1" if isinstance(client, tuple) else None)


def test_headers_are_sent_in_lower_case_and_each_time_as_a_list_of_their_own() -> None:
    response = Response(503, (("X-A", "1"),), b"body")
    for head in (False, True, False):
        start, body = build_messages(response, head)
        assert start == {"type": "http.response.start", "status": 503, "headers": [(b"x-a", b"1")]}
        assert body == {"type": "http.response.body", "body": b"" if head else b"body"}
        start["headers"].append((b"x-b", b"2"))  # as another middleware may

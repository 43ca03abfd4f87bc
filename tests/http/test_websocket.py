"""WebSockets: refused before they are accepted, and closed when a flip arrives."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from maintenance import MaintenanceState, Request, init_maintenance
from maintenance.asgi import MaintenanceMiddleware
from maintenance.base.runtime import REAL
from maintenance.http.websocket import Closer
from maintenance.process import api
from tests.support.clients import acall_asgi
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually

CLOSED = {"type": "websocket.close", "code": 1012, "reason": "maintenance"}
DISCONNECTED = {"type": "websocket.disconnect", "code": 1012, "reason": "maintenance"}


ACCEPTED = {"type": "websocket.accept"}
REFUSED = {"type": "websocket.close", "code": 1013, "reason": "maintenance"}


def closing(app: Any, state: MaintenanceState | None, **options: Any) -> MaintenanceMiddleware:
    return MaintenanceMiddleware(app, state, close_websockets=True, **options)


def closer_of(wrapped: MaintenanceMiddleware) -> Closer:
    assert isinstance(wrapped._app, Closer)
    return wrapped._app


def scope_of(path: str = "/live", **more: Any) -> dict[str, Any]:
    return {"type": "websocket", "path": path, "root_path": "", "headers": [], "client": None, **more}


class Server:
    """The server's side of one WebSocket."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self._in, self._out = anyio.create_memory_object_stream[Any](100)

    def says(self, kind: str, **more: Any) -> None:
        self._in.send_nowait({"type": f"websocket.{kind}", **more})

    async def receive(self) -> Any:
        return await self._out.receive()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def close(self) -> None:
        self._in.close()
        self._out.close()


class Echo:
    """Accepts, and says everything back until the client has gone."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.open = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        self.received.append(await receive())
        await send({"type": "websocket.accept"})
        self.open += 1
        try:
            while (message := await receive())["type"] == "websocket.receive":
                self.received.append(message)
                await send({"type": "websocket.send", "text": message["text"]})
            self.received.append(message)
        finally:
            self.open -= 1


def converse(
    backend: str,
    app: Any,
    talk: Callable[[Server], Any],
    make: Callable[[], Server] = Server,
    *,
    wait: bool = True,
    cancel: bool = False,
    **scope: Any,
) -> Server:
    """Run one WebSocket, and beside it what the client and others do, once the app waits for them."""

    async def main() -> Server:
        server = make()
        try:
            server.says("connect")
            async with anyio.create_task_group() as group:
                group.start_soon(app, scope_of(**scope), server.receive, server.send)
                await (anyio.wait_all_tasks_blocked() if wait else anyio.lowlevel.checkpoint())
                await talk(server)
                if cancel:
                    group.cancel_scope.cancel()
        finally:
            server.close()
        return server

    return anyio.run(main, backend=backend)


async def idle(_: Server) -> None:
    """A client that does nothing."""


async def chat(server: Server) -> None:
    """A client that says one word, waits for the echo and hangs up."""
    server.says("receive", text="hi")
    await until(lambda: server.sent[-1] == {"type": "websocket.send", "text": "hi"})
    server.says("disconnect", code=1000)


async def flip(state: MaintenanceState, *, enabled: bool = True, **options: Any) -> None:
    await anyio.to_thread.run_sync(lambda: state.set(enabled, **options))


async def until(predicate: Callable[[], Any]) -> None:
    await anyio.to_thread.run_sync(lambda: eventually(predicate, 10.0, interval=0.005))


# Refused


@pytest.mark.parametrize("mode", ["full", "read_only"])
def test_it_is_refused_with_a_response_if_the_server_can_send_one(
    state: MaintenanceState, backend: str, mode: Any
) -> None:
    app = Echo()
    state.set(True, mode=mode, retry_after=9)
    offered = {"websocket.http.response": {}}
    start, body = converse(backend, MaintenanceMiddleware(app, state), idle, extensions=offered).sent
    headers = dict(start["headers"])
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert headers[b"retry-after"] == b"9"
    assert (body["type"], int(headers[b"content-length"])) == ("websocket.http.response.body", len(body["body"]))
    assert (app.received, state.status().in_flight) == ([], 0)


@pytest.mark.parametrize("more", [{}, {"extensions": None}, {"extensions": {"tls": {}}}], ids=str)
def test_it_is_refused_with_a_close_code_if_not(state: MaintenanceState, backend: str, more: Any) -> None:
    app = Echo()
    state.set(True)
    server = converse(backend, MaintenanceMiddleware(app, state), idle, **more)
    assert (server.sent, app.received) == ([REFUSED], [])


@pytest.mark.parametrize("close_websockets", [True, False])
def test_an_exempt_one_passes_and_stays_open(state: MaintenanceState, backend: str, *, close_websockets: bool) -> None:
    app = Echo()
    wrapped = MaintenanceMiddleware(app, state, exempt=("WEBSOCKET /live",), close_websockets=close_websockets)
    state.set(True)

    async def talk(server: Server) -> None:
        await flip(state, message="again")
        await chat(server)

    assert converse(backend, wrapped, talk).sent == [ACCEPTED, {"type": "websocket.send", "text": "hi"}]
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1000}


# Open when the flip arrives


def test_without_the_option_it_stays_open_and_is_counted(state: MaintenanceState, backend: str) -> None:
    async def talk(server: Server) -> None:
        await flip(state)
        load = state._sources.measure(state.lease.known)
        assert load is not None
        assert (load.in_flight, load.websockets, load.oldest) == (1, 1, "WEBSOCKET /live")
        await chat(server)

    converse(backend, MaintenanceMiddleware(Echo(), state), talk)
    assert state.status().in_flight == 0


@pytest.mark.parametrize("make", [lambda: Server(), lambda: Gone()], ids=["there", "gone"])  # noqa: PLW0108 - below
def test_one_that_waits_is_closed_at_once(state: MaintenanceState, backend: str, make: Callable[[], Server]) -> None:
    """Also if its client goes at that moment."""
    app = Echo()

    async def talk(server: Server) -> None:
        assert app.open == 1
        await flip(state)

    server = converse(backend, closing(app, state), talk, make)
    assert server.sent == [ACCEPTED, *[CLOSED] * (not isinstance(server, Gone))]
    assert app.received == [{"type": "websocket.connect"}, DISCONNECTED]
    assert state.status().in_flight == 0


def test_before_the_flip_and_without_one_everything_passes(state: MaintenanceState, backend: str) -> None:
    async def talk(server: Server) -> None:
        server.says("receive", text="one")
        await flip(state, enabled=False, message="still off")
        await chat(server)

    server = converse(backend, closing(Echo(), state), talk)
    assert [message.get("text") for message in server.sent] == [None, "one", "hi"]


def test_one_that_only_sends_is_closed_at_its_next_send(state: MaintenanceState, backend: str) -> None:
    ended: list[Any] = []

    async def ticker(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await anyio.lowlevel.checkpoint()
        except OSError as exc:
            ended.append(exc)
            with pytest.raises(OSError, match="closed for maintenance"):
                await send({"type": "websocket.send", "text": "still there?"})

    async def talk(_: Server) -> None:
        await flip(state)

    server = converse(backend, closing(ticker, state), talk, wait=False)
    assert isinstance(ended[0], ConnectionAbortedError)
    assert server.sent[-1] == CLOSED
    assert server.sent.count(CLOSED) == 1


def test_one_that_is_busy_is_closed_at_its_next_receive(state: MaintenanceState, backend: str) -> None:
    busy, received = threading.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await until(busy.is_set)
        received.append(await receive())
        received.append(await receive())

    async def talk(server: Server) -> None:
        await flip(state)
        server.says("receive", text="too late")
        closer = closer_of(wrapped)
        await until(lambda: all(socket._ending for socket in closer._table.open.values()))
        busy.set()

    wrapped = closing(app, state)
    server = converse(backend, wrapped, talk)
    assert received == [DISCONNECTED, DISCONNECTED]
    assert server.sent.count(CLOSED) == 1


def test_a_flip_between_the_check_and_the_table_is_not_missed(state: MaintenanceState, backend: str) -> None:
    app = Echo()
    wrapped = closing(app, state)
    closer = closer_of(wrapped)

    async def late(*arguments: Any) -> None:
        await flip(state)  # it was let in, and is not in the table yet
        await closer(*arguments)

    wrapped._app = late

    async def talk(server: Server) -> None:
        await until(lambda: server.sent)

    server = converse(backend, wrapped, talk)
    assert server.sent == [REFUSED]
    assert (app.received, closer._table.open, state.status().in_flight) == ([], {}, 0)


@pytest.mark.parametrize("mode", ["full", "read_only"])
def test_a_bypass_is_asked_about_the_connection_as_it_came(state: MaintenanceState, backend: str, mode: Any) -> None:
    """A middleware further in may change the scope, as one does that trusts a proxy's headers."""
    app = Echo()

    async def rewriting(scope: Any, receive: Any, send: Any) -> None:
        scope["client"] = ("192.0.2.1", 1)
        scope["headers"].clear()
        await app(scope, receive, send)

    def is_near(request: Request) -> bool:
        return request.client == "10.0.0.1" and request.headers.get("x-me") == "1"

    async def talk(server: Server) -> None:
        await flip(state, mode=mode)
        await chat(server)

    wrapped = closing(rewriting, state, bypass=is_near)
    server = converse(backend, wrapped, talk, headers=[(b"x-me", b"1")], client=("10.0.0.1", 1))
    assert CLOSED not in server.sent


def test_the_app_s_exception_comes_through_unchanged(state: MaintenanceState, backend: str) -> None:
    error = ValueError("the app's")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    wrapped = closing(app, state)
    with pytest.raises(ValueError, match="the app's") as caught:
        anyio.run(wrapped, scope_of(), None, None, backend=backend)
    assert caught.value is error
    assert closer_of(wrapped)._table.open == {}


class Strict(Server):
    """Takes nothing more once a WebSocket has ended, as uvicorn does not."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    async def receive(self) -> Any:
        message = await super().receive()
        self.over = self.over or message["type"] == "websocket.disconnect"
        return message

    async def send(self, message: Any) -> None:
        if self.over and message["type"] != "websocket.http.response.body":
            raise RuntimeError(f"unexpected {message['type']}")
        self.over = message["type"] in ("websocket.close", "websocket.http.response.start")
        await super().send(message)


def test_one_that_the_app_has_closed_is_not_closed_again(state: MaintenanceState, backend: str) -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        received.extend([await receive(), await receive()])

    async def talk(server: Server) -> None:
        server.says("receive", text="still under way")
        await anyio.wait_all_tasks_blocked()
        await flip(state)
        server.says("disconnect", code=1000)

    server = converse(backend, wrapped := closing(app, state), talk, Strict)
    assert [message["type"] for message in server.sent] == ["websocket.accept", "websocket.close"]
    assert [message["type"] for message in received] == ["websocket.receive", "websocket.disconnect"]
    assert received[-1] == {"type": "websocket.disconnect", "code": 1000}
    assert closer_of(wrapped)._table.open == {}


def test_one_that_the_app_refuses_itself_is_left_to_it(state: MaintenanceState, backend: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await receive()
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async def talk(server: Server) -> None:
        await flip(state)
        server.says("disconnect", code=1006)

    server = converse(backend, closing(app, state), talk, Strict)
    assert [message["type"][10:] for message in server.sent] == ["http.response.start", "http.response.body"]


def test_one_whose_client_has_gone_is_not_closed(state: MaintenanceState, backend: str) -> None:
    gone, flipped = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        gone.set()
        await until(flipped.is_set)
        with pytest.raises(RuntimeError, match="unexpected websocket.send"):  # the server's own word
            await send({"type": "websocket.send", "text": "bye"})

    async def talk(server: Server) -> None:
        server.says("disconnect", code=1001)
        await until(gone.is_set)
        await flip(state)
        await anyio.wait_all_tasks_blocked()
        flipped.set()

    server = converse(backend, closing(app, state), talk, Strict)
    assert server.sent == [{"type": "websocket.accept"}]


class Gone(Server):
    """Its client has gone, which nobody has heard yet."""

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            raise ConnectionResetError("gone")
        await super().send(message)


class Picky(Server):
    """Sends some close codes only, as daphne does."""

    codes: frozenset[int] = frozenset({4012})

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close" and message["code"] not in self.codes:
            raise ValueError("invalid close code")
        await super().send(message)


class Mute(Picky):
    """Sends none."""

    codes = frozenset()


@pytest.mark.parametrize(("make", "sent"), [(Picky, [CLOSED | {"code": 4012}]), (Mute, [])])
def test_a_server_that_refuses_the_close_code_gets_another_and_the_app_is_disconnected_all_the_same(
    state: MaintenanceState, backend: str, make: Callable[[], Server], sent: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = Echo()
    server = converse(backend, closing(app, state), lambda _: flip(state), make)
    assert server.sent == [ACCEPTED, *sent]
    assert app.received[-1] == DISCONNECTED
    assert len(caplog.messages) == (0 if sent else 1)


def test_a_cancellation_by_the_server_is_left_alone(state: MaintenanceState, backend: str) -> None:
    app = Echo()
    server = converse(backend, closing(app, state), idle, cancel=True)
    assert (server.sent, app.open) == ([ACCEPTED], 0)


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(api, "_state", None)
    yield init_maintenance("memory://")
    api.default_state().close()


@pytest.mark.parametrize("already_on", [True, False])
def test_open_ones_follow_the_state_that_replaces_theirs(
    backend: str, first: MaintenanceState, *, already_on: bool
) -> None:
    app, store = Echo(), FaultyStore()
    wrapped = closing(app, None)
    MaintenanceState(store, register=False).set(already_on)

    async def talk(server: Server) -> None:
        await until(lambda: app.open)
        second = init_maintenance(store)
        assert (await acall_asgi(wrapped)).status == (503 if already_on else 200)  # the first request that follows it
        if not already_on:
            await flip(first)  # no middleware follows it any more
            await anyio.wait_all_tasks_blocked()
            assert server.sent == [ACCEPTED]
            await flip(second)

    assert converse(backend, wrapped, talk).sent[-1] == CLOSED


def test_one_that_comes_under_a_new_state_is_closed_by_it(backend: str, first: MaintenanceState) -> None:
    app = Echo()
    wrapped = closing(app, None)

    async def hang_up(server: Server) -> None:
        server.says("disconnect", code=1000)

    converse(backend, wrapped, hang_up)
    second = init_maintenance("memory://")

    async def talk(server: Server) -> None:
        await until(lambda: app.open)
        await flip(second)

    assert converse(backend, wrapped, talk).sent[-1] == CLOSED


@pytest.mark.parametrize("accepts", [False, True])
def test_one_that_has_not_begun_to_read_is_closed_at_its_first_chance(
    state: MaintenanceState, backend: str, *, accepts: bool
) -> None:
    go_on, received = threading.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if accepts:
            await receive()
        await until(go_on.is_set)
        if accepts:
            await send(ACCEPTED)
        received.append(await receive())

    wrapped = closing(app, state)
    closer = closer_of(wrapped)

    async def talk(_: Server) -> None:
        await until(lambda: closer._table.open)
        await flip(state)
        await until(lambda: all(socket._ending for socket in closer._table.open.values()))
        go_on.set()

    server = converse(backend, wrapped, talk)
    assert (received, server.sent) == ([DISCONNECTED], [*[ACCEPTED] * accepts, CLOSED])


def test_one_that_comes_while_the_others_are_looked_at_hinders_none(state: MaintenanceState, backend: str) -> None:
    wrapped = closing(Echo(), state)
    closer = closer_of(wrapped)
    refuses, asked = closer._admission.refuses, []

    def meanwhile(*arguments: Any) -> bool:
        asked.append(arguments)
        if len(asked) == 1:
            closer._table.open[0] = next(iter(closer._table.open.values()))
        return refuses(*arguments)

    async def look_and_flip(_: object) -> None:
        closer._admission.refuses = meanwhile  # type: ignore[method-assign]
        await flip(state)

    assert converse(backend, wrapped, look_and_flip).sent[-1] == CLOSED
    assert len(asked) == 1


def test_other_scopes_are_left_alone(state: MaintenanceState, backend: str) -> None:
    wrapped = closing(Echo(), state)
    state.set(True, mode="read_only")
    assert anyio.run(acall_asgi, wrapped, backend=backend).status == 200


def test_a_loop_that_has_ended_hinders_no_other(
    state: MaintenanceState, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = replace(REAL, start=lambda run: threading.Thread(target=run).start())
    monkeypatch.setattr("maintenance.http.open.REAL", beside)
    app = Echo()
    wrapped = closing(app, state)
    closer = closer_of(wrapped)
    left: list[Any] = []

    async def remember(server: Server) -> None:
        left.extend(closer._table.open.values())
        server.says("disconnect", code=1000)

    converse(backend, wrapped, remember)

    async def talk(server: Server) -> None:
        closer._table.open = {0: left[0], **closer._table.open}  # one whose loop was stopped dead
        await flip(state)

    assert converse(backend, wrapped, talk).sent[-1] == CLOSED

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
from tests.support.clock import Clock, refuse, runtime
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually

CLOSED = {"type": "websocket.close", "code": 1012, "reason": "maintenance"}
DISCONNECTED = {"type": "websocket.disconnect", "code": 1012, "reason": "maintenance"}


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def state() -> MaintenanceState:
    state = MaintenanceState(FaultyStore(), runtime=runtime(Clock(), start=refuse))
    state.wait_for_answer()
    return state


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
    backend: str, app: Any, talk: Callable[[Server], Any], make: Callable[[], Server] = Server, **scope: Any
) -> Server:
    """Run one WebSocket, and beside it what the client and others do."""

    async def main() -> Server:
        server = make()
        try:
            server.says("connect")
            async with anyio.create_task_group() as group:
                group.start_soon(app, scope_of(**scope), server.receive, server.send)
                await anyio.wait_all_tasks_blocked()
                await talk(server)
        finally:
            server.close()
        return server

    return anyio.run(main, backend=backend)


async def flip(state: MaintenanceState, *, enabled: bool = True, **options: Any) -> None:
    await anyio.to_thread.run_sync(lambda: state.set(enabled, **options))


async def until(predicate: Callable[[], Any]) -> None:
    await anyio.to_thread.run_sync(lambda: eventually(predicate, 10.0, interval=0.005))


# Refused


@pytest.mark.parametrize("mode", ["full", "read_only"])
def test_it_is_refused_with_a_response_where_the_server_can(state: MaintenanceState, backend: str, mode: Any) -> None:
    app = Echo()
    state.set(True, mode=mode, retry_after=9)

    async def talk(server: Server) -> None: ...

    server = converse(backend, MaintenanceMiddleware(app, state), talk, extensions={"websocket.http.response": {}})
    start, body = server.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"9"
    assert (body["type"], int(headers[b"content-length"])) == ("websocket.http.response.body", len(body["body"]))
    assert app.received == []
    assert state.status().in_flight == 0


@pytest.mark.parametrize("more", [{}, {"extensions": None}, {"extensions": {"tls": {}}}], ids=str)
def test_it_is_refused_with_a_close_code_where_it_cannot(state: MaintenanceState, backend: str, more: Any) -> None:
    app = Echo()
    state.set(True)

    async def talk(server: Server) -> None: ...

    server = converse(backend, MaintenanceMiddleware(app, state), talk, **more)
    assert server.sent == [{"type": "websocket.close", "code": 1013, "reason": "maintenance"}]
    assert app.received == []


@pytest.mark.parametrize("close_websockets", [True, False])
def test_an_exempt_one_passes_and_stays_open(state: MaintenanceState, backend: str, *, close_websockets: bool) -> None:
    app = Echo()
    wrapped = MaintenanceMiddleware(app, state, exempt=("WEBSOCKET /live",), close_websockets=close_websockets)
    state.set(True)

    async def talk(server: Server) -> None:
        await flip(state, message="again")
        server.says("receive", text="hi")
        await until(lambda: len(server.sent) == 2)
        server.says("disconnect", code=1000)

    server = converse(backend, wrapped, talk)
    assert server.sent == [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "hi"}]
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1000}


# Open when the flip arrives


def test_without_the_option_it_stays_open_and_is_counted(state: MaintenanceState, backend: str) -> None:
    app = Echo()

    async def talk(server: Server) -> None:
        await flip(state)
        load = state._measure(state.lease.known)
        assert load is not None
        assert (load.in_flight, load.websockets, load.oldest) == (1, 1, "WEBSOCKET /live")
        server.says("receive", text="hi")
        await until(lambda: len(server.sent) == 2)
        server.says("disconnect", code=1000)

    converse(backend, MaintenanceMiddleware(app, state), talk)
    assert state.status().in_flight == 0


def test_one_that_waits_is_closed_at_once(state: MaintenanceState, backend: str) -> None:
    app = Echo()

    async def talk(server: Server) -> None:
        assert app.open == 1
        await flip(state)

    server = converse(backend, MaintenanceMiddleware(app, state, close_websockets=True), talk)
    assert server.sent == [{"type": "websocket.accept"}, CLOSED]
    assert app.received == [{"type": "websocket.connect"}, DISCONNECTED]
    assert state.status().in_flight == 0


def test_before_the_flip_and_without_one_everything_passes(state: MaintenanceState, backend: str) -> None:
    app = Echo()

    async def talk(server: Server) -> None:
        server.says("receive", text="one")
        await flip(state, enabled=False, message="still off")
        server.says("receive", text="two")
        await until(lambda: len(server.sent) == 3)
        server.says("disconnect", code=1000)

    server = converse(backend, MaintenanceMiddleware(app, state, close_websockets=True), talk)
    assert [message.get("text") for message in server.sent] == [None, "one", "two"]


def test_one_that_only_sends_hears_it_at_its_next_send(state: MaintenanceState, backend: str) -> None:
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

    async def main() -> Server:
        server = Server()
        server.says("connect")
        async with anyio.create_task_group() as group:
            group.start_soon(
                MaintenanceMiddleware(ticker, state, close_websockets=True), scope_of(), server.receive, server.send
            )
            await anyio.lowlevel.checkpoint()
            await flip(state)
        server.close()
        return server

    server = anyio.run(main, backend=backend)
    assert isinstance(ended[0], ConnectionAbortedError)
    assert server.sent[-1] == CLOSED
    assert server.sent.count(CLOSED) == 1


def test_one_that_is_busy_hears_it_at_its_next_receive(state: MaintenanceState, backend: str) -> None:
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
        await until(lambda: all(socket._ending for socket in closer._open.values()))
        busy.set()

    wrapped = MaintenanceMiddleware(app, state, close_websockets=True)
    server = converse(backend, wrapped, talk)
    assert received == [DISCONNECTED, DISCONNECTED]
    assert server.sent.count(CLOSED) == 1


def test_a_flip_between_the_check_and_the_table_is_not_missed(state: MaintenanceState, backend: str) -> None:
    app = Echo()
    wrapped = MaintenanceMiddleware(app, state, close_websockets=True)
    closer = closer_of(wrapped)

    async def late(*arguments: Any) -> None:
        await flip(state)  # it was let in, and is not in the table yet
        await closer(*arguments)

    wrapped._app = late

    async def talk(server: Server) -> None:
        await until(lambda: server.sent)

    server = converse(backend, wrapped, talk)
    assert server.sent == [{"type": "websocket.close", "code": 1013, "reason": "maintenance"}]
    assert (app.received, closer._open, state.status().in_flight) == ([], {}, 0)


@pytest.mark.parametrize("mode", ["full", "read_only"])
def test_who_is_bypassed_stays_connected(state: MaintenanceState, backend: str, mode: Any) -> None:
    app = Echo()
    wrapped = MaintenanceMiddleware(
        app, state, close_websockets=True, bypass=lambda request: request.headers.get("x-me") == "1"
    )

    async def talk(server: Server) -> None:
        await flip(state, mode=mode)
        server.says("receive", text="hi")
        await until(lambda: len(server.sent) == 2)
        server.says("disconnect", code=1000)

    server = converse(backend, wrapped, talk, headers=[(b"x-me", b"1")])
    assert CLOSED not in server.sent


def test_a_bypass_is_asked_about_the_connection_as_it_came(state: MaintenanceState, backend: str) -> None:
    """A middleware further in may write into the scope, as one that believes a proxy's headers does."""
    app = Echo()

    async def rewriting(scope: Any, receive: Any, send: Any) -> None:
        scope["client"] = ("192.0.2.1", 1)
        scope["headers"].clear()
        await app(scope, receive, send)

    def is_near(request: Request) -> bool:
        return request.client == "10.0.0.1" and request.headers.get("x-me") == "1"

    wrapped = MaintenanceMiddleware(rewriting, state, close_websockets=True, bypass=is_near)

    async def talk(server: Server) -> None:
        await flip(state)
        server.says("receive", text="hi")
        await until(lambda: len(server.sent) == 2)
        server.says("disconnect", code=1000)

    server = converse(backend, wrapped, talk, headers=[(b"x-me", b"1")], client=("10.0.0.1", 1))
    assert CLOSED not in server.sent


def test_what_the_app_raises_comes_through_unchanged(state: MaintenanceState, backend: str) -> None:
    error = ValueError("the app's")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    wrapped = MaintenanceMiddleware(app, state, close_websockets=True)

    async def main() -> None:
        server = Server()
        with pytest.raises(ValueError, match="the app's") as caught:
            await wrapped(scope_of(), server.receive, server.send)
        assert caught.value is error
        server.close()

    anyio.run(main, backend=backend)
    assert closer_of(wrapped)._open == {}


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

    server = converse(backend, wrapped := MaintenanceMiddleware(app, state, close_websockets=True), talk, Strict)
    assert [message["type"] for message in server.sent] == ["websocket.accept", "websocket.close"]
    assert [message["type"] for message in received] == ["websocket.receive", "websocket.disconnect"]
    assert received[-1] == {"type": "websocket.disconnect", "code": 1000}
    assert closer_of(wrapped)._open == {}


def test_one_that_the_app_refuses_itself_is_left_to_it(state: MaintenanceState, backend: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await receive()
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async def talk(server: Server) -> None:
        await flip(state)
        server.says("disconnect", code=1006)

    server = converse(backend, MaintenanceMiddleware(app, state, close_websockets=True), talk, Strict)
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

    server = converse(backend, MaintenanceMiddleware(app, state, close_websockets=True), talk, Strict)
    assert server.sent == [{"type": "websocket.accept"}]


class Gone(Server):
    """Its client has gone, which nobody has heard yet."""

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            raise ConnectionResetError("gone")
        await super().send(message)


def test_one_whose_client_goes_at_that_moment_ends_like_any_other(state: MaintenanceState, backend: str) -> None:
    app = Echo()
    converse(backend, MaintenanceMiddleware(app, state, close_websockets=True), lambda _: flip(state), Gone)
    assert app.received[-1] == DISCONNECTED


def test_a_cancellation_of_the_servers_is_none_of_ours(state: MaintenanceState, backend: str) -> None:
    app = Echo()

    async def main() -> Server:
        server = Server()
        server.says("connect")
        async with anyio.create_task_group() as group:
            group.start_soon(
                MaintenanceMiddleware(app, state, close_websockets=True), scope_of(), server.receive, server.send
            )
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        server.close()
        return server

    server = anyio.run(main, backend=backend)
    assert server.sent == [{"type": "websocket.accept"}]
    assert app.open == 0


def test_a_state_that_replaces_another_is_followed_too(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_state", None)
    init_maintenance("memory://")
    app = Echo()
    wrapped = MaintenanceMiddleware(app, close_websockets=True)

    async def hang_up(server: Server) -> None:
        server.says("disconnect", code=1000)

    converse(backend, wrapped, hang_up)
    second = init_maintenance("memory://")

    async def talk(server: Server) -> None:
        await until(lambda: app.open)
        await flip(second)

    server = converse(backend, wrapped, talk)
    assert server.sent[-1] == CLOSED
    second.close()


def test_open_ones_hear_of_the_state_that_replaced_theirs(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_state", None)
    first = init_maintenance("memory://")
    app = Echo()
    wrapped = MaintenanceMiddleware(app, close_websockets=True)

    async def talk(server: Server) -> None:
        await until(lambda: app.open)
        second = init_maintenance("memory://")
        assert (await acall_asgi(wrapped)).status == 200  # the first request that follows it
        await flip(first)  # which nobody follows any more
        await anyio.wait_all_tasks_blocked()
        assert server.sent == [{"type": "websocket.accept"}]
        await flip(second)

    assert converse(backend, wrapped, talk).sent[-1] == CLOSED
    api.default_state().close()


def test_open_ones_are_closed_where_the_state_that_replaces_theirs_is_on(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_state", None)
    init_maintenance("memory://")
    app = Echo()
    wrapped = MaintenanceMiddleware(app, close_websockets=True)
    store = FaultyStore()
    MaintenanceState(store, register=False).set(True)

    async def talk(server: Server) -> None:
        await until(lambda: app.open)
        init_maintenance(store)
        assert (await acall_asgi(wrapped)).status == 503

    assert converse(backend, wrapped, talk).sent[-1] == CLOSED
    api.default_state().close()


def flipped_before(go_on: threading.Event, app: Any, state: MaintenanceState, backend: str) -> Server:
    """What an app sends that goes on only once its connection has heard of the flip."""
    wrapped = MaintenanceMiddleware(app, state, close_websockets=True)
    closer = closer_of(wrapped)

    async def talk(server: Server) -> None:
        await until(lambda: closer._open)
        await flip(state)
        await until(lambda: all(socket._ending for socket in closer._open.values()))
        go_on.set()

    return converse(backend, wrapped, talk)


def test_one_that_has_not_begun_to_read_hears_it_first_of_all(state: MaintenanceState, backend: str) -> None:
    go_on, received = threading.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await until(go_on.is_set)
        received.append(await receive())

    server = flipped_before(go_on, app, state, backend)
    assert (received, server.sent) == ([DISCONNECTED], [CLOSED])


def test_one_that_is_accepted_after_the_flip_is_closed_then(state: MaintenanceState, backend: str) -> None:
    go_on, received = threading.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await until(go_on.is_set)
        await send({"type": "websocket.accept"})
        received.append(await receive())

    server = flipped_before(go_on, app, state, backend)
    assert (received, server.sent) == ([DISCONNECTED], [{"type": "websocket.accept"}, CLOSED])


def test_one_that_comes_while_the_others_are_looked_at_hinders_none(state: MaintenanceState, backend: str) -> None:
    wrapped = MaintenanceMiddleware(Echo(), state, close_websockets=True)
    closer = closer_of(wrapped)
    refuses, asked = closer._gate.refuses, []

    def meanwhile(*arguments: Any) -> bool:
        asked.append(arguments)
        if len(asked) == 1:
            closer._open[0] = next(iter(closer._open.values()))
        return refuses(*arguments)

    async def look_and_flip(_: object) -> None:
        closer._gate.refuses = meanwhile  # type: ignore[method-assign]
        await flip(state)

    assert converse(backend, wrapped, look_and_flip).sent[-1] == CLOSED
    assert len(asked) == 1


def test_what_is_no_websocket_is_left_alone(state: MaintenanceState, backend: str) -> None:
    wrapped = MaintenanceMiddleware(Echo(), state, close_websockets=True)
    state.set(True, mode="read_only")
    state.wait_for_answer()
    assert anyio.run(acall_asgi, wrapped, backend=backend).status == 200


def test_a_loop_that_has_ended_hinders_no_other(
    state: MaintenanceState, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = replace(REAL, start=lambda run: threading.Thread(target=run).start())
    monkeypatch.setattr("maintenance.http.websocket.REAL", beside)
    app = Echo()
    wrapped = MaintenanceMiddleware(app, state, close_websockets=True)
    closer = closer_of(wrapped)
    left: list[Any] = []

    async def remember(server: Server) -> None:
        left.extend(closer._open.values())
        server.says("disconnect", code=1000)

    converse(backend, wrapped, remember)

    async def talk(server: Server) -> None:
        closer._open = {0: left[0], **closer._open}  # one whose loop was stopped dead
        await flip(state)

    assert converse(backend, wrapped, talk).sent[-1] == CLOSED

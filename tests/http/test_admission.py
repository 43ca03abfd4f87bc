"""Who passes and what the others get: the options of both adapters, alike in both."""

import errno
import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest

from maintenance import ConfigurationError, MaintenanceState, Request, Response, Snapshot
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.base.values import WEBSOCKET, Load
from maintenance.process import api
from maintenance.process.in_flight import ROOM
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import Answer, call_asgi, call_wsgi
from tests.support.clock import Clock, refuse, runtime
from tests.support.entering import enter
from tests.support.faulty import FaultyStore
from tests.support.plain_apps import asgi, wsgi
from tests.support.waiting import eventually

Ask = Callable[..., Answer]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> MaintenanceState:
    return MaintenanceState(FaultyStore(), runtime=runtime(clock, start=refuse))


class Adapter:
    """One of the two, wrapped around an app that answers 200."""

    def __init__(self, name: str) -> None:
        self.name = name

    def wrap(self, state: Any = None, **options: Any) -> Any:
        return WSGIMiddleware(wsgi, state, **options) if self.name == "wsgi" else ASGIMiddleware(asgi, state, **options)

    def ask(self, app: Any, path: str = "/", **options: Any) -> Answer:
        return (call_wsgi if self.name == "wsgi" else call_asgi)(app, path, **options)


@pytest.fixture(params=["wsgi", "asgi"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return Adapter(request.param)


async def _async(*_: Any) -> bool:
    return True


def _generator(*_: Any) -> Any:
    yield False


async def _agenerator(*_: Any) -> Any:
    yield False


# What is refused at construction


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"state": "postgresql://u:secret@h/db"}, r"state is of type str: write MaintenanceState\(url\), or None"),
        ({"state": 5}, "state is of type int: write a MaintenanceState, or None"),
        ({"default_exempt": 0}, "default_exempt is 0: write True or False"),
        ({"in_flight": None}, "in_flight is None: write True or False"),
        ({"exempt": "/x"}, r"exempt is '/x': write a tuple, such as \('/x',\)"),
        ({"exempt": ("/",)}, "would exempt every path"),
        ({"exempt": ("/a%2fb",)}, "write a decoded path without %"),
        ({"bypass": 5}, "bypass is 5: write a function"),
        ({"bypass": "me"}, "bypass is 'm': write a function"),
        ({"bypass": (lambda _: True, None)}, "bypass is None: write a function"),
        ({"bypass": _async}, "bypass is the async function .*: write a plain one"),
        ({"bypass": (_async,)}, "bypass is the async function .*: write a plain one"),
        ({"bypass": _generator}, "bypass is the generator .*: write a plain function"),
        ({"bypass": _agenerator}, "bypass is the generator .*_agenerator.*: write a plain function"),
        ({"respond": _async}, "respond is the async function .*: write a plain one"),
        ({"respond": 503}, "respond is 503: write a function"),
        ({"respond": (lambda *_: None, lambda *_: None)}, "respond .*: write a function"),
    ],
    ids=[
        "url",
        "state",
        "default exempt",
        "in flight",
        "exempt",
        "all",
        "percent",
        "int",
        "str",
        "None",
        "async",
        "asyncs",
        "generator",
        "async generator",
        "respond",
        "number",
        "two",
    ],
)
def test_a_wrong_option_is_refused_with_what_to_write(adapter: Adapter, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        adapter.wrap(**wrong)
    assert "secret" not in str(caught.value)


def test_an_app_that_cannot_be_called_is_refused(adapter: Adapter) -> None:
    wrap: Any = WSGIMiddleware if adapter.name == "wsgi" else ASGIMiddleware
    for wrong in (None, "postgresql://me:hunter2@h/d"):
        says = f"app is of type {type(wrong).__name__}: write the app that is to be wrapped"
        with pytest.raises(ConfigurationError, match=f"^{says}$"):
            wrap(wrong)


# Bypass


def test_a_bypass_is_asked_about_one_request_alike_in_both(adapter: Adapter, state: MaintenanceState) -> None:
    asked: list[Request] = []
    app = adapter.wrap(state, bypass=lambda request: bool(asked.append(request)))
    state.set(True)
    state.wait_for_answer()
    headers = {"X-Token": "t", "Accept": "text/plain", "Content-Type": "a/b", "Content-Length": "0"}
    answer = adapter.ask(app, "/x", root="/api", method="POST", headers=headers)
    assert answer.status == 503
    [request] = asked
    assert (request.method, request.path, request.client) == ("POST", "/x", "192.0.2.1")
    assert {name.lower(): value for name, value in headers.items()}.items() <= request.headers.items()
    with pytest.raises(TypeError):
        request.headers["x-token"] = "u"  # type: ignore[index]


@pytest.mark.parametrize("raw", [{}, {"client": None, "REMOTE_ADDR": ""}, {"client": ("", 0)}])
def test_a_peer_whose_address_the_server_does_not_tell_has_none(adapter: Adapter, raw: dict[str, Any]) -> None:
    """As behind a Unix socket."""
    assert adapter.wrap()._gate._wire.client(raw) is None


def test_cookies_that_came_in_several_fields_are_joined_as_cookies(state: MaintenanceState) -> None:
    """As HTTP/2 clients send them, and as servers hand them to an ASGI app."""
    asked: list[Request] = []
    app = ASGIMiddleware(asgi, state, bypass=lambda request: bool(asked.append(request)))
    state.set(True)
    state.wait_for_answer()
    several = [(b"cookie", b"bypass=tok"), (b"accept", b"a/b"), (b"cookie", b"theme=dark"), (b"accept", b"c/d")]

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "headers": several}, receive, send)

    assert call_asgi(server, "/x").status == 503
    assert asked[0].headers == {"cookie": "bypass=tok; theme=dark", "accept": "a/b, c/d"}


def test_a_request_is_entered_before_the_flag_is_asked(adapter: Adapter, state: MaintenanceState) -> None:
    """A flip that arrives in between must find it in the table, and it must find the flip."""
    app = adapter.wrap(state)
    in_flight: list[int | None] = []

    class Flipping(list[Any]):
        def append(self, entry: Any) -> None:
            super().append(entry)
            state.set(True)
            in_flight.append(state.status().in_flight)

    app._gate.in_flight.table = Flipping()
    assert adapter.ask(app, "/x").status == 503
    assert in_flight == [1]


@pytest.mark.parametrize("in_flight", [True, False])
def test_the_clock_is_read_before_the_flag_is_asked(
    adapter: Adapter, state: MaintenanceState, *, in_flight: bool
) -> None:
    """Admission is that reading, so whatever is installed after it must be seen."""
    app = adapter.wrap(state, in_flight=in_flight)
    clock, which = app._gate.clock_call
    readings: list[float] = []

    def read_then_flip(*arguments: Any) -> float:
        readings.append(clock(*arguments))
        state.set(True)
        return readings[-1]

    app._gate.clock_call = read_then_flip, which
    assert adapter.ask(app, "/x").status == 503
    assert len(readings) == 1  # admitted on this one, and on none that came later


def test_visitors_are_not_all_told_to_return_at_the_same_second(
    adapter: Adapter, state: MaintenanceState, caplog: pytest.LogCaptureFixture
) -> None:
    state.set(True)
    state.wait_for_answer()
    app = adapter.wrap(state)
    told = {int(adapter.ask(app, "/x").headers["retry-after"]) for _ in range(100)}
    assert len(told) > 1
    assert min(told) >= 60
    assert max(told) <= 66
    assert caplog.records == []


def test_who_is_asked_for_probes_only_is_in_the_fleet_too(adapter: Adapter, clock: Clock) -> None:
    store = FaultyStore()
    state = MaintenanceState(store, runtime=runtime(clock, start=lambda run: threading.Thread(target=run).start()))
    assert adapter.ask(adapter.wrap(state), "/health").status == 200
    eventually(lambda: len(store.inner.connect().fleet().instances) == 1)
    state.close()


def test_requests_are_answered_whatever_keeps_the_thread_from_starting(adapter: Adapter, clock: Clock) -> None:
    def none_left() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    store = FaultyStore()
    MaintenanceState(store).set(True)
    for policy in ("serve", "block"):
        machine = runtime(clock, start=refuse, waker=none_left)
        state = MaintenanceState(store, when_stale=policy, runtime=machine)  # type: ignore[arg-type]
        app = adapter.wrap(state)
        assert adapter.ask(app, "/health").status == 200
        assert adapter.ask(app, "/x").status == 503
        state.set(False)
        assert adapter.ask(app, "/x").status == 200
        state.set(True)


def test_a_bypass_is_not_asked_while_nothing_is_refused(adapter: Adapter, state: MaintenanceState) -> None:
    asked: list[Request] = []
    app = adapter.wrap(state, bypass=asked.append)
    adapter.ask(app)
    state.set(True)
    adapter.ask(app, "/health")
    state.set(True, mode="read_only")
    adapter.ask(app)
    assert asked == []


def test_one_of_several_is_enough(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(
        state, bypass=[lambda request: request.client == "10.0.0.1", lambda request: "x-me" in request.headers]
    )
    state.set(True)
    assert adapter.ask(app).status == 503
    assert adapter.ask(app, headers={"X-Me": "1"}).status == 200


class _AsyncCall:
    async def __call__(self, request: Request) -> bool:
        return True


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    "bypass",
    [lambda _: 1 / 0, _AsyncCall(), lambda request: request.headers["x-not-there"]],
    ids=["raises", "awaitable", "key"],
)
def test_a_bypass_that_fails_lets_nobody_in(
    adapter: Adapter, state: MaintenanceState, caplog: pytest.LogCaptureFixture, bypass: Any
) -> None:
    app = adapter.wrap(state, bypass=[bypass, lambda request: "x-me" in request.headers])
    state.set(True)
    assert adapter.ask(app).status == 503
    assert "a bypass failed, and lets nobody pass" in caplog.text
    assert adapter.ask(app, headers={"X-Me": "1"}).status == 200  # the others are still asked


def test_what_fails_and_cannot_be_logged_either_still_refuses(
    adapter: Adapter, state: MaintenanceState, failing_log: list[str]
) -> None:
    app = adapter.wrap(state, bypass=lambda _: 1 / 0, respond=lambda *_: 1 / 0)
    state.set(True)
    assert adapter.ask(app).status == 503
    assert [line.partition(" (")[0] for line in failing_log] == [
        "maintenance: a bypass failed, and lets nobody pass",
        "maintenance: respond failed; the standard response is sent",
    ]


def test_a_function_that_fails_is_told_of_once_a_minute(
    adapter: Adapter, state: MaintenanceState, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        names = [it.message.split(" failed")[0].removeprefix("maintenance: ") for it in caplog.records if it.exc_info]
        caplog.clear()
        return names

    app = adapter.wrap(state, bypass=[lambda _: 1 / 0, lambda _: int("x")], respond=lambda *_: None)
    state.set(True)
    enter(app._gate.in_flight, "GET", "/", "", {"headers": []}, clock.now)
    for _ in range(3):
        adapter.ask(app)
        state._measure(state.lease.known)
    assert told() == ["a bypass", "a bypass", "respond"]
    clock.now += 59.9
    adapter.ask(app)
    assert told() == []
    clock.now += 0.1
    adapter.ask(app)
    assert told() == ["a bypass", "a bypass", "respond"]


# Respond


def test_a_response_of_the_users_own_is_completed(adapter: Adapter, state: MaintenanceState) -> None:
    asked: list[tuple[Snapshot, Request]] = []

    def respond(snapshot: Snapshot, request: Request) -> Response:
        asked.append((snapshot, request))
        return Response(503, (("Content-Type", "text/x"), ("content-length", "999")), "schön".encode())

    app = adapter.wrap(state, respond=respond)
    state.set(True, message="hi", retry_after=77)
    refusal = app._gate.refusal(app._gate.ask("GET", "/x", "", {"headers": []}), state.lease.current)
    assert [name.lower() for name, _ in refusal.headers].count("content-length") == 1
    asked.clear()
    answer = adapter.ask(app, "/x")
    assert (answer.status, answer.body) == (503, "schön".encode())
    assert dict(answer.headers) == {
        "content-type": "text/x", "retry-after": "77", "cache-control": "no-store", "content-length": "6",
    }  # fmt: skip
    assert (asked[0][0].message, asked[0][1].path) == ("hi", "/x")
    head = adapter.ask(app, "/x", method="HEAD")
    assert (dict(head.headers), head.body) == (dict(answer.headers), b"")


def test_what_it_says_itself_stands(adapter: Adapter, state: MaintenanceState) -> None:
    def respond(*_: Any) -> Response:
        return Response(500, (("retry-after", "5"), ("CACHE-CONTROL", "private")), b"")

    app = adapter.wrap(state, respond=respond)
    state.set(True, retry_after=77)
    answer = adapter.ask(app)
    assert (answer.status, answer.headers["retry-after"], answer.headers["cache-control"]) == (500, "5", "private")


@pytest.mark.parametrize("status", [200, 599, HTTPStatus.SERVICE_UNAVAILABLE])
def test_a_response_that_can_be_sent_is_sent(adapter: Adapter, state: MaintenanceState, status: int) -> None:
    headers = (("X-Empty", ""), ("x_a!", "b"), ("X-Blank", "a\tb c"), ("X-Latin", "\xe9"))
    app = adapter.wrap(state, respond=lambda *_: Response(status, headers, b""))
    state.set(True)
    answer = adapter.ask(app)
    assert answer.status == int(status)
    assert {name.lower(): value for name, value in headers}.items() <= answer.headers.items()


def test_headers_may_come_from_anywhere_and_go_out_as_tuples(adapter: Adapter, state: MaintenanceState) -> None:
    def respond(*_: Any) -> Response:
        return Response(503, ([f"X-{name}", name] for name in "ab"), b"")  # type: ignore[arg-type,misc]

    app = adapter.wrap(state, respond=respond)
    state.set(True)
    answer = adapter.ask(app)
    assert (answer.status, answer.headers["x-a"], answer.headers["x-b"]) == (503, "a", "b")


@pytest.mark.parametrize(
    "respond",
    [
        lambda *_: 1 / 0,
        lambda *_: None,
        lambda *_: "closed",
        lambda *_: Response(503, (), "closed"),  # type: ignore[arg-type]
        lambda *_: Response(503, (("X-Said", "\N{SNOWMAN}"),), b""),
        lambda *_: Response(503, (("X-Said", 5),), b""),  # type: ignore[arg-type]
        lambda *_: Response(503, (("X-Said", "a\r\nSet-Cookie: b"),), b""),
        lambda *_: Response("503", (), b""),  # type: ignore[arg-type]
        lambda *_: Response(True, (), b""),
        lambda *_: Response(503.0, (), b""),  # type: ignore[arg-type]
        lambda *_: Response(199, (), b""),
        lambda *_: Response(600, (), b""),
        *(lambda *_, status=status: Response(status, (), b"") for status in (204, 205, 304)),
        lambda *_: Response(503, (("X-A", "b", "c"),), b""),  # type: ignore[arg-type]
        *(lambda *_, name=name: Response(503, ((name, "a"),), b"") for name in ("", "X Said", "X:", "X-Saíd", "X\n")),
        *(lambda *_, value=value: Response(503, (("X-A", value),), b"") for value in (" a", "a\t", " ", "a\0", "\x7f")),
        lambda *_: Response(503, (("Connection", "close"),), b""),
        lambda *_: Response(503, (("transfer-encoding", "chunked"),), b""),
    ],
    ids=[
        *("raises", "None", "str", "body", "snowman", "number", "newline", "status", "bool", "float", "199", "600"),
        *("204", "205", "304", "three"),
        *("no name", "blank", "colon", "latin", "break", "before", "after", "blank value", "nul", "del"),
        *("hop", "chunked"),
    ],
)
def test_a_response_that_no_server_could_send_is_replaced_by_the_standard_one(
    adapter: Adapter, state: MaintenanceState, caplog: pytest.LogCaptureFixture, respond: Any
) -> None:
    app = adapter.wrap(state, respond=respond)
    state.set(True, message="back soon")
    answer = adapter.ask(app)
    assert (answer.status, json.loads(answer.body)["detail"]) == (503, "back soon")
    assert "respond failed; the standard response is sent" in caplog.text


# Pass and refuse


def test_head_has_the_same_headers_and_no_body(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state)
    state.set(True, retry_after=5)
    get, head = adapter.ask(app), adapter.ask(app, method="HEAD")
    assert dict(get.headers) == dict(head.headers)
    assert (int(head.headers["content-length"]), head.body) == (len(get.body), b"")
    assert get.headers["vary"] == "Accept"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_who_has_sent_something_is_told_that_it_was_not_saved(
    adapter: Adapter, state: MaintenanceState, method: str
) -> None:
    app = adapter.wrap(state)
    state.set(True)
    answer = adapter.ask(app, method=method, headers={"Accept": "text/html"})
    assert (b"What you sent was not saved." in answer.body) == (method in ("POST", "PUT", "DELETE"))


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("OPTIONS", 200), ("POST", 503), ("DELETE", 503)]
)
def test_read_only_lets_reading_pass(adapter: Adapter, state: MaintenanceState, method: str, status: int) -> None:
    app = adapter.wrap(state)
    state.set(True, mode="read_only")
    assert adapter.ask(app, method=method).status == status


@pytest.mark.parametrize("in_flight", [True, False])
def test_what_is_old_is_asked_for_again(
    adapter: Adapter, state: MaintenanceState, clock: Clock, *, in_flight: bool
) -> None:
    app = adapter.wrap(state, in_flight=in_flight)
    assert adapter.ask(app).status == 200
    MaintenanceState(state.store).set(True)
    assert adapter.ask(app).status == 200  # the lease still runs
    clock.now += 10.0
    assert adapter.ask(app).status == 503


def test_what_has_ended_is_thrown_out(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state)
    for _ in range(3 * ROOM):
        assert adapter.ask(app).status == 200
    assert len(app._gate.in_flight.table) <= ROOM


def test_two_middlewares_may_share_a_state(adapter: Adapter, state: MaintenanceState) -> None:
    one, other = adapter.wrap(state), adapter.wrap(state, default_exempt=False)
    state.set(True)
    assert (adapter.ask(one, "/health").status, adapter.ask(other, "/health").status) == (200, 503)
    one._gate._follow(state)
    enter(one._gate.in_flight, "POST", "/", "", {}, 1000.0)
    enter(other._gate.in_flight, "POST", "/", "", {}, 1000.0)
    assert state.status().in_flight == 2  # each counted once


# What of the requests in flight a flag counts


@pytest.fixture
def loaded(state: MaintenanceState, clock: Clock) -> Any:
    """A gate with one of each kind in flight."""
    gate = WSGIMiddleware(wsgi, state, bypass=lambda request: "x-me" in request.headers)._gate
    assert gate.in_flight is not None
    for method, path, root, environ in [
        ("GET", "/page", "/app", {}),
        ("POST", "/form", "/app", {}),
        ("POST", "/form", "/app", {"HTTP_X_ME": "1"}),
        ("POST", "/admin/flip", "/app", {}),
        (WEBSOCKET, "/live", "", {}),
    ]:
        enter(gate.in_flight, method, path, root, environ, clock())
        clock.now += 1
    return gate


@pytest.mark.parametrize(
    ("flag", "load"),
    [
        (Snapshot(enabled=False), Load(5, 1, "GET /page", 5.0)),
        (Snapshot(enabled=True), Load(3, 1, "GET /page", 5.0)),
        (Snapshot(enabled=True, mode="read_only"), Load(2, 1, "POST /form", 4.0)),
    ],
    ids=["off", "full", "read_only"],
)
@pytest.mark.usefixtures("loaded")
def test_only_what_the_flag_refuses_counts(state: MaintenanceState, flag: Snapshot, load: Load) -> None:
    assert state._measure(flag) == load


@pytest.mark.usefixtures("loaded")
def test_a_fork_forgets_the_parents(state: MaintenanceState) -> None:
    state.fork()
    assert state._measure(Snapshot(enabled=True)) == Load()


def test_where_nothing_is_tracked_there_is_nothing_to_forget(state: MaintenanceState) -> None:
    WSGIMiddleware(wsgi, state, in_flight=False)
    state.fork()
    assert state._measure(Snapshot(enabled=True)) is None


def test_what_cannot_be_asked_about_counts(
    loaded: Any, state: MaintenanceState, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    enter(loaded.in_flight, "POST", "/odd", "", {None: ""}, clock())  # no environ: the server has spoilt it
    assert state._measure(Snapshot(enabled=True)).in_flight == 4
    assert "a bypass failed" in caplog.text


class _Meanwhile(str):
    """A name at which, while it is looked at, the app writes to its environ."""

    __slots__ = ("write",)
    write: Callable[[], None]

    def startswith(self, *arguments: Any) -> bool:
        self.write()
        return super().startswith(*arguments)


def test_an_app_may_write_to_its_environ_while_it_is_asked_about(state: MaintenanceState, clock: Clock) -> None:
    gate = WSGIMiddleware(wsgi, state, bypass=lambda request: "x-me" in request.headers)._gate
    assert gate.in_flight is not None
    name = _Meanwhile("HTTP_A")
    environ: dict[str, Any] = {name: "a", "HTTP_X_ME": "1"}
    name.write = lambda: environ.update({f"app.{len(environ)}": 1})
    enter(gate.in_flight, "POST", "/", "", environ, clock())
    load = state._measure(Snapshot(enabled=True))
    assert load is not None
    assert (load.in_flight, state.status().in_flight) == (0, 1)
    assert len(environ) > 2


# A state that replaces another


@pytest.fixture
def first(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaintenanceState]:
    """The default state, until a test makes another."""
    monkeypatch.setattr(api, "_state", None)
    yield replaced(clock)
    api.default_state().close()


def replaced(clock: Clock) -> MaintenanceState:
    state = api.init_maintenance(FaultyStore(), runtime=runtime(clock, start=refuse))
    state.wait_for_answer()
    return state


def hold(app: Any, clock: Clock) -> Callable[[], None]:
    """Let in one request, as the adapters do; what is returned ends it."""
    flight = app._gate.in_flight
    entry = enter(flight, "GET", "/", "", {"headers": []}, clock())
    app._gate.wait_for_answer()
    return entry.clear


def test_each_state_counts_what_was_let_in_before_it_was_replaced(
    adapter: Adapter, first: MaintenanceState, clock: Clock
) -> None:
    app = adapter.wrap()
    end = hold(app, clock)
    assert first.status().in_flight == 1
    second = replaced(clock)
    under_way = hold(app, clock)  # it came before anybody followed the second state, which lets it in
    later = hold(app, clock)
    assert (first.status().in_flight, second.status().in_flight) == (2, 3)
    end()
    under_way()
    assert (first.status().in_flight, second.status().in_flight) == (0, 1)  # the first can end, whatever comes
    third = replaced(clock)
    last = hold(app, clock)
    assert (first.status().in_flight, second.status().in_flight, third.status().in_flight) == (0, 2, 2)
    later()
    last()
    assert (second.status().in_flight, third.status().in_flight) == (0, 0)


def test_what_was_let_in_two_states_ago_counts_and_what_is_just_entering_too(
    adapter: Adapter, first: MaintenanceState, clock: Clock
) -> None:
    app = adapter.wrap()
    end = hold(app, clock)
    replaced(clock)
    hold(app, clock)()
    flight = app._gate.in_flight  # looked up by a request that stands in none yet
    third = replaced(clock)
    app._gate.wait_for_answer()
    entering = enter(flight, "GET", "/", "", {"headers": []}, clock())
    assert third.status().in_flight == 2
    end()
    entering.clear()
    assert third.status().in_flight == 0


def test_a_table_that_is_empty_is_not_kept_for_ever(adapter: Adapter, first: MaintenanceState, clock: Clock) -> None:
    app = adapter.wrap()
    for _ in range(5):
        hold(app, clock)()
        state = replaced(clock)
    hold(app, clock)()
    assert len(app._gate._meters[state].flights) == 2


def test_where_nothing_is_tracked_nothing_is_under_the_next_state_either(
    adapter: Adapter, first: MaintenanceState, clock: Clock
) -> None:
    app = adapter.wrap(in_flight=False)
    app._gate.wait_for_answer()
    assert first.status().in_flight is None
    second = replaced(clock)
    app._gate.wait_for_answer()
    assert second.status().in_flight is None
    assert app._gate.in_flight is None


def test_a_closed_state_that_nobody_replaced_is_followed_once(adapter: Adapter, first: MaintenanceState) -> None:
    app = adapter.wrap()
    adapter.ask(app)
    first.close()
    flight = app._gate.in_flight
    assert [adapter.ask(app).status for _ in range(3)] == [503] * 3
    assert app._gate.in_flight is flight
    assert len(first._meters) == 1


def test_a_middleware_that_is_dropped_is_freed_and_what_it_let_in_still_counts(
    adapter: Adapter, state: MaintenanceState, clock: Clock
) -> None:
    app = adapter.wrap(state, default_exempt=False)
    end = hold(app, clock)
    dropped = weakref.ref(app._gate)
    del app
    gc.collect()
    assert dropped() is None
    load = state._measure(state.set(True))
    assert load is not None
    assert load.in_flight == 1
    end()
    assert state.status().in_flight == 0


def test_of_two_requests_that_find_a_state_at_once_one_is_told_of_its_changes() -> None:
    state = MaintenanceState("memory://")
    gate = WSGIMiddleware(wsgi)._gate
    gate._meters[state] = first = gate._meter()  # what the other request has put there meanwhile
    gate._follow(state)
    assert list(gate._meters.values()) == [first]
    assert state._flips._functions == (first.told,)

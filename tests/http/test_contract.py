"""What both adapters do alike: options, bypass, respond, refusals, and the requests in flight."""

import errno
import inspect
import json
import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from unittest.mock import patch

import pytest

from maintenance import ConfigurationError, MaintenanceState, Request, Response, Snapshot
from maintenance.process.in_flight import ROOM
from tests.http.adapters import Adapter, flip
from tests.support.clock import Clock, refuse, runtime
from tests.support.entering import enter
from tests.support.faulty import FaultyStore
from tests.support.waiting import eventually

TRACKED = pytest.mark.parametrize("in_flight", [True, False])

# Options


async def _async(*_: Any) -> bool:
    return True


def _generator(*_: Any) -> Any:
    yield False


async def _agenerator(*_: Any) -> Any:
    yield False


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"app": None}, "^app is of type NoneType: pass the app to wrap$"),
        ({"app": "postgresql://u:secret@h/db"}, "^app is of type str: pass the app to wrap$"),
        ({"state": "postgresql://u:secret@h/db"}, r"state is of type str: use MaintenanceState\(url\), or None"),
        ({"state": 5}, "state is of type int: use a MaintenanceState, or None"),
        ({"default_exempt": 0}, "default_exempt is 0: use True or False"),
        ({"in_flight": None}, "in_flight is None: use True or False"),
        ({"exempt": "/x"}, r"exempt is '/x': use a tuple, such as \('/metrics',\)"),
        ({"exempt": ("/",)}, "would exempt every path"),
        ({"bypass": 5}, "bypass is 5: use a function"),
        ({"bypass": "me"}, "bypass is 'm': use a function"),
        ({"bypass": (lambda _: True, None)}, "bypass is None: use a function"),
        ({"bypass": _async}, "bypass is the async function .*: use a plain one"),
        ({"bypass": (_async,)}, "bypass is the async function .*: use a plain one"),
        ({"bypass": _generator}, "bypass is the generator .*: use a plain function"),
        ({"bypass": _agenerator}, "bypass is the generator .*_agenerator.*: use a plain function"),
        ({"respond": _async}, "respond is the async function .*: use a plain one"),
        ({"respond": 503}, "respond is 503: use a function"),
        ({"respond": (lambda *_: None, lambda *_: None)}, "respond .*: use a function"),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
def test_a_wrong_option_is_refused_with_what_to_write(adapter: Adapter, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        adapter.middleware(**{"app": print, **wrong})
    assert "secret" not in str(caught.value)


def test_the_options_can_be_inspected(adapter: Adapter) -> None:
    [app, state, *options] = inspect.signature(adapter.middleware).parameters.values()
    assert [app.name, state.name, state.default] == ["app", "state", None]
    assert {it.kind for it in options} == {inspect.Parameter.KEYWORD_ONLY}
    expected = {
        "exempt": (),
        "default_exempt": True,
        "bypass": None,
        "respond": None,
        "in_flight": True,
        "scope": None,
        "status_path": None,
        "cors": (),
        "reads": (),
        "mark_read_only": False,
        "discard_bytes": 8 * 2**20,
        "discard_seconds": 5.0,
        "close_streams": False,
        "page": None,
    }
    if adapter.name == "asgi":
        expected["close_websockets"] = False
    assert {it.name: it.default for it in options} == expected
    assert all(f"{name}: " in adapter.middleware.__init__.__doc__ for name in expected)


# Off and on


@TRACKED
def test_off_the_app_answers_and_on_it_is_not_called(
    adapter: Adapter, state: MaintenanceState, *, in_flight: bool
) -> None:
    running: list[int | None] = []
    app = adapter.wrap(state, inside=lambda _: running.append(state.status().in_flight), in_flight=in_flight)
    assert adapter.ask(app).body == b"the app"
    state.set(True)
    assert adapter.ask(app).status == 503
    assert running == [1 if in_flight else None]
    assert state.status().in_flight == (0 if in_flight else None)


@pytest.mark.parametrize("error", [ValueError("the app's"), KeyboardInterrupt(), GeneratorExit()], ids=repr)
@TRACKED
def test_the_app_s_exception_comes_through_unchanged_and_ends_the_request(
    adapter: Adapter, state: MaintenanceState, error: BaseException, *, in_flight: bool
) -> None:
    if adapter.name == "asgi" and not isinstance(error, Exception):
        pytest.skip("an event loop ends with these")

    def fail(_: Any) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        adapter.ask(adapter.wrap(state, inside=fail, in_flight=in_flight))
    assert caught.value is error
    assert state.status().in_flight == (0 if in_flight else None)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_a_mode_and_a_method_decide(adapter: Adapter, state: MaintenanceState, method: str) -> None:
    app = adapter.wrap(state)
    submits = method in ("POST", "PUT", "DELETE")
    state.set(True, mode="read_only")
    assert adapter.ask(app, method=method).status == (503 if submits else 200)
    state.set(True)
    answer = adapter.ask(app, method=method, headers={"Accept": "text/html"})
    assert (b"Your form was not saved." in answer.body) == submits


def test_head_has_the_same_headers_and_no_body(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state)
    state.set(True, retry_after=5)
    get, head = adapter.ask(app), adapter.ask(app, method="HEAD")
    assert dict(get.headers) == dict(head.headers)
    assert (int(head.headers["content-length"]), head.body) == (len(get.body), b"")
    assert get.headers["vary"] == "Accept, Accept-Language"


def test_visitors_get_different_seconds_to_return_after(adapter: Adapter, state: MaintenanceState) -> None:
    state.set(True)
    app = adapter.wrap(state)
    seconds = {int(adapter.ask(app, "/x").headers["retry-after"]) for _ in range(100)}
    assert len(seconds) > 1
    assert min(seconds) >= 60
    assert max(seconds) <= 66


def test_two_middlewares_may_share_a_state(adapter: Adapter, state: MaintenanceState) -> None:
    one, other = adapter.wrap(state), adapter.wrap(state, default_exempt=False)
    state.set(True)
    assert (adapter.ask(one, "/health").status, adapter.ask(other, "/health").status) == (200, 503)
    for app in (one, other):
        enter(app._admission.in_flight, "POST", "/", "", {}, 1000.0)
    assert state.status().in_flight == 2


# Admission


@TRACKED
def test_the_clock_is_read_once_and_before_the_flag(
    adapter: Adapter, state: MaintenanceState, *, in_flight: bool
) -> None:
    """A request is admitted at that reading, so it must see whatever is installed after it."""
    app = adapter.wrap(state, in_flight=in_flight)
    clock, arguments = app._admission.clock_call
    readings: list[float] = []

    def read_then_flip(*arguments: Any) -> float:
        readings.append(clock(*arguments))
        state.set(True)
        return readings[-1]

    app._admission.clock_call = read_then_flip, arguments
    assert adapter.ask(app, "/x").status == 503
    assert len(readings) == 1


def test_a_request_is_entered_before_the_flag_is_asked(adapter: Adapter, state: MaintenanceState) -> None:
    """A flip that arrives in between must find it in the table, and it must find the flip."""
    app = adapter.wrap(state)
    in_flight: list[int | None] = []

    class Flipping(list[Any]):
        def append(self, entry: Any) -> None:
            super().append(entry)
            state.set(True)
            in_flight.append(state.status().in_flight)

    app._admission.in_flight.table = Flipping()
    assert adapter.ask(app, "/x").status == 503
    assert in_flight == [1]


@TRACKED
def test_a_request_past_the_deadline_asks_the_state_once(
    adapter: Adapter, store: FaultyStore, state: MaintenanceState, clock: Clock, *, in_flight: bool
) -> None:
    app = adapter.wrap(state, in_flight=in_flight)
    MaintenanceState(store).set(True)
    assert adapter.ask(app).status == 200  # the lease still runs
    clock.now += 10.0
    fresh = state.wait_for_answer
    with (
        patch.object(state, "peek", return_value=None) as peek,
        patch.object(state, "wait_for_answer", wraps=fresh) as wait,
    ):
        assert adapter.ask(app).status == 503
        assert (peek.call_count, wait.call_count) == (1 if adapter.name == "asgi" else 0, 1)
        assert [adapter.ask(app).status for _ in range(3)] == [503] * 3
        assert wait.call_count == 1


def test_a_process_that_gets_only_probes_registers_too(adapter: Adapter, store: FaultyStore, clock: Clock) -> None:
    state = MaintenanceState(store, runtime=runtime(clock, start=lambda run: threading.Thread(target=run).start()))
    assert adapter.ask(adapter.wrap(state), "/health").status == 200
    eventually(lambda: len(store.inner.connect().fleet().instances) == 1)
    state.close()


@pytest.mark.parametrize("policy", ["serve", "block"])
def test_requests_are_answered_even_if_no_thread_can_start(
    adapter: Adapter, store: FaultyStore, clock: Clock, policy: Any
) -> None:
    def none_left() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    MaintenanceState(store).set(True)
    state = MaintenanceState(store, when_stale=policy, runtime=runtime(clock, start=refuse, waker=none_left))
    app = adapter.wrap(state)
    assert [adapter.ask(app, path).status for path in ("/health", "/x")] == [200, 503]
    for enabled in (False, True):
        state.set(enabled)
        assert adapter.ask(app, "/x").status == (503 if enabled else 200)


# Bypass


def test_a_bypass_gets_the_same_request_from_both(adapter: Adapter, state: MaintenanceState) -> None:
    asked: list[Request] = []
    app = adapter.wrap(state, bypass=lambda request: bool(asked.append(request)))
    state.set(True)
    headers = {"X-Token": "t", "Accept": "text/plain", "Content-Type": "a/b", "Content-Length": "0"}
    assert adapter.ask(app, "/x", root="/api", method="POST", headers=headers).status == 503
    [request] = asked
    assert (request.method, request.path, request.client) == ("POST", "/x", "192.0.2.1")
    assert {name.lower(): value for name, value in headers.items()}.items() <= request.headers.items()


@pytest.mark.parametrize("raw", [{}, {"client": None, "REMOTE_ADDR": ""}, {"client": ("", 0)}], ids=str)
def test_a_peer_without_an_address_has_no_client(adapter: Adapter, raw: dict[str, Any]) -> None:
    """As behind a Unix socket."""
    assert adapter.wrap()._admission._wire.read_client(raw) is None


def test_a_bypass_is_asked_only_if_a_request_would_be_refused(adapter: Adapter, state: MaintenanceState) -> None:
    asked: list[Request] = []
    app = adapter.wrap(state, bypass=asked.append)
    adapter.ask(app)
    state.set(True)
    adapter.ask(app, "/health")
    state.set(True, mode="read_only")
    adapter.ask(app)
    assert asked == []


class _AsyncCall:
    async def __call__(self, request: Request) -> bool:
        return True


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    ("first", "fails"),
    [
        (lambda request: request.client == "10.0.0.1", False),
        (lambda _: 1 / 0, True),
        (_AsyncCall(), True),
        (lambda request: request.headers["x-not-there"], True),
    ],
    ids=["false", "raises", "awaitable", "key"],
)
def test_one_of_several_is_enough_and_one_that_fails_admits_no_request(
    adapter: Adapter, state: MaintenanceState, caplog: pytest.LogCaptureFixture, first: Any, *, fails: bool
) -> None:
    app = adapter.wrap(state, bypass=[first, lambda request: "x-me" in request.headers])
    state.set(True)
    assert adapter.ask(app).status == 503
    assert ("a bypass failed, so it admits no request" in caplog.text) is fails
    assert adapter.ask(app, headers={"X-Me": "1"}).status == 200


# Respond


def test_respond_builds_the_response_and_gets_the_flag_and_the_request(
    adapter: Adapter, state: MaintenanceState
) -> None:
    asked: list[tuple[Snapshot, Request]] = []

    def respond(snapshot: Snapshot, request: Request) -> Response:
        asked.append((snapshot, request))
        headers = (("Content-Type", "text/x"), ("content-length", "999"))
        return Response(503, headers, "schön".encode())

    app = adapter.wrap(state, respond=respond)
    state.set(True, message="hi", retry_after=77)
    answer, head = (adapter.ask(app, "/x", method=method) for method in ("GET", "HEAD"))
    assert (answer.status, answer.body) == (503, "schön".encode())
    assert dict(answer.headers) == {
        "content-type": "text/x", "retry-after": "77", "cache-control": "no-store", "content-length": "6",
        "maintenance-mode": "full",
    }  # fmt: skip
    assert (dict(head.headers), head.body) == (dict(answer.headers), b"")
    assert (asked[0][0].message, asked[0][1].path) == ("hi", "/x")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (500, [("retry-after", "5"), ("CACHE-CONTROL", "private")]),
        (200, [("X-Empty", ""), ("x_a!", "b")]),
        (599, [("X-Blank", "a\tb c"), ("X-Latin", "\xe9")]),
        (HTTPStatus.SERVICE_UNAVAILABLE, []),
    ],
)
def test_its_own_headers_and_status_are_kept(
    adapter: Adapter, state: MaintenanceState, status: int, headers: list[tuple[str, str]]
) -> None:
    app = adapter.wrap(state, respond=lambda *_: Response(status, iter(headers), b""))  # type: ignore[arg-type]
    state.set(True, retry_after=77)
    answer = adapter.ask(app)
    assert answer.status == int(status)
    assert {name.lower(): value for name, value in headers}.items() <= answer.headers.items()


@pytest.mark.parametrize(
    "returned",
    [
        ZeroDivisionError(),
        None,
        "closed",
        (503, (), "closed"),
        *((status, (), b"") for status in ("503", True, 503.0, 199, 600, 204, 205, 304)),
        *((503, (("X-A", it),), b"") for it in ("\N{SNOWMAN}", 5, "a\r\nB: c", " a", "a\t", " ", "a\0", "\x7f")),
        *((503, ((it, "a"),), b"") for it in ("", "X Said", "X:", "X-Saíd", "X\n", "Connection", "transfer-encoding")),
        (503, (("X-A", "b", "c"),), b""),
    ],
    ids=ascii,
)
def test_a_response_that_no_server_could_send_is_replaced_by_the_standard_one(
    adapter: Adapter, state: MaintenanceState, caplog: pytest.LogCaptureFixture, returned: Any
) -> None:
    def respond(*_: Any) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return Response(*returned) if isinstance(returned, tuple) else returned

    app = adapter.wrap(state, respond=respond)
    state.set(True, message="back soon")
    answer = adapter.ask(app)
    assert (answer.status, json.loads(answer.body)["detail"]) == (503, "back soon")
    assert "respond failed; the standard response is sent" in caplog.text


# Failures in the log


def test_a_function_that_fails_is_logged_once_a_minute(
    adapter: Adapter, state: MaintenanceState, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def names() -> list[str]:
        found = [it.message.split(" failed")[0].removeprefix("maintenance: ") for it in caplog.records if it.exc_info]
        caplog.clear()
        return found

    app = adapter.wrap(state, bypass=[lambda _: 1 / 0, lambda _: int("x")], respond=lambda *_: None)
    state.set(True)
    enter(app._admission.in_flight, "GET", "/", "", {"headers": []}, clock.now)
    for _ in range(3):
        adapter.ask(app)
        state._sources.measure(state.lease.known)
    for passed, logged in [
        (0.0, ["a bypass", "a bypass", "respond"]),
        (59.9, []),
        (0.1, ["a bypass"] * 2 + ["respond"]),
    ]:
        clock.now += passed
        if passed:
            adapter.ask(app)
        assert names() == logged


def test_a_failure_that_cannot_be_logged_still_refuses(
    adapter: Adapter, state: MaintenanceState, failing_log: list[str]
) -> None:
    app = adapter.wrap(state, bypass=lambda _: 1 / 0, respond=lambda *_: 1 / 0)
    state.set(True)
    assert adapter.ask(app).status == 503
    assert [line.partition(" (")[0] for line in failing_log] == [
        "maintenance: a bypass failed, so it admits no request",
        "maintenance: respond failed; the standard response is sent",
    ]


# In flight


def test_requests_that_have_ended_are_swept_out(adapter: Adapter, state: MaintenanceState) -> None:
    app = adapter.wrap(state)
    for _ in range(3 * ROOM):
        assert adapter.ask(app).status == 200
    assert len(app._admission.in_flight.table) <= ROOM


def _measured_inside(adapter: Adapter, state: MaintenanceState, change: Callable[[Any], object], **options: Any) -> Any:
    """The load under a flip while a request runs whose app has changed the raw request."""
    loads: list[Any] = []

    def inside(raw: Any) -> None:
        change(raw)
        loads.append(state._sources.measure(flip(state)))

    adapter.ask(adapter.wrap(state, inside=inside, **options), "/form", method="POST", root="/app")
    return loads[0]


def test_a_request_counts_as_it_came_whatever_the_app_changes(adapter: Adapter, state: MaintenanceState) -> None:
    moved = {adapter.path_key: "/health", adapter.root_key: "", "REQUEST_METHOD": "GET", "method": "GET"}
    load = _measured_inside(adapter, state, lambda raw: raw.update(moved))
    assert (load.in_flight, load.oldest) == (1, "POST /form" if adapter.name == "wsgi" else "POST /app/form")


def test_a_bypass_is_asked_about_a_running_request_as_it_came(adapter: Adapter, state: MaintenanceState) -> None:
    def is_me(request: Request) -> bool:
        return "x-me" in request.headers

    load = _measured_inside(adapter, state, lambda raw: adapter.add_header(raw, "X-Me", "1"), bypass=is_me)
    assert load.in_flight == 1

"""The WSGI adapter: what it does to bodies, and when a request leaves the table."""

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from maintenance import MaintenanceState, Response
from maintenance.base.values import WEBSOCKET
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.clock import Clock, refuse, runtime
from tests.support.faulty import FaultyStore


@pytest.fixture
def state() -> MaintenanceState:
    state = MaintenanceState(FaultyStore(), runtime=runtime(Clock(), start=refuse))
    state.wait_for_answer()
    return state


def environ(path: str = "/", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", **more}
    setup_testing_defaults(made)
    return made


class Wrapped:
    """A middleware around an app that returns one body."""

    def __init__(self, state: MaintenanceState, body: Any, **options: Any) -> None:
        self.seen: list[dict[str, Any]] = []
        self.in_flight_inside: list[int | None] = []
        self._state, self._body = state, body
        self.middleware = MaintenanceMiddleware(self._app, state, **options)

    def _app(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.seen.append(environ)
        self.in_flight_inside.append(self._state.status().in_flight)
        if isinstance(self._body, BaseException):
            raise self._body
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self._body(environ) if callable(self._body) else self._body

    def __call__(self, **more: Any) -> Any:
        return self.middleware(environ(**more), lambda *_: lambda _: None)

    @property
    def in_flight(self) -> int | None:
        return self._state.status().in_flight


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
def test_a_websocket_s_handshake_is_no_get(state: MaintenanceState, upgrade: str) -> None:
    state.set(True, mode="read_only")
    state.wait_for_answer()
    handshake = {"HTTP_UPGRADE": upgrade, "HTTP_CONNECTION": "Upgrade"}
    statuses: list[str] = []

    def ask(app: Any, **more: Any) -> Any:
        return app(environ("/live", **more), lambda status, *_: statuses.append(status))

    for options in ({}, {"in_flight": False}):
        wrapped = Wrapped(state, [b"page"], exempt=("GET /live",), **options)
        ask(wrapped.middleware, **handshake)
        ask(wrapped.middleware, HTTP_UPGRADE="h2c")
    open_ones = Wrapped(state, iter([b""]), exempt=("WEBSOCKET /live",))
    body = ask(open_ones.middleware, **handshake)
    assert statuses == ["503 Service Unavailable", "200 OK"] * 2 + ["200 OK"]
    counted = open_ones.middleware._gate.in_flight
    assert counted is not None
    assert [entry.method for entry in counted.entries()] == [WEBSOCKET]
    body.close()


@pytest.mark.parametrize("body", [[b"a", b"b"], (b"a", b"b"), [], [b""]], ids=str)
def test_a_body_in_one_piece_stays_a_list_with_its_length(state: MaintenanceState, body: Any) -> None:
    wrapped = Wrapped(state, body)
    result = wrapped()
    assert isinstance(result, list)
    assert (len(result), list(result)) == (len(body), list(body))
    assert (wrapped.in_flight_inside, wrapped.in_flight) == ([1], 1)
    result.close()  # type: ignore[attr-defined]
    result.close()  # type: ignore[attr-defined]
    assert wrapped.in_flight == 0


class Chunks:
    """A body with a close of its own."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed, self._error = 0, error

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"a", b"b"])

    def close(self) -> None:
        self.closed += 1
        if self._error:
            raise self._error


def test_a_body_that_comes_in_pieces_is_in_flight_until_it_is_closed(state: MaintenanceState) -> None:
    body = Chunks()
    wrapped = Wrapped(state, body)
    result = wrapped()
    assert b"".join(result) == b"ab"
    assert wrapped.in_flight == 1
    result.close()
    assert (wrapped.in_flight, body.closed) == (0, 1)


def test_a_close_that_raises_lets_the_request_leave_and_raises(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, Chunks(OSError("gone")))
    result = wrapped()
    with pytest.raises(OSError, match="gone"):
        result.close()
    assert wrapped.in_flight == 0


def test_a_generator_hears_that_its_client_has_gone(state: MaintenanceState) -> None:
    heard: list[str] = []

    def stream(_: Any) -> Iterator[bytes]:
        try:
            for number in itertools.count():
                yield str(number).encode()
        except GeneratorExit:
            heard.append("exit")
            raise

    wrapped = Wrapped(state, stream)
    result = wrapped()
    assert next(iter(result)) == b"0"
    assert (wrapped.in_flight, heard) == (1, [])
    result.close()
    assert (wrapped.in_flight, heard) == (0, ["exit"])


def test_an_iterable_without_a_close_is_closed_too(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, lambda _: iter([b"a"]))
    result = wrapped()
    assert list(result) == [b"a"]
    result.close()
    assert wrapped.in_flight == 0


@pytest.mark.parametrize("error", [ValueError("the app's"), KeyboardInterrupt(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("in_flight", [True, False])
def test_what_the_app_raises_comes_through_unchanged(
    state: MaintenanceState, error: BaseException, *, in_flight: bool
) -> None:
    wrapped = Wrapped(state, error, in_flight=in_flight)
    with pytest.raises(type(error)) as caught:
        wrapped()
    assert caught.value is error
    assert wrapped.in_flight == (0 if in_flight else None)


# wsgi.file_wrapper


class Slotted:
    """A wrapper to which nothing can be added, as one written in C."""

    __slots__ = ("file",)

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file = file


class Closeless:
    """A wrapper without a close."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file = file


def test_a_file_stays_what_it_is_and_its_close_is_hooked(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, lambda given: given["wsgi.file_wrapper"](io.BytesIO(b"abc")))
    result = wrapped(**{"wsgi.file_wrapper": FileWrapper})
    assert type(result) is FileWrapper
    assert wrapped.in_flight == 1
    result.close()
    assert (wrapped.in_flight, result.filelike.closed) == (0, True)


def test_a_file_whose_close_cannot_be_hooked_leaves_at_once(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, lambda given: given["wsgi.file_wrapper"](io.BytesIO(b"abc")))
    assert type(wrapped(**{"wsgi.file_wrapper": Slotted})) is Slotted
    assert wrapped.in_flight == 0


def test_a_file_without_a_close_gets_one(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, lambda given: given["wsgi.file_wrapper"](io.BytesIO(b"abc")))
    result = wrapped(**{"wsgi.file_wrapper": Closeless})
    assert wrapped.in_flight == 1
    result.close()
    assert wrapped.in_flight == 0


def test_another_body_is_no_file(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, Chunks())
    result = wrapped(**{"wsgi.file_wrapper": FileWrapper})
    assert b"".join(result) == b"ab"
    result.close()
    assert wrapped.in_flight == 0


def test_a_wrapper_that_is_a_function_makes_bodies_like_any_other(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, lambda given: given["wsgi.file_wrapper"](io.BytesIO(b"abc")))
    result = wrapped(**{"wsgi.file_wrapper": lambda file: Chunks()})
    assert b"".join(result) == b"ab"
    result.close()
    assert wrapped.in_flight == 0


# Off and on


def test_off_without_a_table_the_apps_own_body_comes_back(state: MaintenanceState) -> None:
    body = [b"the app's own"]
    assert Wrapped(state, body, in_flight=False)() is body
    state.set(True, mode="read_only")
    assert Wrapped(state, body, in_flight=False)() is body


@pytest.mark.parametrize("in_flight", [True, False])
def test_on_the_app_is_not_called_and_nothing_stays_in_flight(state: MaintenanceState, *, in_flight: bool) -> None:
    wrapped = Wrapped(state, [b""], in_flight=in_flight)
    state.set(True)
    assert len(wrapped()) == 1
    assert wrapped.seen == []
    assert wrapped.in_flight == (0 if in_flight else None)


def test_head_gets_one_empty_chunk(state: MaintenanceState) -> None:
    state.set(True)
    assert list(Wrapped(state, [b""])(REQUEST_METHOD="HEAD")) == [b""]


def test_a_request_is_entered_as_it_came_before_the_app_changes_it(state: MaintenanceState) -> None:
    def spoil(given: dict[str, Any]) -> Iterable[bytes]:
        given.update(REQUEST_METHOD="GET", PATH_INFO="/health", SCRIPT_NAME="/other")
        return [b""]

    wrapped = Wrapped(state, spoil)
    result = wrapped(REQUEST_METHOD="POST", path="/form", SCRIPT_NAME="/app")
    load = state._measure(state.set(True))
    assert load is not None
    assert (load.in_flight, load.oldest) == (1, "POST /form")
    result.close()


@pytest.mark.parametrize("wrapper", [io.BytesIO, None], ids=["a type", "none"])
def test_a_bypass_is_asked_about_each_request_in_flight_as_it_came(state: MaintenanceState, wrapper: Any) -> None:
    def spoil(given: dict[str, Any]) -> Iterable[bytes]:
        given["HTTP_X_ME"] = "the app's"
        return [b""]

    wrapped = Wrapped(state, spoil, bypass=lambda request: "x-me" in request.headers)
    results = [wrapped(**{"wsgi.file_wrapper": wrapper}) for _ in range(3)]
    load = state._measure(state.set(True))
    assert load is not None
    assert load.in_flight == 3
    assert [list(result) for result in results] == [[b""]] * 3


def test_an_environ_without_paths_is_asked_about_too(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, [b"a"])
    bare = environ()
    del bare["PATH_INFO"], bare["SCRIPT_NAME"]
    assert list(wrapped.middleware(bare, lambda *_: None)) == [b"a"]  # type: ignore[arg-type,return-value]
    state.set(True)
    assert list(wrapped.middleware(bare, lambda *_: None)) != [b"a"]  # type: ignore[arg-type,return-value]


def test_paths_in_utf_8_are_read_as_such(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, [b"a"], exempt=("/käse",))
    state.set(True)
    assert call_wsgi(wrapped.middleware, "/käse/x").status == 200
    assert call_wsgi(wrapped.middleware, "/kase").status == 503
    assert call_wsgi(wrapped.middleware, "/x", root="/käse").status == 503


def test_a_status_that_has_no_name_is_sent_without_one(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, [b""], respond=lambda *_: Response(599, (), b""))
    state.set(True)
    said: list[str] = []
    wrapped.middleware(environ(), lambda status, headers: said.append(status))  # type: ignore[arg-type,return-value,misc]
    assert said == ["599 "]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_reference_checker_finds_nothing_to_say(state: MaintenanceState, method: str, *, enabled: bool) -> None:
    def app(given: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"" if method == "HEAD" else b"a"]

    wrapped = MaintenanceMiddleware(validator(app), state)
    state.set(enabled)
    started: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append(status)
        return lambda _: None

    result = validator(wrapped)(environ(REQUEST_METHOD=method, QUERY_STRING=""), start_response)
    b"".join(result)
    result.close()  # type: ignore[attr-defined]
    assert started == ["503 Service Unavailable" if enabled else "200 OK"]

"""The WSGI adapter: handshakes and paths, and how long each kind of body keeps its request in flight."""

import gc
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from maintenance import MaintenanceState, Response
from maintenance.base.values import WEBSOCKET
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_asgi, call_wsgi


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """An object is freed by its last reference, at once."""
    gc.disable()
    yield
    gc.enable()


def environ(path: str = "/", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", **more}
    setup_testing_defaults(made)
    return made


class Wrapped:
    """A middleware around an app that returns one body, or what a function makes of the environ."""

    def __init__(self, state: MaintenanceState, body: Any, **options: Any) -> None:
        self.in_flight_inside: list[int | None] = []
        self.statuses: list[str] = []
        self._state, self._body = state, body
        self.middleware = MaintenanceMiddleware(self._app, state, **options)

    def _app(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.in_flight_inside.append(self._state.status().in_flight)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self._body(environ) if callable(self._body) else self._body

    def __call__(self, *, wrapper: Any = None, **more: Any) -> Any:
        if wrapper is not None:
            more["wsgi.file_wrapper"] = wrapper
        return self.middleware(environ(**more), self._start)

    def _start(self, status: str, *_: Any) -> Any:
        self.statuses.append(status)
        return lambda _: None

    @property
    def in_flight(self) -> int | None:
        return self._state.status().in_flight


# What is read and sent


HANDSHAKE = {
    "path": "/live",
    "HTTP_CONNECTION": "keep-alive, Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
def test_the_handshake_of_a_websocket_is_not_a_get(state: MaintenanceState, upgrade: str) -> None:
    state.set(True, mode="read_only")
    handshake = {**HANDSHAKE, "HTTP_UPGRADE": upgrade}
    for options in ({}, {"in_flight": False}):
        wrapped = Wrapped(state, [b"page"], exempt=("GET /live",), **options)
        wrapped(**handshake)
        wrapped(path="/live", HTTP_UPGRADE="h2c")
        assert wrapped.statuses == ["503 Service Unavailable", "200 OK"]
    exempt = Wrapped(state, iter([b""]), exempt=("WEBSOCKET /live",))
    body = exempt(**handshake)
    assert exempt.statuses == ["200 OK"]
    counted = exempt.middleware._admission.in_flight
    assert counted is not None
    assert [entry.method for entry in counted.entries()] == [WEBSOCKET]
    body.close()


@pytest.mark.parametrize(
    "changed",
    [
        *({"REQUEST_METHOD": method} for method in ("POST", "DELETE", "get", WEBSOCKET)),
        *({key: "" for key in HANDSHAKE if key == gone} for gone in HANDSHAKE if gone != "path"),
        {"HTTP_UPGRADE": ""},
        {"HTTP_UPGRADE": "websocket2"},
        {"HTTP_CONNECTION": "close"},
    ],
    ids=str,
)
@pytest.mark.parametrize("in_flight", [True, False])
def test_part_of_a_handshake_is_opened_by_no_rule_for_websockets_or_gets(
    state: MaintenanceState, changed: dict[str, str], *, in_flight: bool
) -> None:
    """An app may take it for a WebSocket, and another for an ordinary request."""
    state.set(True, mode="read_only")
    for exempt, status in [(["WEBSOCKET /live"], "503"), (["GET /live"], "503"), (["/live"], "200")]:
        wrapped = Wrapped(state, [b""], exempt=exempt, in_flight=in_flight)
        wrapped(**{"HTTP_UPGRADE": "websocket", **HANDSHAKE, **changed})
        assert wrapped.statuses[0][:3] == status


def test_an_environ_may_leave_out_its_paths(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, [b"a"])
    for enabled in (False, True):
        state.set(enabled)
        bare = environ()
        del bare["PATH_INFO"], bare["SCRIPT_NAME"]
        assert (list(wrapped.middleware(bare, wrapped._start)) == [b"a"]) is not enabled


def test_paths_are_read_as_utf_8(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, [b"a"], exempt=("/käse",))
    state.set(True)
    assert call_wsgi(wrapped.middleware, "/käse/x").status == 200
    assert call_wsgi(wrapped.middleware, "/kase").status == 503
    assert call_wsgi(wrapped.middleware, "/x", root="/käse").status == 503


def test_a_status_without_a_name_is_sent_without_one(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, [b""], respond=lambda *_: Response(599, (), b""))
    state.set(True)
    wrapped()
    assert wrapped.statuses == ["599 "]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_reference_checker_has_no_complaint(state: MaintenanceState, method: str, *, enabled: bool) -> None:
    def app(given: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"" if method == "HEAD" else b"a"]

    state.set(enabled)
    started: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append(status)
        return lambda _: None

    wrapped = validator(MaintenanceMiddleware(validator(app), state))
    result: Any = wrapped(environ(REQUEST_METHOD=method, QUERY_STRING=""), start_response)
    b"".join(result)
    result.close()
    assert started == ["503 Service Unavailable" if enabled else "200 OK"]


# Bodies


@pytest.mark.parametrize("mode", [None, "read_only"])
def test_without_tracking_the_app_s_own_body_comes_back(state: MaintenanceState, mode: Any) -> None:
    body = [b"the app's own"]
    if mode:
        state.set(True, mode=mode)
    assert Wrapped(state, body, in_flight=False)() is body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_refusal_is_a_list_of_one_piece(state: MaintenanceState, method: str) -> None:
    state.set(True)
    [piece] = Wrapped(state, [b""])(REQUEST_METHOD=method)
    assert (piece == b"") is (method == "HEAD")


@pytest.mark.parametrize("body", [[b"a", b"b"], (b"a", b"b"), [], [b""]], ids=str)
def test_a_body_in_one_piece_stays_a_list_with_its_length(state: MaintenanceState, body: Any) -> None:
    wrapped = Wrapped(state, body)
    result = wrapped()
    assert isinstance(result, list)
    assert (len(result), list(result)) == (len(body), list(body))
    assert (wrapped.in_flight_inside, wrapped.in_flight) == ([1], 1)
    for _ in range(2):
        result.close()  # type: ignore[attr-defined]
        assert wrapped.in_flight == 0


class Chunks:
    """A body that comes in pieces and has a close()."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed, self._error = 0, error
        self._pieces = iter([b"a", b"b"])

    def __iter__(self) -> "Chunks":
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self.closed += 1
        if self._error:
            raise self._error


@pytest.mark.parametrize("wrapper", [None, FileWrapper, lambda file: file], ids=["no wrapper", "a type", "a function"])
@pytest.mark.parametrize("error", [None, OSError("gone")], ids=str)
@pytest.mark.parametrize("read", [1, 2])
def test_a_body_in_pieces_is_closed_once_and_keeps_its_request_until_then(
    state: MaintenanceState, wrapper: Any, error: Exception | None, read: int
) -> None:
    body = Chunks(error)
    wrapped = Wrapped(state, body)
    result = wrapped(wrapper=wrapper)
    assert list(itertools.islice(result, read)) == [b"a", b"b"][:read]
    assert (wrapped.in_flight, body.closed) == (1, 0)
    if error is None:
        result.close()
    else:
        with pytest.raises(OSError, match="gone"):
            result.close()
    assert (wrapped.in_flight, body.closed) == (0, 1)


def test_a_generator_is_closed_when_its_client_has_gone(state: MaintenanceState) -> None:
    events: list[str] = []

    def stream(_: Any) -> Iterator[bytes]:
        try:
            for number in itertools.count():
                yield str(number).encode()
        except GeneratorExit:
            events.append("exit")
            raise

    wrapped = Wrapped(state, stream)
    result = wrapped()
    assert next(iter(result)) == b"0"
    assert (wrapped.in_flight, events) == (1, [])
    result.close()
    assert (wrapped.in_flight, events) == (0, ["exit"])


def test_one_middleware_in_another_leaves_a_list_a_list(state: MaintenanceState) -> None:
    inner = Wrapped(state, [b"ab"])
    result: Any = MaintenanceMiddleware(inner.middleware, state)(environ(), inner._start)
    assert (list(result), len(result), inner.in_flight) == ([b"ab"], 1, 2)
    result.close()
    assert inner.in_flight == 0


# Servers that never close a body

BODIES = pytest.mark.parametrize(
    "body",
    [lambda _: [b"a", b"b"], lambda _: (b"a", b"b"), lambda _: iter([b"a", b"b"])],
    ids=["list", "tuple", "iterator"],
)


@BODIES
@pytest.mark.usefixtures("_no_collector")
def test_a_body_that_is_deleted_ends_its_request(state: MaintenanceState, body: Any) -> None:
    wrapped = Wrapped(state, body)
    result = wrapped()
    assert b"".join(result) == b"ab"
    assert wrapped.in_flight == 1
    del result
    assert wrapped.in_flight == 0


@BODIES
@pytest.mark.usefixtures("_no_collector")
def test_its_iterator_alone_keeps_the_request(state: MaintenanceState, body: Any) -> None:
    wrapped = Wrapped(state, body)
    pieces = iter(wrapped())
    assert next(pieces) == b"a"
    assert wrapped.in_flight == 1
    del pieces
    assert wrapped.in_flight == 0


@BODIES
@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")
@pytest.mark.usefixtures("_no_collector")
def test_no_request_stays_in_flight_under_starlettes_wsgi_middleware(state: MaintenanceState, body: Any) -> None:
    from starlette.middleware.wsgi import WSGIMiddleware

    inner = Wrapped(state, body)
    outer = WSGIMiddleware(inner.middleware)
    assert [call_asgi(outer).body for _ in range(3)] == [b"ab"] * 3
    assert (inner.in_flight_inside, inner.in_flight) == ([1, 1, 1], 0)


def test_a_file_that_is_deleted_ends_its_request(state: MaintenanceState) -> None:
    wrapped = Wrapped(state, lambda given: given["wsgi.file_wrapper"](io.BytesIO()))
    result = wrapped(wrapper=FileWrapper)
    assert wrapped.in_flight == 1
    del result
    gc.collect()
    assert wrapped.in_flight == 0


# wsgi.file_wrapper


class Closeless:
    """A file without a close()."""

    def __init__(self, file: Any = None, size: int = 8192) -> None:
        self.file = file


class Sealed(Closeless):
    """A file to which no close() can be added, as one written in C."""

    __slots__ = ("file",)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "close":
            raise AttributeError(name)
        super().__setattr__(name, value)


@pytest.mark.parametrize(
    ("wrapper", "in_flight"),
    [
        (FileWrapper, 1),
        (Closeless, 1),
        (Sealed, 0),  # its end cannot be seen
        (lambda *file: FileWrapper(*file), 1),  # noqa: PLW0108 - a function
        (lambda file, size=0: file, 1),
        (lambda file, size=0: Closeless(), 1),
        (lambda file, size=0: Sealed(), 0),
    ],
    ids=["type", "no close", "sealed", "function", "the file", "function, no close", "function, sealed"],
)
@pytest.mark.usefixtures("_no_collector")
def test_a_file_stays_the_same_object_and_its_close_ends_the_request(
    state: MaintenanceState, wrapper: Callable[..., Any], in_flight: int
) -> None:
    files: list[Any] = []

    def body(given: dict[str, Any]) -> Any:
        wrap = given["wsgi.file_wrapper"]
        files.extend([wrap(io.BytesIO(b"not sent")), wrap(io.BytesIO(b"abc"), 4096), wrap(io.BytesIO(b"nor this"))])
        return files[1]

    wrapped = Wrapped(state, body)
    result = wrapped(wrapper=wrapper)
    assert result is files[1]
    assert wrapped.in_flight == in_flight
    if in_flight:
        result.close()
    assert wrapped.in_flight == 0
    if isinstance(result, FileWrapper):
        assert result.filelike.closed


def test_a_wrapper_that_is_a_type_reaches_the_app_unchanged(state: MaintenanceState) -> None:
    seen: list[Any] = []
    wrapped = Wrapped(state, lambda given: seen.append(given.get("wsgi.file_wrapper")) or [])
    for more in ({"wsgi.file_wrapper": Closeless}, {}, {"wsgi.file_wrapper": None}):
        wrapped(**more)
    assert seen == [Closeless, None, None]

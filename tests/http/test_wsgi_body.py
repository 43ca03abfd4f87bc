"""WSGI bodies under servers that never close them, or that want the very object back."""

import gc
import io
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from maintenance import MaintenanceState
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_asgi
from tests.support.clock import Clock, refuse, runtime
from tests.support.faulty import FaultyStore


@pytest.fixture
def state() -> MaintenanceState:
    state = MaintenanceState(FaultyStore(), runtime=runtime(Clock(), start=refuse))
    state.wait_for_answer()
    return state


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """What is freed is freed by its last reference, at once."""
    gc.disable()
    yield
    gc.enable()


def app_of(body: Callable[[dict[str, Any]], Any]) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body(environ)

    return app


def ask(middleware: MaintenanceMiddleware, **more: Any) -> Any:
    environ: dict[str, Any] = dict(more)
    setup_testing_defaults(environ)
    return middleware(environ, lambda *_: lambda _: None)


# A server that never closes


BODIES = pytest.mark.parametrize(
    "body",
    [lambda _: [b"a", b"b"], lambda _: (b"a", b"b"), lambda _: iter([b"a", b"b"])],
    ids=["list", "tuple", "iter"],
)


@BODIES
@pytest.mark.usefixtures("_no_collector")
def test_a_body_that_is_dropped_unclosed_leaves(state: MaintenanceState, body: Any) -> None:
    result = ask(MaintenanceMiddleware(app_of(body), state))
    assert b"".join(result) == b"ab"
    assert state.status().in_flight == 1
    del result
    assert state.status().in_flight == 0


@BODIES
@pytest.mark.usefixtures("_no_collector")
def test_one_of_which_only_the_iterator_is_kept_stays_until_that_is_dropped(state: MaintenanceState, body: Any) -> None:
    pieces = iter(ask(MaintenanceMiddleware(app_of(body), state)))
    assert next(pieces) == b"a"
    assert state.status().in_flight == 1
    del pieces
    assert state.status().in_flight == 0


class Closed:
    """An iterator that is a body, and counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> "Closed":
        return self

    def __next__(self) -> bytes:
        return b"again"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.usefixtures("_no_collector")
def test_a_body_that_is_left_half_read_is_closed_once_by_the_server(state: MaintenanceState) -> None:
    body = Closed()
    result = ask(MaintenanceMiddleware(app_of(lambda _: body), state))
    for _ in result:
        break
    assert (body.closed, state.status().in_flight) == (0, 1)
    result.close()
    assert (body.closed, state.status().in_flight) == (1, 0)


@BODIES
@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")
@pytest.mark.usefixtures("_no_collector")
def test_nothing_stays_in_flight_under_starlettes_wsgi_middleware(state: MaintenanceState, body: Any) -> None:
    from starlette.middleware.wsgi import WSGIMiddleware

    inside: list[int | None] = []

    def watched(environ: Any) -> Any:
        inside.append(state.status().in_flight)
        return body(environ)

    wrapped = WSGIMiddleware(MaintenanceMiddleware(app_of(watched), state))
    assert [call_asgi(wrapped).body for _ in range(3)] == [b"ab"] * 3
    assert inside == [1, 1, 1]
    assert state.status().in_flight == 0


# A wsgi.file_wrapper that is a function


class Opaque:
    """What only its server can send."""


class Sealed:
    """The same, whose close cannot be hooked."""

    __slots__ = ()


MADE = pytest.mark.parametrize(
    ("make", "until_closed"),
    [(lambda file, size=0: file, 1), (lambda file, size=0: Opaque(), 1), (lambda file, size=0: Sealed(), 0)],
    ids=["file", "opaque", "sealed"],
)


@MADE
@pytest.mark.usefixtures("_no_collector")
def test_what_a_wrapper_that_is_a_function_made_stays_that_very_object(
    state: MaintenanceState, make: Any, until_closed: int
) -> None:
    made: list[Any] = []

    def wrapper(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[-1]

    def body(environ: dict[str, Any]) -> Any:
        environ["wsgi.file_wrapper"](io.BytesIO(b"not sent"))
        sent = environ["wsgi.file_wrapper"](io.BytesIO(b"abc"), 4096)
        environ["wsgi.file_wrapper"](io.BytesIO(b"nor this"))
        return sent

    result = ask(MaintenanceMiddleware(app_of(body), state), **{"wsgi.file_wrapper": wrapper})
    assert result is made[1]
    assert state.status().in_flight == until_closed
    if until_closed:
        result.close()
    assert state.status().in_flight == 0


def test_a_file_that_is_half_sent_is_in_flight_whatever_made_it(state: MaintenanceState) -> None:
    def body(environ: dict[str, Any]) -> Any:
        return environ["wsgi.file_wrapper"](io.BytesIO(b"abc"))

    wrapped = MaintenanceMiddleware(app_of(body), state)
    wrappers = FileWrapper, lambda *file: FileWrapper(*file)  # noqa: PLW0108 - a function
    results = [ask(wrapped, **{"wsgi.file_wrapper": it}) for it in wrappers]
    assert [type(result) for result in results] == [FileWrapper] * 2
    assert state.status().in_flight == 2
    for result in results:
        result.close()
    assert state.status().in_flight == 0


def test_a_file_that_is_dropped_unclosed_leaves(state: MaintenanceState) -> None:
    wrapper = {"wsgi.file_wrapper": FileWrapper}
    result = ask(MaintenanceMiddleware(app_of(lambda it: it["wsgi.file_wrapper"](io.BytesIO())), state), **wrapper)
    assert state.status().in_flight == 1
    del result
    gc.collect()
    assert state.status().in_flight == 0


def test_one_middleware_in_another_leaves_a_list_a_list(state: MaintenanceState) -> None:
    inner = MaintenanceMiddleware(app_of(lambda _: [b"ab"]), state)
    result = ask(MaintenanceMiddleware(inner, state))
    assert (list(result), len(result), state.status().in_flight) == ([b"ab"], 1, 2)
    result.close()
    assert state.status().in_flight == 0


def test_another_body_beside_such_a_wrapper_is_in_flight_until_it_is_closed(state: MaintenanceState) -> None:
    body = Closed()
    result = ask(MaintenanceMiddleware(app_of(lambda _: body), state), **{"wsgi.file_wrapper": lambda file: file})
    assert state.status().in_flight == 1
    result.close()
    assert (body.closed, state.status().in_flight) == (1, 0)


def test_a_wrapper_that_is_a_type_is_given_to_the_app_as_it_is(state: MaintenanceState) -> None:
    seen: list[Any] = []
    wrapped = MaintenanceMiddleware(app_of(lambda environ: seen.append(environ.get("wsgi.file_wrapper")) or []), state)
    ask(wrapped, **{"wsgi.file_wrapper": Opaque})
    ask(wrapped)
    ask(wrapped, **{"wsgi.file_wrapper": None})
    assert seen == [Opaque, None, None]

"""WSGI response bodies that end their request when they are closed (PEP 3333)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Leave = Callable[[], None]
"""Ends a request. A second call changes nothing."""


class _Closable(list[bytes]):
    """A body in one piece. Servers look at its length, so it stays a list."""

    __slots__ = ("close",)
    close: Leave


class Complete(_Closable):
    """A list that is also closed when it is deleted: some servers join a list, or exhaust it, and never close it."""

    __slots__ = ()
    # The slot's own descriptor, so that Python calls what `close` holds without a function in between.
    __del__ = _Closable.close


class _Close:
    """Closes the app's body, if it has a close(), and then ends the request."""

    __slots__ = ("_body", "_close", "_leave")

    def __init__(self, body: object, leave: Leave) -> None:
        # Keep the body: it is closed when it is deleted, so the inner of two middlewares would leave too early.
        self._body, self._close, self._leave = body, getattr(body, "close", None), leave

    def __call__(self) -> None:
        try:
            if self._close is not None:
                self._close()
        finally:
            self._leave()

    def __del__(self) -> None:
        self._leave()


class _Stream:
    """A body that comes in pieces."""

    __slots__ = ("_body", "close")

    def __init__(self, body: Iterable[bytes], leave: Leave) -> None:
        self._body, self.close = body, _Close(body, leave)

    def __iter__(self) -> Iterator[bytes]:
        # A generator, because it keeps this object alive while the server iterates. Not `yield from`: that would close
        # the body when the server deletes the generator, and the server would close it a second time.
        for piece in self._body:  # noqa: UP028
            yield piece


class _Recorder:
    """Wraps a ``wsgi.file_wrapper`` that is a function. No type tells its results from other bodies."""

    __slots__ = ("_results", "_wrapper")

    def __init__(self, wrapper: Callable[..., Any]) -> None:
        self._wrapper = wrapper
        self._results: list[Any] = []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._results.append(self._wrapper(*arguments, **named))
        return self._results[-1]

    def is_result(self, body: Any) -> bool:
        return any(body is result for result in self._results)


def record_files(environ: dict[str, Any]) -> object:
    """Record what a ``wsgi.file_wrapper`` that is a function returns, for `close_with`. Call this before the app.

    Returns:
        The wrapper if it needs no recorder. The next request with the same wrapper can skip this call.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) or not callable(wrapper):
        return wrapper
    environ["wsgi.file_wrapper"] = _Recorder(wrapper)
    return _Recorder


def close_with(body: Iterable[bytes], environ: dict[str, Any], leave: Leave) -> Iterable[bytes]:
    """Return the same body with a close() that also ends its request.

    A result of ``wsgi.file_wrapper`` stays the same object, so that the server can still use sendfile. If its close()
    cannot be replaced, its request ends immediately.
    """
    if type(body) is tuple or type(body) is Complete:
        complete = Complete(body)
        complete.close = _Close(body, leave)
        return complete
    wrapper = environ.get("wsgi.file_wrapper")
    if not (wrapper.is_result(body) if type(wrapper) is _Recorder else _is_instance(body, wrapper)):
        return _Stream(body, leave)
    file: Any = body
    try:
        file.close = _Close(file, leave)
    except AttributeError:
        leave()
    return body


def _is_instance(body: object, wrapper: object) -> bool:
    return isinstance(wrapper, type) and isinstance(body, wrapper)

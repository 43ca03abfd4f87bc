"""WSGI response bodies that tell when they are closed (PEP 3333)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Leave = Callable[[], None]
"""Lets a request leave; a second time changes nothing."""


class _Closing(list[bytes]):
    """A body in one piece: servers look at its length, and so it stays a list."""

    __slots__ = ("close",)
    close: Leave


class Complete(_Closing):
    """The same, closed also when it is dropped: some servers join a list, or exhaust an iterator, and never close."""

    __slots__ = ()
    # A slot's descriptor, so that dropping one calls what `close` holds with no function between.
    __del__ = _Closing.close


class _Stream:
    """A body that comes in pieces, with a close of its own or without."""

    __slots__ = ("_body", "_leave")

    def __init__(self, body: Iterable[bytes], leave: Leave) -> None:
        self._body, self._leave = body, leave

    def __iter__(self) -> Iterator[bytes]:
        # A generator holds on to this, whatever else the server drops. It does not `yield from`, which would close the
        # body where the server drops the generator, and the server closes it again.
        for piece in self._body:  # noqa: UP028
            yield piece

    def close(self) -> None:
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                close()
        finally:
            self._leave()

    def __del__(self) -> None:
        self._leave()


class _Recorder:
    """A ``wsgi.file_wrapper`` that is a function, and what it made: no type tells that from another body."""

    __slots__ = ("_made", "_wrapper")

    def __init__(self, wrapper: Callable[..., Any]) -> None:
        self._wrapper = wrapper
        self._made: list[Any] = []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        made = self._wrapper(*arguments, **named)
        self._made.append(made)
        return made

    def made(self, body: Any) -> bool:
        return any(body is made for made in self._made)


def record(environ: dict[str, Any]) -> bool:
    """Have `closing` know what a ``wsgi.file_wrapper`` that is a function makes; called before the app is.

    Returns:
        Whether the next request's must be looked at too; a server whose wrapper is a type keeps to that.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type):
        return False
    if callable(wrapper):
        environ["wsgi.file_wrapper"] = _Recorder(wrapper)
    return True


def closing(body: Iterable[bytes], environ: dict[str, Any], leave: Leave) -> Iterable[bytes]:
    """The same body, whose `close` also lets its request leave.

    A result of ``wsgi.file_wrapper`` stays what it is, so that the server can still use sendfile; where its close
    cannot be hooked, as with a wrapper that is a function (see `record`), its request leaves at once.
    """
    if type(body) is tuple:
        complete = Complete(body)
        complete.close = leave
        return complete
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _hooked(body, leave)
    if type(wrapper) is _Recorder and wrapper.made(body):
        leave()
        file: Iterable[bytes] = body
        return file
    return _Stream(body, leave)


def _hooked(body: Any, leave: Leave) -> Iterable[bytes]:
    theirs = getattr(body, "close", None)

    def close() -> None:
        try:
            if theirs is not None:
                theirs()
        finally:
            leave()

    try:
        body.close = close
    except AttributeError:
        leave()
    file: Iterable[bytes] = body
    return file

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


class _Close:
    """The close of a body that comes in pieces: its own, where it has one, and then its request leaves."""

    __slots__ = ("_body", "_leave", "_theirs")

    def __init__(self, body: object, leave: Leave) -> None:
        # The body too: one that is dropped is closed, and so the inner one of two middlewares would leave too early.
        self._body, self._theirs, self._leave = body, getattr(body, "close", None), leave

    def __call__(self) -> None:
        try:
            if self._theirs is not None:
                self._theirs()
        finally:
            self._leave()

    def __del__(self) -> None:
        self._leave()


class _Stream:
    """A body that comes in pieces, with a close of its own or without."""

    __slots__ = ("_body", "close")

    def __init__(self, body: Iterable[bytes], leave: Leave) -> None:
        self._body, self.close = body, _Close(body, leave)

    def __iter__(self) -> Iterator[bytes]:
        # A generator holds on to this, whatever else the server drops. It does not `yield from`, which would close the
        # body where the server drops the generator, and the server closes it again.
        for piece in self._body:  # noqa: UP028
            yield piece


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


def record(environ: dict[str, Any]) -> object:
    """Have `closing` know what a ``wsgi.file_wrapper`` that is a function makes; called before the app is.

    Returns:
        The wrapper, where it can be left as it is: the next request that brings the same needs no look.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) or not callable(wrapper):
        return wrapper
    environ["wsgi.file_wrapper"] = _Recorder(wrapper)
    return _Recorder


def closing(body: Iterable[bytes], environ: dict[str, Any], leave: Leave) -> Iterable[bytes]:
    """The same body, whose `close` also lets its request leave.

    A result of ``wsgi.file_wrapper`` stays what it is, so that the server can still use sendfile; where its close
    cannot be hooked, its request leaves at once.
    """
    if type(body) is tuple or type(body) is Complete:
        complete = Complete(body)
        complete.close = _Close(body, leave)
        return complete
    wrapper = environ.get("wsgi.file_wrapper")
    made = wrapper.made(body) if type(wrapper) is _Recorder else isinstance(wrapper, type) and isinstance(body, wrapper)
    return _hooked(body, leave) if made else _Stream(body, leave)


def _hooked(body: Any, leave: Leave) -> Iterable[bytes]:
    try:
        body.close = _Close(body, leave)
    except AttributeError:
        leave()
    file: Iterable[bytes] = body
    return file

"""WSGI response bodies that tell when they are closed (PEP 3333)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from maintenance.in_flight import InFlight


class _Complete(list[bytes]):
    """A body in one piece: servers look at its length, and so it stays a list."""

    __slots__ = ("flight", "key")
    flight: InFlight
    key: int | None

    def close(self) -> None:
        self.flight.leave(self.key)

    # Some servers join a list, or exhaust an iterator, and never close: then it leaves when it is dropped.
    __del__ = close


class _Stream:
    """A body that comes in pieces, with a close of its own or without."""

    __slots__ = ("_body", "_flight", "_key")

    def __init__(self, body: Iterable[bytes], flight: InFlight, key: int | None) -> None:
        self._body, self._flight, self._key = body, flight, key

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
            self._flight.leave(self._key)

    def __del__(self) -> None:
        self._flight.leave(self._key)


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


def record(environ: dict[str, Any]) -> None:
    """Have `closing` know what a ``wsgi.file_wrapper`` that is a function makes; called before the app is."""
    if callable(wrapper := environ.get("wsgi.file_wrapper")) and not isinstance(wrapper, type):
        environ["wsgi.file_wrapper"] = _Recorder(wrapper)


def closing(body: Iterable[bytes], environ: dict[str, Any], flight: InFlight, key: int | None) -> Iterable[bytes]:
    """The same body, whose `close` also lets its request leave.

    A result of ``wsgi.file_wrapper`` stays what it is, so that the server can still use sendfile; where its close
    cannot be hooked, as with a wrapper that is a function (see `record`), its request leaves at once.
    """
    kind = type(body)
    if kind is list or kind is tuple:
        complete = _Complete(body)
        complete.flight, complete.key = flight, key
        return complete
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _hooked(body, flight, key)
    if type(wrapper) is _Recorder and wrapper.made(body):
        flight.leave(key)
        file: Iterable[bytes] = body
        return file
    return _Stream(body, flight, key)


def _hooked(body: Any, flight: InFlight, key: int | None) -> Iterable[bytes]:
    theirs = getattr(body, "close", None)

    def close() -> None:
        try:
            if theirs is not None:
                theirs()
        finally:
            flight.leave(key)

    try:
        body.close = close
    except AttributeError:
        flight.leave(key)
    file: Iterable[bytes] = body
    return file

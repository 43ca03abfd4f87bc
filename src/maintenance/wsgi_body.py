"""WSGI response bodies that tell when they are closed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class _Complete(list[bytes]):
    """A body in one piece: servers look at its length, and so it stays a list."""

    close: Callable[[], None]


class _Stream:
    """A body that comes in pieces."""

    __slots__ = ("_body", "close")

    def __init__(self, body: Iterable[bytes], close: Callable[[], None]) -> None:
        self._body = body
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)


def closing(body: Iterable[bytes], environ: dict[str, Any], left: Callable[[], object]) -> Iterable[bytes]:
    """The same body, whose `close` (PEP 3333) also calls `left`.

    A result of ``wsgi.file_wrapper`` stays what it is, so that the server can still use sendfile; where its close
    cannot be hooked, `left` is called at once.
    """
    theirs = getattr(body, "close", None)

    def close() -> None:
        try:
            if theirs is not None:
                theirs()
        finally:
            left()

    if type(body) in (list, tuple):
        complete = _Complete(body)
        complete.close = close
        return complete
    wrapper = environ.get("wsgi.file_wrapper")
    return _hooked(body, close, left) if _is_made_by(wrapper, body) else _Stream(body, close)


def _is_made_by(wrapper: object, body: object) -> bool:
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _hooked(body: Any, close: Callable[[], None], left: Callable[[], object]) -> Iterable[bytes]:
    try:
        body.close = close
    except AttributeError:
        left()
    wrapped: Iterable[bytes] = body
    return wrapped

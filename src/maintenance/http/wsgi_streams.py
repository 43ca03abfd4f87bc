"""Event streams that a flip ends, under WSGI."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from maintenance.http.admission import Admission
from maintenance.http.open import OpenTable
from maintenance.http.request import Target, is_event_stream
from maintenance.http.wsgi_io import read_method

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def end_streams(app: "WSGIApplication", admission: Admission) -> "WSGIApplication":
    """Wrap an app, so that a flip ends its event streams. Each ends at its next piece: no thread can interrupt it."""
    table = OpenTable(admission)

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        facts = read_method(environ), environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
        raw = environ if admission.keep is None else admission.keep(environ)
        types: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            types[:] = [value for name, value in headers if name.lower() == "content-type"] or [""]
            return start_response(status, headers, *exc_info)

        body = app(admission.strip(environ), start)
        # A generator calls `start` when its first piece is taken.
        if types and not is_event_stream(types[0]):
            return body
        target = admission.read_target(*facts, raw)
        return body if target is None else _WSGIStream(body, target, table, types)

    return answer


class _WSGIStream:
    """A body that ends early after a flip."""

    def __init__(self, body: Iterable[bytes], target: Target, table: OpenTable, types: list[str]) -> None:
        self.target = target
        self._body, self._table, self._types = body, table, types
        self._ended = False

    def end(self) -> None:
        self._ended = True

    def __iter__(self) -> Iterator[bytes]:
        if self._table.add(self) is not None:  # never back to False, because a flip may have ended it already
            self._ended = True
        for piece in self._body:
            if self._ended and is_event_stream(self._types[0]):
                return
            yield piece

    def close(self) -> None:
        self._table.remove(self)
        if (close := getattr(self._body, "close", None)) is not None:
            close()

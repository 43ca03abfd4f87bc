"""The adapter for WSGI (PEP 3333)."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from maintenance.gate import Wire
from maintenance.middleware import Middleware
from maintenance.policy import WEBSOCKET
from maintenance.response import Response
from maintenance.wsgi_body import closing, record

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_STATUS_LINES: Final = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}


def _text(value: str) -> str:
    """What PEP 3333 hands over as Latin-1, as the UTF-8 that it is."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")


def _paths(path: str, root: str) -> tuple[str, str]:
    below = path if path.isascii() else _text(path)
    return below, f"{_text(root.rstrip('/'))}{below}" if root else below


def _method(environ: Any) -> str:
    """The request's method; `WEBSOCKET` for an opening handshake, which comes as a GET (RFC 6455, section 4.1)."""
    method: str = environ["REQUEST_METHOD"]
    return WEBSOCKET if "websocket" in environ.get("HTTP_UPGRADE", "").lower() else method


def _headers(environ: Any) -> dict[str, str]:
    # A copy: the app may be writing to it when a bypass is asked about a request in flight.
    named = {key[5:]: value for key, value in environ.copy().items() if key.startswith("HTTP_")}
    named |= {key: environ[key] for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)}
    return {name.replace("_", "-").lower(): value for name, value in named.items()}


_WIRE: Final = Wire(
    paths=_paths,
    accept=lambda environ: environ.get("HTTP_ACCEPT"),
    headers=_headers,
    client=lambda environ: environ.get("REMOTE_ADDR") or None,
    copy=dict,
)


class MaintenanceMiddleware(Middleware):
    """Wraps a WSGI app: while maintenance is on, what is neither exempt nor bypassed gets 503."""

    _app: "WSGIApplication"
    _wire = _WIRE

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        gate = self._gate
        # Looked up before they are called: an attribute that is called at once takes Python 3.11 twice as long.
        clock, which = gate.clock_call
        flight, app = gate.in_flight, self._app
        if flight is None:
            # The clock first: what is held a moment later may be newer, never older, than the reading.
            if clock(*which) < gate.lease.held.open_until:
                return app(environ, start_response)
            refusal = self._refusal(environ, gate.clock())
            return app(environ, start_response) if refusal is None else _send(refusal, environ, start_response)
        now = clock(*which)
        method = environ["REQUEST_METHOD"] if "HTTP_UPGRADE" not in environ else _method(environ)
        key = flight.enter(method, environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", ""), environ, now)
        try:
            refusal = None if now < gate.lease.held.open_until else self._refusal(environ, now)
            if refusal is None:
                if type(environ.get("wsgi.file_wrapper")) is not type:
                    record(environ)
                return closing(app(environ, start_response), environ, flight, key)
        except BaseException:
            flight.leave(key)
            raise
        flight.leave(key)
        return _send(refusal, environ, start_response)

    def _refusal(self, environ: "WSGIEnvironment", now: float) -> Response | None:
        gate = self._gate
        asked = gate.ask(_method(environ), environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", ""), environ)
        if asked is None:
            gate.begin()
            return None
        return gate.answer(asked, gate.held(now) or gate.settle())


def _send(response: Response, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    start_response(_STATUS_LINES.get(response.status) or f"{response.status} ", list(response.headers))
    # At least one chunk: without any, one server's WSGI wrapper answers 500.
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

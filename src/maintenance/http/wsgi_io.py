"""What a WSGI adapter hears from its server and says to it (PEP 3333)."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from maintenance.base.values import WEBSOCKET
from maintenance.http.admission import Wire
from maintenance.http.refusal import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_STATUS_LINES: Final = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}


def _text(value: str) -> str:
    """What PEP 3333 hands over as Latin-1, as the UTF-8 that it is."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")


def _paths(path: str, root: str) -> tuple[str, str]:
    below = path if path.isascii() else _text(path)
    return below, f"{_text(root.rstrip('/'))}{below}" if root else below


def _headers(environ: Any) -> dict[str, str]:
    # A copy: the app may be writing to it when a bypass is asked about a request in flight.
    named = {key[5:]: value for key, value in environ.copy().items() if key.startswith("HTTP_")}
    named |= {key: environ[key] for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)}
    return {name.replace("_", "-"): value for name, value in named.items()}


WIRE: Final = Wire(
    paths=_paths,
    accept=lambda environ: environ.get("HTTP_ACCEPT"),
    headers=_headers,
    client=lambda environ: environ.get("REMOTE_ADDR") or None,
    copy=dict,
)


def method_of(environ: Any) -> str:
    """The request's method; `WEBSOCKET` for an opening handshake, which comes as a GET (RFC 6455, section 4.1)."""
    method: str = environ["REQUEST_METHOD"]
    return WEBSOCKET if "websocket" in environ.get("HTTP_UPGRADE", "").lower() else method


def sent(response: Response, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    """A refusal as a server takes it; without its body where only the headers were asked for."""
    start_response(_STATUS_LINES.get(response.status) or f"{response.status} ", list(response.headers))
    # At least one chunk: without any, one server's WSGI wrapper answers 500.
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

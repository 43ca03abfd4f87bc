"""What a WSGI adapter receives from its server and sends to it (PEP 3333)."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from maintenance.base.values import WEBSOCKET
from maintenance.http.refusal import Response
from maintenance.http.wire import Wire

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_STATUS_LINES: Final = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}


def _decode(value: str) -> str:
    """Decode a path: PEP 3333 passes its UTF-8 bytes as Latin-1."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")


def _split_path(path: str, root: str) -> tuple[str, str]:
    below = path if path.isascii() else _decode(path)
    return below, f"{_decode(root.rstrip('/'))}{below}" if root else below


def _read_headers(environ: Any) -> dict[str, str]:
    # From a copy: the app may change the environ while a bypass is asked about a running request.
    named = {key[5:]: value for key, value in environ.copy().items() if key.startswith("HTTP_")}
    named |= {key: environ[key] for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)}
    return {name.replace("_", "-"): value for name, value in named.items()}


WIRE: Final = Wire(
    split_path=_split_path,
    read_accept=lambda environ: environ.get("HTTP_ACCEPT"),
    read_headers=_read_headers,
    read_client=lambda environ: environ.get("REMOTE_ADDR") or None,
    copy=dict,
)


def read_method(environ: Any) -> str:
    """Return the method. An opening handshake, which comes as a GET, is a `WEBSOCKET` (RFC 6455, section 4.1)."""
    method: str = environ["REQUEST_METHOD"]
    return WEBSOCKET if "websocket" in environ.get("HTTP_UPGRADE", "").lower() else method


def send_response(response: Response, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    """Start a refusal and return its body. A HEAD gets an empty one."""
    start_response(_STATUS_LINES.get(response.status) or f"{response.status} ", list(response.headers))
    # Never an empty list: Starlette's WSGIMiddleware would answer 500.
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

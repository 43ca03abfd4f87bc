"""What a WSGI adapter receives from its server and sends to it (PEP 3333)."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from maintenance.base.values import WEBSOCKET
from maintenance.http.admission import Admission
from maintenance.http.overrides import HEADERS, find_overrides
from maintenance.http.refusal import Response
from maintenance.http.wire import Wire

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OVERRIDES: Final = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS)

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


def _has_token(environ: Any, key: str, token: str) -> bool:
    return token in (it.strip() for it in environ.get(key, "").lower().split(","))


def _is_handshake(environ: Any) -> bool:
    """Return whether a request is an opening handshake (RFC 6455, section 4.1)."""
    return (
        environ.get("REQUEST_METHOD") == "GET"
        and _has_token(environ, "HTTP_UPGRADE", "websocket")
        and _has_token(environ, "HTTP_CONNECTION", "upgrade")
        and bool(environ.get("HTTP_SEC_WEBSOCKET_KEY"))
        and bool(environ.get("HTTP_SEC_WEBSOCKET_VERSION"))
    )


def _read_overrides(environ: Any) -> list[str]:
    headers = [environ[key] for key in _OVERRIDES if key in environ]
    found = find_overrides(headers, environ.get("QUERY_STRING", ""))
    # Some servers and apps open a WebSocket on less than a whole handshake.
    upgrades = "websocket" in environ.get("HTTP_UPGRADE", "").lower() or "HTTP_SEC_WEBSOCKET_KEY" in environ
    return [*found, WEBSOCKET] if upgrades and not _is_handshake(environ) else found


def answer_status(app: "WSGIApplication", admission: Admission, status_path: str) -> "WSGIApplication":
    """Wrap an app, so that the status path is answered instead of it."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        response = admission.find_status(environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", ""), status_path)
        if response is None:
            return app(environ, start_response)
        return send_response(response, environ, start_response)

    return answer


WIRE: Final = Wire(
    split_path=_split_path,
    read_accept=lambda environ: environ.get("HTTP_ACCEPT"),
    read_headers=_read_headers,
    read_client=lambda environ: environ.get("REMOTE_ADDR") or None,
    read_overrides=_read_overrides,
    is_websocket=_is_handshake,
    find_roots=lambda _: (),  # no WSGI app looks for its mount point in the path
    answer_status=answer_status,
    copy=dict,
)


def read_method(environ: Any) -> str:
    """Return the method. An opening handshake, which comes as a GET, is a `WEBSOCKET`."""
    method: str = environ["REQUEST_METHOD"]
    return WEBSOCKET if "HTTP_UPGRADE" in environ and _is_handshake(environ) else method


def send_response(response: Response, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    """Start a refusal and return its body. A HEAD gets an empty one."""
    start_response(_STATUS_LINES.get(response.status) or f"{response.status} ", list(response.headers))
    # Never an empty list: Starlette's WSGIMiddleware would answer 500.
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

"""What a WSGI adapter receives from its server and sends to it (PEP 3333)."""

import functools
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from maintenance.base.values import WEBSOCKET
from maintenance.http.admission import Admission
from maintenance.http.discard import CHUNK, LINGER, Discard
from maintenance.http.overrides import HEADERS, find_overrides
from maintenance.http.refusal import MODE_HEADER, Response
from maintenance.http.secret_link import NAME, forwards_https, has_link, strip_cookies, strip_query
from maintenance.http.wire import Wire

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OVERRIDES: Final = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS)

_ADDRESSES: Final = ("REQUEST_URI", "RAW_URI")
"""Where some servers put the whole address too."""

_MAX_DIGITS: Final = 1000
"""How many digits of a Content-Length are read."""

_STATUS_LINES: Final = {int(status): f"{int(status)} {status.phrase}" for status in HTTPStatus}


def _decode(value: str) -> str:
    """Decode a path: PEP 3333 passes its UTF-8 bytes as Latin-1."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")


def _split_path(path: str, root: str) -> tuple[str, str]:
    below = path if path.isascii() else _decode(path)
    # Some frameworks add a missing first slash, so the path is ambiguous, as one with // is.
    front = _decode(root.rstrip("/")) if below[:1] in ("", "/") else "//"
    return below, f"{front}{below}" if root else below


def _read_headers(environ: Any) -> dict[str, str]:
    # From a copy: the app may change the environ while a bypass is asked about a running request.
    named = {key[5:]: value for key, value in environ.copy().items() if key.startswith("HTTP_")}
    named |= {key: environ[key] for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)}
    return {name.replace("_", "-"): value for name, value in named.items()}


@functools.lru_cache(32)
def _key(name: str) -> str:
    return f"HTTP_{name.upper().replace('-', '_')}"


def _read_header(environ: Any, name: str) -> str | None:
    value: str | None = environ.get(_key(name))
    return value


def _read_place(environ: Any) -> tuple[bytes, bytes]:
    root, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    return root.rstrip("/").encode("latin-1", "replace"), path.encode("latin-1", "replace")


def _is_secure(environ: Any) -> bool:
    return environ.get("wsgi.url_scheme") == "https" or forwards_https(environ.get("HTTP_X_FORWARDED_PROTO"))


def _strip(environ: Any) -> Any:
    """Return an environ without tokens. The app gets a copy, because the own one is looked at again in a drain."""
    changes: dict[str, str | None] = {}
    cookie, query = environ.get("HTTP_COOKIE"), environ.get("QUERY_STRING")
    if cookie and NAME in cookie:
        changes["HTTP_COOKIE"] = strip_cookies(cookie) or None
    if query and has_link(query):
        changes["QUERY_STRING"] = strip_query(query)
        changes |= {key: _strip_address(environ[key]) for key in _ADDRESSES if key in environ}
    if _key(NAME) in environ:
        changes[_key(NAME)] = None
    if not changes:
        return environ
    return {key: value for key, value in {**environ, **changes}.items() if value is not None or key not in changes}


def _strip_address(address: str) -> str:
    path, _, query = address.partition("?")
    rest = strip_query(query)
    return f"{path}?{rest}" if rest else path


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
    read_header=_read_header,
    read_query=lambda environ: environ.get("QUERY_STRING") or "",
    read_place=_read_place,
    read_method=lambda environ: environ.get("REQUEST_METHOD"),
    is_secure=_is_secure,
    strip=_strip,
    read_wishes=lambda environ: (environ.get("HTTP_ACCEPT"), environ.get("HTTP_ACCEPT_LANGUAGE")),
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


def refuse(
    response: Response, environ: "WSGIEnvironment", start_response: "StartResponse", discard: Discard
) -> Iterable[bytes]:
    """Read the body, within bounds, and return a refusal."""
    read, end = None, 0.0
    if discard.concerns(environ["REQUEST_METHOD"]):
        read, end = _find_reader(environ), time.monotonic() + discard.seconds
    is_read = read is None or _discard_body(read, environ, discard.bytes, end)
    sent = send_response(response, environ, start_response)
    return sent if read is None or is_read else _linger(sent, read, environ, discard.bytes)


def _linger(sent: list[bytes], read: Callable[[int], bytes], environ: Any, most: int) -> Iterator[bytes]:
    """Send a refusal, and read some more, so that the client can read it before the connection is closed."""
    yield from sent
    _discard_body(read, environ, most, time.monotonic() + LINGER)


def _find_reader(environ: Any) -> Callable[[int], bytes] | None:
    """Return a function that reads a part of the body, or None if a client sends none without being asked for it."""
    length: str = environ.get("CONTENT_LENGTH") or "0"
    is_chunked = bool(environ.get("wsgi.input_terminated")) and "HTTP_TRANSFER_ENCODING" in environ
    # The server asks when the body is read first (RFC 9110, section 10.1.1), and a client that was refused sends none.
    # gunicorn asks before it calls the app.
    waits = "HTTP_EXPECT" in environ and "gunicorn.socket" not in environ
    # `int` refuses thousands of digits. Such a body is as long as one of a few digits: too long.
    left = int(length[:_MAX_DIGITS]) if length.isdecimal() else 0
    if waits or not (is_chunked or left):
        return None
    read: Callable[[int], bytes] = environ["wsgi.input"].read
    if is_chunked:
        return read

    def read_part(size: int) -> bytes:
        nonlocal left
        part = read(min(size, left))
        left = left - len(part) if part else 0
        return part

    return read_part


def _discard_body(read: Callable[[int], bytes], environ: Any, most: int, end: float) -> bool:
    """Read the body and throw it away; False if a bound was reached first."""
    with _open_connection(environ) as connection, _end_reading(connection, end):
        while most >= 0 and time.monotonic() < end:
            try:
                part = read(CHUNK)
            except OSError:  # the client is slow, or has gone
                return False
            if not part:
                return time.monotonic() < end
            most -= len(part)
    return False


@contextmanager
def _open_connection(environ: Any) -> Iterator[socket.socket | None]:
    """Yield the connection under a server that has no time-out for a body that comes slowly, but comes."""
    server = sys.modules.get("uwsgi")
    if server is not None:
        with socket.fromfd(server.connection_fd(), socket.AF_INET, socket.SOCK_STREAM) as connection:
            yield connection
    else:
        yield environ.get("gunicorn.socket")


@contextmanager
def _end_reading(connection: socket.socket | None, end: float) -> Iterator[None]:
    """Make a read that takes too long end as if the client had sent no more."""
    if connection is None:
        yield
        return
    timer = threading.Timer(end - time.monotonic(), _shut, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: socket.socket) -> None:
    """Through another descriptor, because a TLS socket that is shut down would send the refusal in plain text."""
    with suppress(OSError), socket.socket(fileno=socket.dup(connection.fileno())) as raw:  # the client has gone
        raw.shutdown(socket.SHUT_RD)


def send_response(response: Response, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    """Start a refusal and return its body. A HEAD gets an empty one."""
    start_response(_STATUS_LINES.get(response.status) or f"{response.status} ", list(response.headers))
    # Never an empty list: Starlette's WSGIMiddleware would answer 500.
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]


def mark_read_only(start_response: "StartResponse") -> "StartResponse":
    """Return a function that starts a response of the app with the mode. No cache keeps it, or the mark would stay."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        if not status.startswith("304"):  # its headers would change a response that is stored
            kept = [(name, value) for name, value in headers if name.lower() != "cache-control"]
            headers = [*kept, (MODE_HEADER, "read_only"), ("Cache-Control", "no-store")]
        return start_response(status, headers, *exc_info)

    return start

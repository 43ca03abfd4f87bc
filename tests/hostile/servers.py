"""What a server hands over for a request target, in the words of its own source. None if it refuses the target."""

from typing import Any
from urllib.parse import unquote, urlsplit

from gunicorn.util import split_request_uri, unquote_to_wsgi_str

from tests.hostile.targets import Asked


def wsgiref(asked: Asked) -> dict[str, Any] | None:
    target = f"/{asked.target.lstrip('/')}" if asked.target.startswith("//") else asked.target
    return _environ(asked, asked.mount, unquote(target.partition("?")[0], "latin-1"))


def gunicorn(asked: Asked) -> dict[str, Any] | None:
    if not asked.target.isascii() or not asked.target or (asked.target[0] != "/" and "://" not in asked.target):
        return None
    try:
        path = split_request_uri(asked.target).path or ""
    except ValueError:
        return None
    if not path.startswith(asked.mount):
        return None
    return _environ(asked, asked.mount, unquote_to_wsgi_str(path[len(asked.mount) :]))


def werkzeug(asked: Asked) -> dict[str, Any] | None:
    try:
        url = urlsplit(asked.target)
    except ValueError:
        return None
    path = f"/{url.netloc}{url.path}" if not url.scheme and url.netloc else url.path
    return _environ(asked, asked.mount, unquote(path).encode("utf-8", "replace").decode("latin-1"))


def uvicorn(asked: Asked) -> dict[str, Any] | None:
    """The path has the mount point in front, whatever the target is."""
    return _scope(asked, asked.mount) if asked.target.isascii() else None


def hypercorn(asked: Asked) -> dict[str, Any] | None:
    """The path is as the client sent it. So is that of daphne."""
    return _scope(asked, "") if asked.target.isascii() else None


WSGI = [wsgiref, gunicorn, werkzeug]
ASGI = [uvicorn, hypercorn]


def _environ(asked: Asked, mount: str, path: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": asked.method,
        "SCRIPT_NAME": mount,
        "PATH_INFO": path,
        "QUERY_STRING": asked.target.partition("?")[2],
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": None,
    }


def _scope(asked: Asked, front: str) -> dict[str, Any]:
    path, _, query = asked.target.partition("?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": front + unquote(path),
        "root_path": asked.mount,
        "query_string": query.encode(),
        "headers": [],
    }

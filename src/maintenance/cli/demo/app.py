"""A small app: one line wraps it, and its own admin endpoint flips the flag."""

import json
import os
from collections.abc import Iterable
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIEnvironment

from maintenance import StoreError, set_maintenance
from maintenance.wsgi import MaintenanceMiddleware

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>A small shop</title>
<style>body {{ font: 1.2rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem }}</style>
<h1>We are open</h1>
<p>Process <b>{pid}</b> served this page. Switch maintenance on, and reload.</p>
</html>
"""


def set_flag(environ: WSGIEnvironment) -> tuple[HTTPStatus, str]:
    """Flip the flag for the whole fleet. A real app checks the user's permission first."""
    try:
        asked = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        snapshot = set_maintenance(asked["enabled"], message=asked.get("message"), actor="the demo's admin")
    except (KeyError, TypeError, ValueError) as exc:
        return HTTPStatus.BAD_REQUEST, json.dumps({"error": f'send {{"enabled": true, "message": "..."}}: {exc}'})
    except StoreError as exc:
        return HTTPStatus.BAD_GATEWAY, json.dumps({"error": str(exc)})
    return HTTPStatus.OK, json.dumps({"enabled": snapshot.enabled, "revision": snapshot.revision})


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve one request. The app itself never checks the flag."""
    kind = "text/plain"
    match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
        case "GET", "/":
            status, text, kind = HTTPStatus.OK, PAGE.format(pid=os.getpid()), "text/html; charset=utf-8"
        case "GET", "/health":
            status, text = HTTPStatus.OK, "ok\n"
        case "PUT", "/api/v1/admin/maintenance":
            (status, text), kind = set_flag(environ), "application/json"
        case _:
            status, text = HTTPStatus.NOT_FOUND, "not found\n"
    start_response(f"{status.value} {status.phrase}", [("Content-Type", kind)])
    return [text.encode()]


# /health is exempt by default. The admin endpoint must be exempt too, or it could not switch maintenance off.
application = MaintenanceMiddleware(app, exempt=("/api/v1/admin",))

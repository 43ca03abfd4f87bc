"""The apps that the benchmark over sockets serves: bare, and wrapped. `MAINTENANCE_DATABASE_URL` names the flag."""

import json
import os
from collections.abc import Iterable
from typing import Any, Final

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware

BODY: Final = b"open"


def bare_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer each request at once."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


async def bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answer each request at once, and support the lifespan."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


_state: Final = MaintenanceState(
    os.environ.get("MAINTENANCE_DATABASE_URL", "memory://"), **json.loads(os.environ.get("BENCHMARK_OPTIONS", "{}"))
)
wsgi: Final = WSGIMiddleware(bare_wsgi, _state)
asgi: Final = ASGIMiddleware(bare_asgi, _state)

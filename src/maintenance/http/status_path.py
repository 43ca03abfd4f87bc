"""The answer at `status_path`: what is on and what is planned, as JSON that other origins may read."""

import json
from typing import Any

from maintenance.base.flags import Flags
from maintenance.base.quoting import quote
from maintenance.base.values import Snapshot
from maintenance.errors import ConfigurationError
from maintenance.http.refusal.response import Response
from maintenance.http.rules import parse_path


def check_status_path(path: object) -> str | None:
    """Return the path without a slash at its end, or None if there is none.

    Raises:
        ConfigurationError: It is not a path.
    """
    if path is None:
        return None
    found = parse_path(path, option="status_path")[:-1]
    if not found:
        raise ConfigurationError(f"status_path is {quote(path)}: use a path of its own, such as '/maintenance.json'")
    return found


def is_below(path: str, status_path: str) -> bool:
    """Return whether a path, relative to the mount point, is the status path or below it."""
    return f"{path}/".startswith(f"{status_path}/")


def render_status(flags: Flags) -> Response:
    """Return what a banner or a browser app needs. Who flipped a flag, and why, is not for visitors."""
    body = _describe(flags.site) | {"scopes": {scope: _describe(flag) for scope, flag in flags.scopes.items()}}
    # As ASCII, because a terminal could obey other control characters.
    content = json.dumps(body).encode()
    headers = (
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(content))),
        ("Cache-Control", "no-store"),
        ("Access-Control-Allow-Origin", "*"),
        ("X-Content-Type-Options", "nosniff"),
    )
    return Response(200, headers, content)


def _describe(flag: Snapshot) -> dict[str, Any]:
    times = {name: when and when.isoformat() for name, when in (("starts", flag.starts), ("until", flag.until))}
    messages = {"messages": flag.messages} if flag.messages else {}
    return {"enabled": flag.enabled, "mode": flag.mode, "message": flag.message, **messages, **times}

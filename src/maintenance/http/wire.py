"""How an adapter reads the values of its server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wire:
    """The functions that read a raw request: an environ under WSGI, a scope under ASGI.

    Attributes:
        split_path: Takes the path and the mount point as the server sends them. Returns the path below the mount
            point and the whole path, both decoded.
        read_accept: Returns the Accept header, or None.
        read_headers: Returns all headers. Several with the same name are joined.
        read_client: Returns the address of the peer, or None.
        read_overrides: Returns the other methods that the app may take the request for.
        is_websocket: Returns whether the request is a WebSocket, and not only sent with a method of that name.
        find_roots: Takes an app. Returns the mount points that it adds after the decision.
        answer_status: Takes an app, an `Admission` and the status path. Returns an app that answers that path.
        copy: Returns a copy that the app cannot change.
    """

    split_path: Callable[[str, str], tuple[str, str]]
    read_accept: Callable[[Any], str | None]
    read_headers: Callable[[Any], dict[str, str]]
    read_client: Callable[[Any], str | None]
    read_overrides: Callable[[Any], list[str]]
    is_websocket: Callable[[Any], bool]
    find_roots: Callable[[Any], tuple[str, ...]]
    copy: Callable[[Any], Any]
    answer_status: Callable[[Any, Any, str], Any]

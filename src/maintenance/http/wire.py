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
        read_header: Returns a header by its name in lower case, or None. Several with the same name are joined.
        read_query: Returns the query string as it was sent, decoded as Latin-1.
        read_place: Returns the mount point, without a slash at its end, and the path below it, in UTF-8.
        read_method: Returns the method as it was sent. None if there is none.
        is_secure: Returns whether the client uses TLS, as far as the server or a header shows.
        strip: Returns the request without the tokens of secret links: a copy, if it has any.
        read_wishes: Returns the headers Accept and Accept-Language, or None for each.
        read_headers: Returns all headers. Several with the same name are joined.
        read_client: Returns the address of the peer, or None.
        read_overrides: Returns the other methods that the app may take the request for.
        is_websocket: Returns whether the request is a WebSocket, and not only sent with a method of that name.
        find_roots: Takes an app. Returns the mount points that it adds after the decision.
        answer_status: Takes an app, an `Admission` and the status path. Returns an app that answers that path.
        copy: Returns a copy that the app cannot change.
    """

    split_path: Callable[[str, str], tuple[str, str]]
    read_header: Callable[[Any, str], str | None]
    read_query: Callable[[Any], str]
    read_place: Callable[[Any], tuple[bytes, bytes]]
    read_method: Callable[[Any], str | None]
    is_secure: Callable[[Any], bool]
    strip: Callable[[Any], Any]
    read_wishes: Callable[[Any], tuple[str | None, str | None]]
    read_headers: Callable[[Any], dict[str, str]]
    read_client: Callable[[Any], str | None]
    read_overrides: Callable[[Any], list[str]]
    is_websocket: Callable[[Any], bool]
    find_roots: Callable[[Any], tuple[str, ...]]
    copy: Callable[[Any], Any]
    answer_status: Callable[[Any, Any, str], Any]

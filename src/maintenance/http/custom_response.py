"""What a user's `respond` returns, checked and completed: pure functions over plain values."""

import re
from dataclasses import replace
from typing import Any, Final

from maintenance.http.refusal import TOKEN, Response

_NAME: Final = re.compile(TOKEN)
"""RFC 9110, section 5.1."""

_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
"""RFC 9110, section 5.5."""

_HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""What only a server may say (PEP 3333, "Other HTTP Features"; RFC 2616, section 13.5.1)."""

_WITHOUT_CONTENT: Final = frozenset({204, 205, 304})
"""RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5."""


def completed(response: Response, standard: Response) -> Response:
    """A user's response with what every refusal needs: a Retry-After, no caching, and its exact length.

    Args:
        response: What the user's function returned.
        standard: What would be sent without it.

    Raises:
        TypeError, ValueError: It would fail in the server, where nothing could be sent in its place any more.
    """
    # Read once, because they may come from a generator, and as the tuples that servers want.
    response = replace(response, headers=tuple((name, value) for name, value in response.headers))
    _check_sendable(response)
    given = tuple(pair for pair in response.headers if pair[0].lower() != "content-length")
    names = {name.lower() for name, _ in given}
    needed = {"retry-after", "cache-control"} - names
    added = tuple(pair for pair in standard.headers if pair[0].lower() in needed)
    return replace(response, headers=(*given, *added, ("Content-Length", str(len(response.body)))))


def _check_sendable(response: Any) -> None:
    status, body = response.status, response.body
    if not isinstance(status, int) or not isinstance(body, bytes):
        raise TypeError(f"{response!r} cannot be sent: write Response(503, headers, b'...'), the body as bytes")
    if not 200 <= status <= 599 or status in _WITHOUT_CONTENT:
        raise ValueError(f"the status {status} cannot be sent: write one from 200 to 599 that has content, such as 503")
    for name, value in response.headers:
        _check_header(name, value)


def _check_header(name: Any, value: Any) -> None:
    sendable = isinstance(name, str) and isinstance(value, str) and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    if not sendable:
        raise ValueError(
            f"the header {(name, value)!r} cannot be sent: write a name without blanks, "
            "and a value in Latin-1, without line breaks and without blanks at its ends"
        )
    if name.lower() in _HOP_BY_HOP:
        raise ValueError(f"the header {(name, value)!r} cannot be sent: it is the server's own; leave it out")

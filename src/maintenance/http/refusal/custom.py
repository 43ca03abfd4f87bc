"""Checks and completes the response that a user's `respond` function returns."""

import re
from dataclasses import replace
from typing import Any, Final

from maintenance.http.refusal.accept import TOKEN
from maintenance.http.refusal.response import Response

_NAME: Final = re.compile(TOKEN)
"""RFC 9110, section 5.1."""

_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
"""RFC 9110, section 5.5."""

_HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Only a server may send these (PEP 3333, "Other HTTP Features"; RFC 2616, section 13.5.1)."""

_WITHOUT_CONTENT: Final = frozenset({204, 205, 304})
"""RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5."""


def complete_response(response: Response, standard: Response) -> Response:
    """Add the headers that every refusal needs: three of the standard response, and the exact Content-Length.

    Args:
        response: The return value of the user's function.
        standard: The response that would be sent without that function.

    Raises:
        TypeError, ValueError: The server could not send it. By then it would be too late to send another one.
    """
    # The headers may come from a generator, so they are read once. Servers want tuples.
    headers = tuple((name, value) for name, value in response.headers)
    response = replace(response, headers=headers)
    _check_status(response)
    for name, value in headers:
        _check_header(name, value)
    given = tuple(pair for pair in headers if pair[0].lower() != "content-length")
    missing = {"retry-after", "cache-control", "maintenance-mode"} - {name.lower() for name, _ in given}
    added = tuple(pair for pair in standard.headers if pair[0].lower() in missing)
    return replace(response, headers=(*given, *added, ("Content-Length", str(len(response.body)))))


def _check_status(response: Any) -> None:
    status, body = response.status, response.body
    if not isinstance(status, int) or not isinstance(body, bytes):
        raise TypeError(f"{response!r} cannot be sent: return Response(503, headers, b'...'), with the body as bytes")
    if not 200 <= status <= 599 or status in _WITHOUT_CONTENT:
        raise ValueError(f"the status {status} cannot be sent: use one from 200 to 599 that has content, such as 503")


def _check_header(name: Any, value: Any) -> None:
    if not (isinstance(name, str) and isinstance(value, str) and _NAME.fullmatch(name) and _VALUE.fullmatch(value)):
        raise ValueError(
            f"the header {(name, value)!r} cannot be sent: use a name without blanks, "
            "and a value in Latin-1, without line breaks and without blanks at its ends"
        )
    if name.lower() in _HOP_BY_HOP:
        raise ValueError(f"the header {(name, value)!r} cannot be sent: only the server may set it; leave it out")

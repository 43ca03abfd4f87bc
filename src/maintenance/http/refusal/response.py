"""An HTTP response as a plain value."""

from dataclasses import dataclass
from typing import Final

MODE_HEADER: Final = "Maintenance-Mode"
"""The header by which a client tells a refusal from any other 503."""


class _Encodable:
    """A place, beside the fields, where the ASGI adapter keeps the headers as bytes once it has sent them."""

    __slots__ = ("_encoded",)
    _encoded: list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Response(_Encodable):
    """An HTTP response as a plain value.

    Attributes:
        status: The status code, such as 503.
        headers: Names and values, in the order sent. ``Content-Length`` is the length of `body`.
        body: The body of a GET. The adapter leaves it out if the request is a HEAD.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

"""An HTTP response as a plain value."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response as a plain value.

    Attributes:
        status: The status code, such as 503.
        headers: Names and values, in the order sent. ``Content-Length`` is the length of `body`.
        body: The body of a GET. The adapter leaves it out if the request is a HEAD.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    # The headers as bytes, which the ASGI adapter sets when it first sends the response.
    _encoded: list[tuple[bytes, bytes]] | None = field(default=None, init=False, repr=False, compare=False)

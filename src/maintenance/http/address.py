"""The parts of a request's address, and its cookies. Any text is read, and none raises."""

from typing import Final
from urllib.parse import parse_qsl, quote

_PATH: Final = "/:@!$&'()*+,;=-._~"
"""What a path may contain as it is (RFC 3986, section 3.3)."""

_QUERY: Final = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")
"""What a query may contain as it was sent."""


def encode_path(path: bytes) -> str:
    """Return a path for a Location. No reader takes its beginning for another host, as it would in ``//host``."""
    encoded = quote(path, safe=_PATH)
    encoded = encoded if encoded.startswith("/") else f"/{encoded}"
    return f"/.{encoded}" if encoded.startswith("//") else encoded


def encode_query(query: str) -> str:
    """Return a query as it was sent. Only what no request line may contain is encoded."""
    return quote(query.encode("latin-1", "replace"), safe=_QUERY)


def parse_query(query: str) -> dict[str, str]:
    """Return the parameters of a query, decoded. If a name is repeated, its last value counts."""
    return dict(parse_qsl(encode_query(query), keep_blank_values=True))


def parse_cookies(header: str) -> dict[str, str]:
    """Return the cookies of a header, as they were sent. If a name is repeated, its first value counts.

    Browsers send the cookie of the longest path first (RFC 6265, section 5.4). `http.cookies` is not used: at the first
    cookie that it cannot read, it drops those that follow.
    """
    pairs = (part.partition("=") for part in header.split(";"))
    named = [(name.strip(), value.strip()) for name, found, value in pairs if found]
    return dict(reversed(named))


def parse_host(header: str) -> str:
    """Return the name of a host in lower case, without a port and without a dot at its end."""
    name, colon, port = header.strip().lower().rpartition(":")
    # The colons inside the brackets of an IPv6 address begin no port.
    host = name if colon and "]" not in port else header.strip().lower()
    return host.removesuffix(".")

"""The secret link: how a request shows a token, and how the app never sees one. Pure functions over plain values."""

import hmac
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote_plus

from maintenance.base.secret import LONGEST_TOKEN, hash_token
from maintenance.http.address import encode_path, encode_query
from maintenance.http.refusal.response import Response
from maintenance.http.wire import Wire

NAME: Final = "maintenance-bypass"
"""The name of the parameter and of the header, and the beginning of the name of each cookie."""

MAX_TOKENS: Final = 8
"""How many tokens of one header or query are looked at. Each flag that is on may have one of its own."""

COOKIE_LIFE: Final = 12 * 60 * 60
"""Seconds for which a browser keeps the cookie. It ends earlier if the flag is switched off."""

_FOLLOWED: Final = frozenset({"GET", "HEAD"})
"""The methods that a redirect keeps. Any other request with a valid token is admitted as it is."""


def has_link(query: str) -> bool:
    """Return whether a query, as it was sent, has the parameter. Nearly none has."""
    return NAME in (unquote_plus(query) if "%" in query else query)


def read_link(query: str) -> list[str]:
    """Return the tokens of a query."""
    pairs = (pair.partition("=") for pair in query.split("&") if _is_link(pair))
    return [unquote_plus(value) for _, _, value in pairs][:MAX_TOKENS]


def strip_query(query: str) -> str:
    """Return a query without the parameter. The rest stays as it was sent."""
    return "&".join(pair for pair in query.split("&") if not _is_link(pair))


def _is_link(pair: str) -> bool:
    return unquote_plus(pair.partition("=")[0]) == NAME


def name_cookie(secret: str) -> str:
    """Return the name of the cookie of a secret. Each has its own, so that the links of two scopes work together."""
    return f"{NAME}-{secret[:8]}"


def strip_cookies(header: str) -> str:
    """Return a Cookie header without the cookies of links. The rest stays as it was sent."""
    return ";".join(part for part in header.split(";") if not part.lstrip().startswith(NAME)).lstrip()


def find_cookies(header: str, secret: str) -> list[str]:
    """Return the values of the cookies of a secret. A browser may have one for each mount point."""
    name = f"{name_cookie(secret)}="
    if name not in header:
        return []
    parts = (part.strip() for part in header.split(";"))
    return [part.removeprefix(name) for part in parts if part.startswith(name)][:MAX_TOKENS]


def find_token(secret: str, tokens: Iterable[str]) -> str | None:
    """Return the token that has a hash, in a time that does not show how near the others are."""
    found = None
    for token in tokens:
        if len(token) <= LONGEST_TOKEN and hmac.compare_digest(hash_token(token), secret):
            found = token
    return found


def forwards_https(proto: str | None) -> bool:
    """Return whether a proxy says that the client uses TLS. Who lies about it only restricts their own cookie."""
    return proto is not None and proto.strip().lower().startswith("https")


class Links:
    """Reads the tokens of raw requests.

    Nothing is kept about a token: its hash takes less time than a look into a cache with a lock.
    """

    def __init__(self, wire: Wire) -> None:
        """Take the functions that read a request."""
        self._wire = wire

    def opens(self, raw: Any, secret: str) -> bool:
        """Return whether a request shows the token of a secret: in a cookie, the header or the query."""
        cookies = self._wire.read_header(raw, "cookie")
        # First and alone, because a browser sends it with each request.
        if cookies and find_token(secret, find_cookies(cookies, secret)):
            return True
        header, query = self._wire.read_header(raw, NAME), self._wire.read_query(raw)
        tokens = [token.strip() for token in header.split(",", MAX_TOKENS)[:MAX_TOKENS]] if header else []
        return find_token(secret, tokens + (read_link(query) if has_link(query) else [])) is not None

    def is_followed(self, method: str, raw: Any) -> bool:
        """Return whether a request may be answered with `redirect`."""
        return method in _FOLLOWED and has_link(self._wire.read_query(raw))

    def redirect(self, raw: Any, secrets: Iterable[str]) -> Response | None:
        """Return the answer to a link: the same address without the token, and a cookie. None if no token is right."""
        query = self._wire.read_query(raw)
        tokens = read_link(query)
        found = [(secret, token) for secret in secrets if (token := find_token(secret, tokens))]
        if not found:
            return None
        mount, below = self._wire.read_place(raw)
        rest = encode_query(strip_query(query))
        attributes = f"Max-Age={COOKIE_LIFE}; Path={encode_path(mount).replace(';', '%3B')}; HttpOnly; SameSite=Lax"
        attributes += "; Secure" if self._wire.is_secure(raw) else ""
        headers = (
            ("Location", encode_path(mount + below) + (f"?{rest}" if rest else "")),
            *(("Set-Cookie", f"{name_cookie(secret)}={token}; {attributes}") for secret, token in found),
            ("Content-Length", "0"),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
        )
        return Response(303, headers, b"")

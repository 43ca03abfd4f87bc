"""Lets browser apps of other origins read a refusal (the CORS protocol of the Fetch standard)."""

import functools
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from maintenance.base.options import check_list
from maintenance.base.quoting import quote
from maintenance.errors import ConfigurationError
from maintenance.http.refusal.accept import TOKEN
from maintenance.http.refusal.response import Response
from maintenance.http.wire import Wire

EXPOSED: Final = "Retry-After, Maintenance-Mode"
"""The headers of a refusal that an app may read, besides those that it may always read."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORT: Final = re.compile(r"http:.*:80|https:.*:443")
_METHOD: Final = re.compile(TOKEN)
_NAMES: Final = re.compile(rf"[ \t]*{TOKEN}(?:[ \t]*,[ \t]*{TOKEN})*[ \t]*")


class Cors:
    """The origins whose apps may read a refusal."""

    def __init__(self, origins: Iterable[str], wire: Wire) -> None:
        """Check the option `cors`.

        Args:
            origins: Such as ``"https://app.example"``, or ``"*"`` alone for all.
            wire: The functions that read a request.

        Raises:
            ConfigurationError: An origin is wrong. The message shows how to write it.
        """
        check_list("cors", origins, "('https://app.example',)")
        self._origins = frozenset(map(_check_origin, origins))
        self._all = "*" in self._origins
        if self._all and len(self._origins) > 1:
            raise ConfigurationError("cors holds '*' and other origins: use ('*',), or leave '*' out")
        self._wire = wire
        self._open_known = functools.lru_cache(1024)(self._add)

    def __bool__(self) -> bool:
        """Return whether any origin is named."""
        return bool(self._origins)

    def _find_origin(self, raw: Any) -> str | None:
        """Return what to allow: the origin of a request, ``*`` or None."""
        origin = self._wire.read_header(raw, "origin")
        if self._all:
            return "*" if origin else None
        return origin if origin in self._origins else None

    def read_preflight(self, raw: Any) -> str | None:
        """Return the method that a preflight of these origins asks for. None for any other request."""
        if self._wire.read_method(raw) != "OPTIONS" or self._find_origin(raw) is None:
            return None
        method = self._wire.read_header(raw, "access-control-request-method")
        return method if method and _METHOD.fullmatch(method) else None

    def open(self, raw: Any, refusal: Response, *, known: bool) -> Response:
        """Return what a refused request gets: the refusal with more headers, or the answer to a preflight.

        Args:
            raw: The request.
            refusal: Without CORS headers, unless the app's own `respond` has added some.
            known: Whether the same refusal comes again and again.
        """
        if (method := self.read_preflight(raw)) is not None:
            return self._answer_preflight(raw, method)
        origin = self._find_origin(raw)
        return self._open_known(refusal, origin) if known else self._add(refusal, origin)

    def _allow(self, origin: str) -> tuple[tuple[str, str], ...]:
        # The refusal has nothing in it that belongs to one visitor, so a request with cookies may be answered too.
        with_cookies = () if self._all else (("Access-Control-Allow-Credentials", "true"),)
        return ("Access-Control-Allow-Origin", origin), *with_cookies

    def _answer_preflight(self, raw: Any, method: str) -> Response:
        headers = [*self._allow(str(self._find_origin(raw))), ("Access-Control-Allow-Methods", method)]
        names = self._wire.read_header(raw, "access-control-request-headers")
        if names and _NAMES.fullmatch(names):
            headers.append(("Access-Control-Allow-Headers", names))
        # No permission outlives the refusal: the app itself may be stricter.
        headers += [("Access-Control-Max-Age", "0"), ("Cache-Control", "no-store"), ("Vary", "Origin")]
        return Response(204, tuple(headers), b"")

    def _add(self, refusal: Response, origin: str | None) -> Response:
        present = {name.lower() for name, _ in refusal.headers}
        headers = refusal.headers if self._all else _vary(refusal.headers)
        if origin is not None and "access-control-allow-origin" not in present:
            headers = (*headers, *self._allow(origin), ("Access-Control-Expose-Headers", EXPOSED))
        return replace(refusal, headers=headers)


def _vary(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return headers that keep a cache from giving the answer for one origin to another."""
    varying = ", ".join(value for name, value in headers if name.lower() == "vary")
    others = (pair for pair in headers if pair[0].lower() != "vary")
    return *others, ("Vary", f"{varying}, Origin" if varying else "Origin")


def _check_origin(origin: object) -> str:
    text = origin if isinstance(origin, str) else ""
    if text == "*" or (_ORIGIN.fullmatch(text) and not _DEFAULT_PORT.fullmatch(text)):
        return text
    raise ConfigurationError(
        f"cors holds {quote(origin)}: use an origin as browsers "
        "send it, in lower case and without a path or a default port, such as 'https://app.example'"
    )

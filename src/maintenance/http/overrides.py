"""The methods that a request asks for instead of its own. Some apps obey them."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_plus

HEADERS: Final = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})

_PARAMETER: Final = "_method"
_SEPARATOR: Final = re.compile("[&;]")


def find_overrides(headers: Iterable[str], query: str) -> list[str]:
    """Return the methods that a request asks for, in upper case, as apps read them.

    Args:
        headers: The values of `HEADERS`.
        query: The query string as it was sent.
    """
    # The short way first: nearly every query names no method.
    found = _read_parameters(query) if _PARAMETER in unquote_plus(query).lower() else []
    return [method.strip().upper() for value in (*headers, *found) for method in value.split(",")]


def _read_parameters(query: str) -> list[str]:
    pairs = (pair.partition("=") for pair in _SEPARATOR.split(query))
    return [unquote_plus(value) for name, _, value in pairs if unquote_plus(name).strip().lower() == _PARAMETER]

"""Which kind of body a client prefers, by its Accept header (RFC 9110, section 12.5.1)."""

import functools
import re
from typing import Final

HTML: Final = "text/html"
PROBLEM: Final = "application/problem+json"
TEXT: Final = "text/plain"

_RANGES: Final = {
    HTML: ("text/html", "text/*", "*/*"),
    PROBLEM: ("application/problem+json", "application/json", "application/*", "*/*"),
    TEXT: ("text/plain", "text/*", "*/*"),
}
"""The ranges that match each kind, the most specific first. A client that wants JSON gets a problem."""

# Possessive quantifiers, so that each character of a hostile header is read once. Not for an optional group: up to
# Python 3.11.4, such a group stays half matched.
TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
"""RFC 9110, section 5.6.2."""

_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
_ELEMENT: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
_PARAMETER: Final = re.compile(rf"({TOKEN})=({TOKEN}|{_QUOTED})", re.DOTALL)
_RANGE: Final = re.compile(
    rf"(\*/\*|(?!\*/){TOKEN}/{TOKEN})((?:[ \t]*+;[ \t]*+(?:{TOKEN}=(?:{TOKEN}|{_QUOTED}))?)*+)", re.DOTALL
)
WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def choose_kind(accept: str) -> str:
    """Return the media type to send. It is plain text if the client accepts no kind."""
    weights = _parse_accept(accept)
    if not weights:
        return PROBLEM
    best = max(_RANGES, key=lambda kind: _rank(kind, weights))
    return best if _rank(best, weights)[0] > 0 else TEXT


# It takes no lock of Python, which the child of a fork could inherit locked.
choose_known_kind: Final = functools.lru_cache(256)(choose_kind)
"""The same for the headers that come again and again."""


def _rank(kind: str, weights: dict[str, float]) -> tuple[float, int, bool]:
    """Return the client's weight, then how precisely it named the kind, then the tie-breaker."""
    for name in _RANGES[kind]:
        if name in weights:
            favourite = PROBLEM if name == "*/*" else HTML
            return weights[name], -name.count("*"), kind == favourite
    return 0.0, 0, False


def _parse_accept(accept: str) -> dict[str, float]:
    """Return the weight of each well-formed range.

    A range with parameters asks for a variant that is not offered. It counts only if the bare range is not given.
    """
    bare: dict[str, float] = {}
    variants: dict[str, float] = {}
    for element in _ELEMENT.findall(accept):
        match = _RANGE.fullmatch(element.strip(" \t"))
        weight, is_variant = _weigh(match[2]) if match else (None, False)
        if match and weight is not None:
            name, weights = _name_json(match[1].lower()), variants if is_variant else bare
            weights[name] = max(weight, weights.get(name, 0.0))
    return variants | bare


def _name_json(name: str) -> str:
    """Return a media type. A client that accepts JSON of some kind gets a problem, which is JSON too (RFC 6839)."""
    is_json = name.startswith("application/") and name.endswith("+json") and name != PROBLEM
    return "application/json" if is_json else name


def _weigh(parameters: str) -> tuple[float | None, bool]:
    """Return the weight, or None if it is malformed, and whether the range asks for a variant."""
    is_variant = False
    for name, value in _PARAMETER.findall(parameters):
        if name.lower() == "q":
            return (float(value) if WEIGHT.fullmatch(value) else None), is_variant
        is_variant = is_variant or (name.lower(), value.strip('"').lower()) != ("charset", "utf-8")
    return 1.0, is_variant

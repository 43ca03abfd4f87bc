"""Which language a visitor reads, by the Accept-Language header (RFC 9110, section 12.5.4)."""

import re
from collections.abc import Collection
from typing import Final

from maintenance.base.languages import parse_language
from maintenance.http.refusal.accept import WEIGHT

MAX_HEADER: Final = 1024
"""How much of an Accept-Language header is read, in characters. Browsers send about 50."""

_RIGHT_TO_LEFT: Final = frozenset({"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})

# All quantifiers are possessive, so that each character of a hostile header is read once.
_ELEMENT: Final = re.compile(r"[ \t]*+([A-Za-z0-9-]++)[ \t]*+(?:;[ \t]*+[Qq]=([0-9.]++)[ \t]*+)?")


def find_direction(language: str) -> str:
    """Return ``rtl`` or ``ltr``."""
    return "rtl" if language.partition("-")[0] in _RIGHT_TO_LEFT else "ltr"


def parse_preferences(header: str) -> list[str]:
    """Return the languages that a visitor reads, the best first. Parts that are malformed are ignored."""
    weights: dict[str, float] = {}
    for element in header[:MAX_HEADER].split(","):
        match = _ELEMENT.fullmatch(element)
        language = parse_language(match[1]) if match else None
        weight = match[2] or "1" if match else "0"
        if language is not None and WEIGHT.fullmatch(weight) and float(weight):
            weights.setdefault(language, float(weight))
    return sorted(weights, key=lambda language: -weights[language])


def choose_language(preferences: list[str], offered: Collection[str]) -> str | None:
    """Return the language to use, or None if the visitor reads none of those on offer.

    ``pt-BR`` falls back to ``pt`` (RFC 4647, section 3.4), and ``pt`` to any ``pt-...``.
    """
    for preferred in preferences:
        parts = preferred.split("-")
        shorter = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
        longer = (language for language in offered if language.startswith(f"{parts[0]}-"))
        for language in (*shorter, *longer):
            if language in offered:
                return language
    return None

"""Language tags (RFC 5646)."""

import re
from typing import Final

LONGEST_TAG: Final = 35
"""RFC 5646, section 4.4.1."""

_TAG: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,5}")


def parse_language(tag: object) -> str | None:
    """Return a language tag in its usual form, such as ``pt-BR`` or ``zh-Hant``; None if it is not one."""
    if not isinstance(tag, str) or len(tag) > LONGEST_TAG or not _TAG.fullmatch(tag):
        return None
    first, *others = tag.split("-")
    return "-".join([first.lower(), *map(_write_subtag, others)])


def _write_subtag(subtag: str) -> str:
    """Return a region in capitals, a script with a capital, and others in lower case."""
    if len(subtag) == 2:
        return subtag.upper()
    return subtag.title() if len(subtag) == 4 else subtag.lower()

"""The operator's message as HTML: only links are clickable, and line breaks keep their meaning."""

import html
import re
from typing import Final

_HIDDEN: Final = "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
"""Characters that change how an address looks, such as a switch of direction."""

# Bounded and possessive, so that the time grows with the length of the message only.
_LINK: Final = re.compile(
    rf"(?P<url>(?<![A-Za-z0-9])https?://[^\s<>\"'{_HIDDEN}]++)"
    r"|(?P<email>(?<![\w.+-])[A-Za-z0-9_.+-]{1,64}+@[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+){1,8}+)",
    re.IGNORECASE,
)
_PUNCTUATION: Final = ".,;:!?*_~…。，、；：！？"  # noqa: RUF001 - Chinese and Japanese have their own
_CLOSING: Final = {")": "(", "]": "[", "}": "{"}


def link_message(message: str) -> str:
    """Return a message as HTML."""
    parts, end = [], 0
    for match in _LINK.finditer(message):
        target = _trim(match[0])
        parts += [html.escape(message[end : match.start()]), _write_link(target, email=match["email"] is not None)]
        end = match.start() + len(target)
    parts.append(html.escape(message[end:]))
    return "".join(parts).replace("\n", "<br>\n")


def _trim(link: str) -> str:
    """Leave out the punctuation of the sentence around a link."""
    while link[-1] in _PUNCTUATION or (link[-1] in _CLOSING and link.count(link[-1]) > link.count(_CLOSING[link[-1]])):
        link = link[:-1]
    return link


def _write_link(target: str, *, email: bool) -> str:
    text = html.escape(target)
    if email:
        return f'<a href="mailto:{text}" dir="ltr">{text}</a>'
    return f'<a href="{text}" dir="ltr" rel="noopener noreferrer" target="_blank">{text}</a>'

"""The HTML page of a refusal: one file without anything from outside, under a policy that allows nothing else."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent
_PAGE: Final = (_FOLDER / "page.html").read_text(encoding="utf-8")
_SLOT: Final = re.compile(r"<!--(\w+)-->")

TEXTS: Final[dict[str, dict[str, str]]] = json.loads((_FOLDER / "texts.json").read_text(encoding="utf-8"))
"""The texts for each kind of visit: ``full``, ``form`` (full, after data was submitted) and ``read_only``.

The visitor loses typed data if a page reloads, so only ``full`` does. The script of ``form`` polls all the same
(``data-polls``). In ``read_only``, polling would show nothing, because pages can be read.
"""


def _hash_element(tag: str) -> str:
    """Return the hash that allows the page's one element `tag` (Content Security Policy 3, section 2.3.1)."""
    _, _, rest = _PAGE.partition(f"<{tag}>")
    digest = hashlib.sha256(rest.partition(f"</{tag}>")[0].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY: Final = (
    f"default-src 'none'; style-src {_hash_element('style')}; script-src {_hash_element('script')}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page."""


def fill_page(texts: Mapping[str, str], detail: str, *, time: str, iso: str) -> str:
    """Return the page.

    Args:
        texts: One of `TEXTS`.
        detail: The message, plain text.
        time: The expected end as text, or an empty string.
        iso: The same in ISO 8601, for the script that shows the visitor's own time.
    """
    loss = f'<p class="loss">{texts["loss"]}</p>' if texts["loss"] else ""
    end = f'<p class="end"><span>{texts["end"]}</span> <time datetime="{iso}" dir="auto">{time}</time></p>'
    slots = {**texts, "detail": html.escape(detail), "loss": loss, "end": end if time else ""}
    return _SLOT.sub(lambda slot: slots[slot[1]], _PAGE)

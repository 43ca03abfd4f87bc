"""The HTML of the page: a template with slots, and the policy that allows its own style and script and nothing else."""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

SLOTS: Final = (
    *("lang", "dir", "title", "refresh", "accent", "brand", "name", "heading", "unsaved", "message", "end"),
    *("status", "note", "contact", "script"),
)
"""The names that a template may use, as ``{{name}}``."""

REQUIRED: Final = ("unsaved", "message")
"""Without these, visitors would not learn that a form was lost, or why."""

OWN_IDS: Final = {"maintenance", "heading", "status", "message", "end", "back"}
"""The elements of the slots that the page's script looks for."""

_SLOT: Final = re.compile(r"\{\{ *(\w+) *\}\}")
_META_PLACE: Final = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


@functools.cache
def read_own(name: str) -> str:
    """Return a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def check_template(source: str) -> str | None:
    """Return what is wrong with a template, and what to use; None if it is right."""
    used = _SLOT.findall(source)
    if unknown := sorted(set(used) - set(SLOTS)):
        return f"{{{{{unknown[0]}}}}} is not a slot: remove it"
    if missing := [name for name in REQUIRED if name not in used]:
        return f"it has no {{{{{missing[0]}}}}}: add it"
    return _parse(source).problem


def fill(source: str, slots: Mapping[str, str]) -> str:
    """Return a page. The values are HTML."""
    return _SLOT.sub(lambda slot: slots[slot[1]], source)


def build_policy(source: str, *pieces: str) -> str:
    """Return the Content-Security-Policy of a template.

    Args:
        source: The template.
        *pieces: What fills the slots that hold a style or a script, the same on each page.
    """
    whole = "".join((source, *pieces))
    blocks = _parse(whole).blocks
    styles, scripts = ([_hash(block) for tag, block in blocks if tag == wanted] for wanted in ("style", "script"))
    rules = [
        ("default-src", ["'none'"]),
        ("style-src", styles),
        ("script-src", scripts),
        ("img-src", ["data:"] if "data:image/" in whole else []),
        ("font-src", ["data:"] if "data:font/" in whole else []),
        ("connect-src", ["'self'"]),
        *((name, ["'none'"]) for name in ("base-uri", "form-action", "frame-ancestors")),
    ]
    return "; ".join(f"{name} {' '.join(dict.fromkeys(sources))}" for name, sources in rules if sources)


def _hash(block: str) -> str:
    """Return the source that allows one element (Content Security Policy 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"


def add_policy(page: str, policy: str) -> str:
    """Return a page for a server that sends no such header. A meta element cannot have `frame-ancestors`."""
    content = policy.partition("; frame-ancestors")[0]
    meta = f'\n<meta http-equiv="Content-Security-Policy" content="{content}">'
    return _META_PLACE.sub(lambda head: head[0] + meta, page, count=1)


def _parse(source: str) -> "_Parser":
    parser = _Parser()
    parser.feed(source)
    parser.close()
    return parser


class _Parser(HTMLParser):
    """Finds the styles and scripts of a page, and what the policy would stop."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[tuple[str, str]] = []
        self.problem: str | None = None
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("style", "script") else None
        if self._inside:
            self.blocks.append((tag, ""))
        self.problem = self.problem or _find_problem(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - a style or a script has no element inside
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            return
        tag, before = self.blocks.pop()
        self.blocks.append((tag, before + data))
        if _SLOT.search(data):
            self.problem = (
                self.problem or f"a <{tag}> has a slot, and its hash must not change: use an attribute instead"
            )


def _find_problem(tag: str, attributes: Mapping[str, str | None]) -> str | None:
    if (name := attributes.get("id")) in OWN_IDS:
        return f"<{tag}> has the id {name!r}, by which the script finds an element of its own: use another"
    if handler := next((name for name in attributes if name == "style" or name.startswith("on")), None):
        return f"<{tag}> has the attribute {handler}, which the policy stops: use a <style> or <script>"
    source = attributes.get("src") or (attributes.get("href") if tag == "link" else None) or ""
    if source and (tag == "script" or not source.startswith("data:")):
        return f"<{tag}> loads a file, and the page must need no other: put its content into the template"
    return None

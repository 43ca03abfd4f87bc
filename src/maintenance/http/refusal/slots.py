"""The pieces of the page: each slot of a template as finished HTML."""

import datetime as dt
import html
import json
import zlib
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from maintenance.base.values import Mode
from maintenance.http.refusal.languages import find_direction
from maintenance.http.refusal.links import link_message
from maintenance.http.refusal.page import Page

Visit = Literal["full", "form", "read_only"]
"""What a refused visitor wanted: to see a page, to send something, or to change something in `read_only`.

The visitor loses typed data if a page reloads, so only `full` does.
"""

_SCRIPT_TEXTS: Final = ("reload", "notify", "late", "offline", "back", "moment", "stuck", "resend", "about")


class Content(NamedTuple):
    """What a body is made of.

    Attributes:
        visit: See `Visit`.
        language: The language of the texts.
        message: The operator's message; empty if there is none.
        message_language: The language of the message; None if that is unknown.
        until: The expected end, in UTC; None if none is promised.
        late: Whether the expected end has passed.
        retry_after: As given by the operator.
        scope: The scope whose flag refuses the request; None for the site.
    """

    visit: Visit
    language: str
    message: str
    message_language: str | None
    until: dt.datetime | None
    late: bool
    retry_after: int | None
    scope: str | None = None

    @property
    def mode(self) -> Mode:
        """What the flag refuses."""
        return "read_only" if self.visit == "read_only" else "full"


def format_end(until: dt.datetime) -> str:
    """Return the expected end as text, for a reader without a script."""
    return f"{until.replace(tzinfo=None).isoformat(' ', 'minutes')} {until.tzname()}"


def write_accent(page: Page) -> str:
    """Return the style of the page's own colour."""
    return f"<style>:root {{ --accent: {page.accent}; }}</style>" if page.accent else ""


def write_script(source: str) -> str:
    """Return the script that follows the maintenance."""
    return f"<script>{source}</script>"


def write_slots(page: Page, content: Content, texts: Mapping[str, str], *, script: str) -> dict[str, str]:
    """Return the value of each slot.

    Args:
        page: The options.
        content: The values that the page shows.
        texts: The texts of this language and visit.
        script: The source of the standard script.
    """
    suffix = f" · {page.name}" if page.name else ""
    message, end = _write_message(content, texts), _write_end(content, texts)
    data = {name: texts[name] for name in _SCRIPT_TEXTS} | {"backTitle": f"{texts['back']}{suffix}"}
    version = f"{zlib.crc32(f'{message}{end}{content.late}'.encode(errors='replace')):08x}"
    attributes = (
        f' data-visit="{content.visit}" data-version="{version}"{" data-late" if content.late else ""}'
        f' data-texts="{html.escape(json.dumps(data, ensure_ascii=False))}"'
    )
    return {
        "lang": content.language,
        "dir": find_direction(content.language),
        "title": html.escape(f"{texts['title']}{suffix}"),
        "refresh": _NOSCRIPT_REFRESH if content.visit == "full" else "",
        "accent": write_accent(page),
        "brand": _write_brand(page),
        "name": html.escape(page.name or ""),
        "heading": f'<h1 id="heading" aria-live="polite">{html.escape(texts["heading"])}</h1>',
        "unsaved": f'<p class="unsaved">{html.escape(texts["loss"])}</p>' if texts["loss"] else "",
        "message": message,
        "end": end,
        "status": f'<p id="status" class="note" role="status">{html.escape(texts["late"]) if content.late else ""}</p>',
        "note": _write_note(content, texts),
        "contact": _write_contact(page, texts),
        "script": f'<div id="maintenance"{attributes} hidden></div>\n{write_script(script)}',
        "version": version,
    }


_NOSCRIPT_REFRESH: Final = '<noscript><meta http-equiv="refresh" content="60"></noscript>'


def _write_message(content: Content, texts: Mapping[str, str]) -> str:
    known = content.message_language if content.message else content.language
    language = f' lang="{known}"' if known else ""
    body = link_message(content.message or texts["detail"])
    return f'<p id="message" class="message" dir="auto"{language} aria-live="polite">{body}</p>'


def _write_end(content: Content, texts: Mapping[str, str]) -> str:
    if content.until is None:
        return '<p id="end" class="end"></p>'
    iso, shown = content.until.isoformat(timespec="seconds"), format_end(content.until)
    label = html.escape(texts["end"])
    return (
        f'<p id="end" class="end"><span>{label}</span> '
        f'<time datetime="{iso}" dir="auto">{shown}</time> <span class="left"></span></p>'
    )


def _write_brand(page: Page) -> str:
    logo = f'<img src="{html.escape(str(page.logo))}" alt="">' if page.logo else ""
    name = f"<span>{html.escape(page.name)}</span>" if page.name else ""
    return f'<div class="brand">{logo}{name}</div>' if logo or name else ""


def _write_note(content: Content, texts: Mapping[str, str]) -> str:
    if content.visit == "full":
        return f"<noscript><p>{html.escape(texts['refresh'])}</p></noscript>"
    return f'<button id="back" type="button" hidden>{html.escape(texts["go_back"])}</button>'


def _write_contact(page: Page, texts: Mapping[str, str]) -> str:
    links = []
    if page.support and "@" in page.support and not page.support.startswith("https:"):
        links.append(f'<a href="mailto:{page.support}" dir="ltr">{page.support}</a>')
    elif page.support:
        links.append(_write_link(page.support, texts["support"]))
    if page.status_url:
        links.append(_write_link(page.status_url, texts["status"]))
    return f'<p class="contact">{" ".join(links)}</p>' if links else ""


def _write_link(url: str, text: str) -> str:
    return f'<a href="{html.escape(url)}" rel="noopener noreferrer" target="_blank">{html.escape(text)}</a>'

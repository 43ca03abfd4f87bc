"""The options of the page that visitors see."""

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from maintenance.base.languages import parse_language
from maintenance.base.quoting import quote
from maintenance.errors import ConfigurationError
from maintenance.http.refusal.template import SLOTS, check_template
from maintenance.http.refusal.texts import DEFAULT_LANGUAGE, Texts, load_texts

MAX_NAME: Final = 200
"""The longest name, in characters."""

MAX_TEXT: Final = 1000
"""The longest text of a page, in characters."""

MAX_LOGO: Final = 64 * 1024
"""The largest logo, in bytes. Each refusal contains it."""

MAX_TEMPLATE: Final = 256 * 1024
"""The largest template, in bytes."""

_ACCENT: Final = re.compile(r"#(?:[0-9A-Fa-f]{3}){1,2}")
_DATA_URI: Final = re.compile(r"data:image/(?:svg\+xml|png|jpeg|gif|webp|avif)(?:;[A-Za-z0-9=-]+)*,[!-~]+")
_EMAIL: Final = re.compile(r"[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SIGNATURES: Final = {".svg": ("image/svg+xml", b"<svg"), ".png": ("image/png", b"\x89PNG\r\n\x1a\n")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """How the page looks that visitors see. Checked, and its files are read, when it is constructed.

    Attributes:
        name: The name of the site, above the heading and in the title of the tab.
        logo: A ``data:`` URI, or a path to an SVG or PNG file, which becomes one.
        accent: A colour for the picture, the edges and the underlines, such as ``#0b6e4f``.
        support: An e-mail address or an https URL where visitors get help.
        status_url: The https URL of a page about the state of the service.
        texts: Own texts: language -> name -> text. They override built-in ones, and may add languages.
        template: A path to an own HTML file.
    """

    name: str | None = None
    logo: str | os.PathLike[str] | None = field(default=None, repr=False)
    accent: str | None = None
    support: str | None = None
    status_url: str | None = None
    texts: Texts | None = field(default=None, hash=False)
    template: str | os.PathLike[str] | None = None
    _source: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check each option, and read the files.

        Raises:
            ConfigurationError: One is wrong. The message shows what to use.
        """
        if self.name is not None:
            _check_line("name", self.name, longest=MAX_NAME, example="'Example Shop'")
        if self.accent is not None and not _is_match(_ACCENT, self.accent):
            raise ConfigurationError(f"accent is {quote(self.accent)}: use a CSS hex colour, such as '#0b6e4f'")
        if self.support is not None and not (_is_match(_EMAIL, self.support) or _is_https(self.support)):
            raise ConfigurationError(
                f"support is {quote(self.support)}: use an e-mail address, or a URL that begins with https://"
            )
        if self.status_url is not None and not _is_https(self.status_url):
            raise ConfigurationError(f"status_url is {quote(self.status_url)}: use a URL that begins with https://")
        if self.logo is not None:
            object.__setattr__(self, "logo", _read_logo(self.logo))
        if self.texts is not None:
            object.__setattr__(self, "texts", _read_texts(self.texts))
        if self.template is not None:
            object.__setattr__(self, "_source", _read_template(self.template))


def read_source(page: Page) -> str | None:
    """Return the content of the page's own template, as it was when the page was constructed."""
    return page._source  # noqa: SLF001 - no option


def check_page(page: object) -> None:
    """Refuse anything but a `Page` and None.

    Raises:
        ConfigurationError: It is something else.
    """
    if page is not None and not isinstance(page, Page):
        raise ConfigurationError(f"page is of type {type(page).__name__}: use maintenance.Page(...), or None")


def _is_match(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_https(value: object) -> bool:
    if not isinstance(value, str) or re.search(r"[^!-~]|[<>\"'\\]", value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme == "https" and bool(parts.hostname) and parts.username is None
    except ValueError:  # such as a bracket that is never closed
        return False


def _check_line(what: str, value: object, *, longest: int, example: str) -> None:
    fits = isinstance(value, str) and value.strip() and len(value) <= longest
    if not fits or _CONTROL.search(str(value)):
        raise ConfigurationError(
            f"{what} is {quote(value)}: use one line of at most {longest} characters, such as {example}"
        )


def _read_file(option: str, path: object, *, longest: int, use: str) -> bytes:
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"{option} is {quote(path)}: use {use}")
    try:
        with Path(path).open("rb") as file:
            content = file.read(longest + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ConfigurationError(f"{option} is {quote(path)}, which cannot be read ({reason}): use {use}") from exc
    if len(content) > longest:
        raise ConfigurationError(f"{option} is {quote(path)}, which is too large: use at most {longest // 1024} KiB")
    return content


def _read_logo(logo: object) -> str:
    use = "a path to an SVG or PNG file, or a data: URI of an image"
    if isinstance(logo, str) and logo.startswith("data:"):
        if len(logo) > 2 * MAX_LOGO or not _DATA_URI.fullmatch(logo):
            raise ConfigurationError(f"logo is {quote(logo[:40])}: use {use}, of at most {MAX_LOGO // 1024} KiB")
        return logo
    content = _read_file("logo", logo, longest=MAX_LOGO, use=use)
    kind, signature = _SIGNATURES.get(Path(str(logo)).suffix.lower(), ("", b""))
    if not kind or signature not in content:
        raise ConfigurationError(f"logo is {quote(logo)}, which is neither an SVG nor a PNG file: use {use}")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _read_texts(texts: Any) -> dict[str, dict[str, str]]:
    if not isinstance(texts, Mapping):
        raise ConfigurationError(f"texts is {quote(texts)}: use {{'de': {{'heading': 'Bald zurück'}}}}")
    found = {}
    for tag, given in texts.items():
        language = parse_language(tag)
        if language is None or not isinstance(given, Mapping):
            raise ConfigurationError(
                f"texts has {quote(tag)}: use a language tag such as 'de', and a mapping from names to texts"
            )
        found[language] = {name: _read_text(language, name, text) for name, text in given.items()}
    return found


def _read_text(language: str, name: object, text: Any) -> str:
    known = load_texts()[DEFAULT_LANGUAGE]
    if name not in known:
        raise ConfigurationError(f"texts has no name {quote(name)}: use some of {', '.join(known)}")
    _check_line(f"texts[{language!r}][{name!r}]", text, longest=MAX_TEXT, example=repr(known["heading"]))
    return str(text)


def _read_template(path: object) -> str:
    content = _read_file("template", path, longest=MAX_TEMPLATE, use="a path to an HTML file")
    try:
        # Line ends as a browser reads them (HTML, section 13.2.3.5), or the policy's hashes would be of another text.
        source = content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"template is {quote(path)}, which is not UTF-8: save it as UTF-8") from exc
    if problem := check_template(source):
        raise ConfigurationError(f"template {quote(path)}: {problem}. The slots are {', '.join(SLOTS)}")
    return source

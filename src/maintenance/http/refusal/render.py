"""The standard refusal: a page, a problem or plain text, in the visitor's language."""

import datetime as dt
import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from maintenance.base.values import Snapshot
from maintenance.http.refusal.accept import HTML, PROBLEM, choose_kind, choose_known_kind
from maintenance.http.refusal.languages import MAX_HEADER, choose_language, parse_preferences
from maintenance.http.refusal.page import Page, read_source
from maintenance.http.refusal.response import MODE_HEADER, Response
from maintenance.http.refusal.retry import DEFAULT_RETRY_AFTER, retry_after
from maintenance.http.refusal.slots import Content, Visit, format_end, write_accent, write_script, write_slots
from maintenance.http.refusal.template import add_policy, build_policy, fill, read_own
from maintenance.http.refusal.texts import DEFAULT_LANGUAGE, merge_texts

VERSION_HEADER: Final = "Maintenance-Page"
"""Its value changes when the message or the end of the page does. An open page asks for it with HEAD."""

MAX_CACHED_ACCEPT: Final = 1024
"""The longest Accept header that is kept in a cache, in characters. Browsers send about 150."""

PROBLEM_TYPE: Final = "urn:problem-type:maintenance"
"""By which a client tells the JSON of a refusal from any other problem. It never changes."""
MAX_LANGUAGE_HEADERS: Final = 256
"""The number of Accept-Language headers whose choice is kept."""

MAX_REFUSALS: Final = 1024
"""The number of responses that are kept for one snapshot. They share their bodies."""

MAX_BODIES: Final = 256
"""The number of bodies that are kept: a few for each language."""

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NEVER: Final = dt.datetime.min.replace(tzinfo=dt.UTC)

Headers = tuple[tuple[str, str], ...]


class Spoken(NamedTuple):
    """The languages of a refusal.

    Attributes:
        page: The language of the texts.
        message: Which of the operator's messages is shown; None for the one without a language.
    """

    page: str
    message: str | None


class Renderer:
    """Builds the refusals of one `Page`. It reads its files when it is made, because a deploy may replace them."""

    def __init__(self, page: Page | None = None, *, on_failure: Callable[[Exception], None] = lambda _: None) -> None:
        """Read the files.

        Args:
            page: None for the standard one.
            on_failure: Called if the page's own template fails. The standard one is used then.
        """
        self._page, self._on_failure = page or Page(), on_failure
        self._texts, self._script = merge_texts(self._page.texts or {}), read_own("page.js")
        sources = [source for source in (read_source(self._page), read_own("page.html")) if source is not None]
        pieces = self._find_pieces()
        self._templates = [(source, build_policy(source, *pieces)) for source in sources]
        # It takes no lock of Python, which the child of a fork could inherit locked.
        self.choose_known = functools.lru_cache(MAX_LANGUAGE_HEADERS)(self._choose)
        self._render_known = functools.lru_cache(MAX_BODIES)(self._render_body)

    def _find_pieces(self) -> tuple[str, ...]:
        """Return what the policy must allow besides a template."""
        return write_accent(self._page), write_script(self._script), str(self._page.logo or "")

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the texts."""
        return tuple(self._texts)

    def choose(self, header: str | None, spoken: tuple[str, ...]) -> Spoken:
        """Return the languages of a refusal.

        Args:
            header: The Accept-Language header, several joined by commas, or None.
            spoken: The languages of the operator's messages.
        """
        return self.choose_known(header and header[:MAX_HEADER], spoken)

    def _choose(self, header: str | None, spoken: tuple[str, ...]) -> Spoken:
        preferences = parse_preferences(header or "")
        page = choose_language(preferences, self._texts) or DEFAULT_LANGUAGE
        for preferred in preferences:
            if (message := choose_language([preferred], spoken)) is not None:
                return Spoken(page, message)
            if choose_language([preferred], (page,)):
                break
        return Spoken(page, None)

    def render(
        self, snapshot: Snapshot, accept: str | None, spoken: Spoken, seconds: int, *, submits: bool, late: bool
    ) -> Response:
        """Build the 503 that a refused request gets.

        Args:
            snapshot: The flag that refuses the request.
            accept: The request's Accept header, several joined by commas, or None.
            spoken: The languages, from `choose`.
            seconds: The value of Retry-After, from `retry_after`.
            submits: True for requests that submit data (POST etc.). The page then offers a way back to the form
                instead of reloading.
            late: Whether the expected end has passed. The end is not promised then.

        Returns:
            The HTML page, ``application/problem+json`` (RFC 9457) or plain text, as `accept` prefers.
        """
        kind = choose_known_kind(accept or "") if _is_kept(accept) else choose_kind(accept or "")
        headers, body = self._render_known(kind, _read_content(snapshot, spoken, submits=submits, late=late))
        return Response(503, (*headers, ("Retry-After", str(seconds))), body)

    def render_file(self, snapshot: Snapshot, language: str) -> str:
        """Return the page in one language, for a server that sends it as a file."""
        spoken = self.choose(language, tuple(snapshot.messages or ()))
        page, policy, _ = self._render_page(_read_content(snapshot, spoken, submits=False, late=False))
        return add_policy(page, policy)

    def _render_body(self, kind: str, content: Content) -> tuple[Headers, bytes]:
        """Return all of a response that visitors of one language get alike.

        Cached by value, so a flag that is read again renders nothing.
        """
        extra: Headers = ()
        if kind == HTML:
            text, policy, version = self._render_page(content)
            extra = (("Content-Security-Policy", policy), (VERSION_HEADER, version))
        else:
            write = _write_problem if kind == PROBLEM else _write_text
            text = write(content, self._pick_texts(content))
        # The message may hold half a surrogate pair, which no encoding has. It becomes a question mark.
        body = text.encode(errors="replace")
        headers = (
            ("Content-Type", kind if kind == PROBLEM else f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Language", content.language),
            ("Cache-Control", "no-store"),
            ("Vary", "Accept, Accept-Language"),
            ("X-Content-Type-Options", "nosniff"),
            (MODE_HEADER, content.mode),
        )
        return (*headers, *extra), body

    def _render_page(self, content: Content) -> tuple[str, str, str]:
        """Return the page, its policy and its version. If the page's own template fails, it is the standard one."""
        slots = write_slots(self._page, content, self._pick_texts(content), script=self._script)
        *own, (standard, policy) = self._templates
        for source, own_policy in own:
            try:
                return fill(source, slots), own_policy, slots["version"]
            except Exception as exc:  # noqa: BLE001 - it is logged
                self._on_failure(exc)
        return fill(standard, slots), policy, slots["version"]

    def _pick_texts(self, content: Content) -> dict[str, str]:
        """Return the texts of a language, and of a kind of visit."""
        texts = self._texts[content.language]
        prefix = "read_only_" if content.visit == "read_only" else ""
        chosen = {name: texts[f"{prefix}{name}"] for name in ("title", "heading", "detail", "end")}
        return {**texts, **chosen, "loss": texts.get(f"{content.visit}_loss", "")}


def _is_kept(accept: str | None) -> bool:
    return len(accept or "") <= MAX_CACHED_ACCEPT


class Refusals:
    """The refusals of one snapshot, each built once. A look-up takes a tenth of the time of `Renderer.render`."""

    __slots__ = ("_built", "_choose", "_renderer", "_spoken", "_spread", "snapshot")

    def __init__(self, snapshot: Snapshot, renderer: Renderer) -> None:
        """Start with no response."""
        self.snapshot, self._renderer, self._choose = snapshot, renderer, renderer.choose_known
        self._spoken = tuple(snapshot.messages or ())
        self._built: dict[tuple[str | None, Spoken, int, bool, bool], Response] = {}
        steps = [step / DEFAULT_RETRY_AFTER for step in range(DEFAULT_RETRY_AFTER)] if snapshot.until is None else []
        self._spread = [retry_after(snapshot, now=_NEVER, spread=step) for step in steps]

    def get(self, accept: str | None, language: str | None, spread: float, submits: bool) -> Response:
        """Return the refusal for a request that comes now.

        Args:
            accept: The Accept header, or None.
            language: The Accept-Language header, or None.
            spread: See `retry_after`.
            submits: See `Renderer.render`.
        """
        late, until = False, self.snapshot.until
        if until is None:
            seconds = self._spread[int(spread * DEFAULT_RETRY_AFTER)]
        else:
            now = dt.datetime.now(dt.UTC)
            late, seconds = until <= now, retry_after(self.snapshot, now=now, spread=spread)
        # Cut here, because one call less is a tenth of the time.
        if language is not None and len(language) > MAX_HEADER:
            language = language[:MAX_HEADER]
        key = accept, self._choose(language, self._spoken), seconds, submits, late
        return self._built.get(key) or self._build(*key)

    def _build(self, accept: str | None, spoken: Spoken, seconds: int, submits: bool, late: bool) -> Response:
        response = self._renderer.render(self.snapshot, accept, spoken, seconds, submits=submits, late=late)
        if len(self._built) >= MAX_REFUSALS:
            self._built = {}  # all of them: the seconds until the end do not come again
        if _is_kept(accept):
            self._built[accept, spoken, seconds, submits, late] = response
        return response


def _read_content(snapshot: Snapshot, spoken: Spoken, *, submits: bool, late: bool) -> Content:
    # A process that blocks because it knows nothing has a flag that is off, and may have a mode.
    visit: Visit = "read_only" if snapshot.enabled and snapshot.mode == "read_only" else "form" if submits else "full"
    message = snapshot.message if spoken.message is None else (snapshot.messages or {})[spoken.message]
    return Content(
        visit=visit,
        language=spoken.page,
        # Without control characters, because a terminal could obey them.
        message=_CONTROL.sub("", (message or "").replace("\r\n", "\n")).strip(),
        message_language=spoken.message,
        until=_in_utc(snapshot.until) if snapshot.until and not late else None,
        late=late,
        retry_after=snapshot.retry_after,
        scope=snapshot.scope,
    )


def _in_utc(until: dt.datetime) -> dt.datetime:
    try:
        return until.astimezone(dt.UTC)
    except OverflowError:  # UTC has no such year
        return until


def _write_problem(content: Content, texts: Mapping[str, str]) -> str:
    """Return the JSON of RFC 9457, section 3. Members other than its own are extensions."""
    detail = f"{texts['loss']} {content.message or texts['detail']}".strip()
    problem: dict[str, Any] = {"type": PROBLEM_TYPE, "title": "Service Unavailable", "status": 503, "detail": detail}
    problem |= {"mode": content.mode, "scope": content.scope}
    if content.retry_after is not None:
        problem["retry_after"] = max(1, content.retry_after)
    if content.until is not None:
        problem["until"] = content.until.isoformat()
    return json.dumps(problem, ensure_ascii=False)


def _write_text(content: Content, texts: Mapping[str, str]) -> str:
    end = "" if content.until is None else f"{texts['end']}: {format_end(content.until)}"
    return "".join(f"{line}\n" for line in (texts["loss"], content.message or texts["detail"], end) if line)

"""What a refused request gets: a 503 as a plain value. It knows no server, no framework and no clock."""

import base64
import datetime as dt
import hashlib
import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar

from cachetools import FIFOCache

from maintenance.base.values import MAX_RETRY_AFTER, Snapshot

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

DEFAULT_RETRY_AFTER: Final = 60
"""Seconds, where nothing is known of the end, or the end that was expected has passed."""

MAX_CACHED_ACCEPT: Final = 1024
"""The longest Accept header that is remembered, in characters; browsers send about 150."""

MAX_REFUSALS: Final = 256
"""How many responses are kept of one snapshot; each holds a body that is shared."""

_NEVER: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, init=False)
class Response:
    """An HTTP response as a plain value.

    Attributes:
        status: The status code, such as 503.
        headers: Names and values, in the order sent; ``Content-Length`` is that of `body`.
        body: What a GET gets; left out by the adapter where the request is a HEAD.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __init__(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        # The generated one goes through object.__setattr__ and takes 1.6 times as long, for each refused request.
        _set_status(self, status)
        _set_headers(self, headers)
        _set_body(self, body)


_set_status: Final = Response.__dict__["status"].__set__
_set_headers: Final = Response.__dict__["headers"].__set__
_set_body: Final = Response.__dict__["body"].__set__


def render(snapshot: Snapshot, accept: str | None, seconds: int, *, sent: bool = False) -> Response:
    """Build the 503 that a refused request gets.

    Args:
        snapshot: What is known of the maintenance.
        accept: The request's Accept header, several joined by commas; None where there was none.
        seconds: What Retry-After says; see `retry_after`.
        sent: Whether the request was to change something: its page does not lead away from what was typed.

    Returns:
        The HTML page, ``application/problem+json`` (RFC 9457) or plain text, as `accept` prefers.
    """
    words = _READ_ONLY if snapshot.enabled and snapshot.mode == "read_only" else _SENT if sent else _ASKED
    kind = _chosen[accept] if _is_kept(accept) else _choose(accept)
    said = _rendered[_Topic(kind, words, snapshot.message, snapshot.until, snapshot.retry_after)]
    return Response(said.status, (*said.headers, ("Retry-After", str(seconds))), said.body)


def _is_kept(accept: str | None) -> bool:
    return len(accept or "") <= MAX_CACHED_ACCEPT


class Refusals:
    """What `render` makes of one snapshot, each made once: a third of the time, for each refused request."""

    __slots__ = ("_made", "_spread", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        """Begin with none made."""
        self.snapshot = snapshot
        self._made: dict[tuple[str | None, int, bool], Response] = {}
        timeless = snapshot.until is None or snapshot.retry_after is not None
        steps = [step / DEFAULT_RETRY_AFTER for step in range(DEFAULT_RETRY_AFTER)] if timeless else []
        self._spread = [retry_after(snapshot, now=_NEVER, spread=step) for step in steps]

    def get(self, accept: str | None, spread: float, sent: bool) -> Response:
        """The refusal for a visitor who comes now; `spread` as in `retry_after`, `sent` as in `render`."""
        if self._spread:
            seconds = self._spread[int(spread * DEFAULT_RETRY_AFTER)]
        else:
            seconds = retry_after(self.snapshot, now=dt.datetime.now(dt.UTC), spread=spread)
        return self._made.get((accept, seconds, sent)) or self._make(accept, seconds, sent)

    def _make(self, accept: str | None, seconds: int, sent: bool) -> Response:
        response = render(self.snapshot, accept, seconds, sent=sent)
        if len(self._made) >= MAX_REFUSALS:
            self._made = {}  # afresh, because the seconds of old ones do not come again
        if _is_kept(accept):
            self._made[accept, seconds, sent] = response
        return response


def retry_after(snapshot: Snapshot, *, now: dt.datetime, spread: float) -> int:
    """Seconds after which to ask again, at least 1.

    Args:
        snapshot: Its `retry_after` is taken as it is; else its `until`, while that lies ahead, counts.
        now: The time, aware.
        spread: A random number in [0, 1): how much of the 10 % that keep visitors from returning all at once.
    """
    if snapshot.retry_after is not None:
        return max(1, snapshot.retry_after)
    until = snapshot.until
    if until is None or until <= now:
        return DEFAULT_RETRY_AFTER + int(DEFAULT_RETRY_AFTER * spread / 10)
    seconds = math.ceil((until - now).total_seconds())
    return min(seconds + int(seconds * spread / 10), MAX_RETRY_AFTER)


class _Cache(FIFOCache[_Key, _Value]):
    """A bounded map that makes what it does not hold.

    First in, first out, because then a hit changes nothing and needs no lock: a third of the time. Only a thread that
    adds takes it, and where it is taken (for good, in the child of a fork at a bad moment) leaves the value out.
    """

    def __init__(self, make: Callable[[_Key], _Value], *, size: int) -> None:
        super().__init__(size)
        self._make = make
        self._adding = Lock()

    def __missing__(self, key: _Key) -> _Value:
        value = self._make(key)
        if self._adding.acquire(blocking=False):
            try:
                self[key] = value
            finally:
                self._adding.release()
        return value


# What the client wants: RFC 9110, section 12.5.1.

_HTML: Final = "text/html"
_PROBLEM: Final = "application/problem+json"
_TEXT: Final = "text/plain"

_RANGES: Final = {
    _HTML: ("text/html", "text/*", "*/*"),
    _PROBLEM: ("application/problem+json", "application/json", "application/*", "*/*"),
    _TEXT: ("text/plain", "text/*", "*/*"),
}
"""The ranges that match each kind, the most specific first; a problem is what a client of JSON is given."""

# Possessive throughout: each character of a hostile header is read once.
TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
"""RFC 9110, section 5.6.2."""

_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
_ELEMENT: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
_PARAMETER: Final = re.compile(rf"({TOKEN})=({TOKEN}|{_QUOTED})", re.DOTALL)
_RANGE: Final = re.compile(
    rf"(\*/\*|(?!\*/){TOKEN}/{TOKEN})((?:[ \t]*+;[ \t]*+(?:{TOKEN}=(?:{TOKEN}|{_QUOTED}))?+)*+)", re.DOTALL
)
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def _choose(accept: str | None) -> str:
    """The media type to send; plain text where nothing that there is would do."""
    weights = _parse_accept(accept or "")
    if not weights:
        return _PROBLEM
    best = max(_RANGES, key=lambda kind: _rank(kind, weights))
    return best if _rank(best, weights)[0] > 0 else _TEXT


def _rank(kind: str, weights: dict[str, float]) -> tuple[float, int, bool]:
    """The client's weight; then how precisely it named the kind; then what suits most who ask like that."""
    for name in _RANGES[kind]:
        if name in weights:
            favourite = _PROBLEM if name == "*/*" else _HTML
            return weights[name], -name.count("*"), kind == favourite
    return 0.0, 0, False


def _parse_accept(accept: str) -> dict[str, float]:
    """The weight of each range, without those that are malformed.

    A range with parameters asks for something finer than there is: it counts where the bare range is not there.
    """
    bare: dict[str, float] = {}
    finer: dict[str, float] = {}
    for element in _ELEMENT.findall(accept):
        match = _RANGE.fullmatch(element.strip(" \t"))
        weight, is_finer = _weigh(match[2]) if match else (None, False)
        if match and weight is not None:
            name, kept = match[1].lower(), finer if is_finer else bare
            kept[name] = max(weight, kept.get(name, 0.0))
    return finer | bare


def _weigh(parameters: str) -> tuple[float | None, bool]:
    """The weight, None where it is malformed; and whether parameters other than the charset sent precede it."""
    is_finer = False
    for name, value in _PARAMETER.findall(parameters):
        if name.lower() == "q":
            return (float(value) if _WEIGHT.fullmatch(value) else None), is_finer
        is_finer = is_finer or (name.lower(), value.strip('"').lower()) != ("charset", "utf-8")
    return 1.0, is_finer


_chosen: Final = _Cache(_choose, size=256)


# What is sent.


class _Topic(NamedTuple):
    """All that a body says: what it is cached by, so that re-reading an unchanged flag renders nothing anew."""

    kind: str
    words: "_Words"
    message: str | None
    until: dt.datetime | None
    retry_after: int | None

    @property
    def detail(self) -> str:
        """What visitors are told, without control characters, which a terminal might obey."""
        text = _CONTROL.sub("", (self.message or "").replace("\r\n", "\n")).strip()
        return text or self.words.detail

    @property
    def end(self) -> dt.datetime | None:
        """`until` in UTC; as it is where UTC has no such year."""
        try:
            return self.until and self.until.astimezone(dt.UTC)
        except OverflowError:
            return self.until


class _Words(NamedTuple):
    """What is said where the operator says nothing, and around it on the page."""

    title: str
    heading: str
    detail: str
    end: str
    refresh: str
    footer: str


_ASKED: Final = _Words(
    title="Down for maintenance",
    heading="We’ll be back soon",
    detail="The service is down for maintenance. Please try again later.",
    end="Expected back",
    refresh='<noscript><meta http-equiv="refresh" content="60"></noscript>',
    footer='<p id="status" role="status"></p>\n<noscript><p>This page reloads once a minute.</p></noscript>',
)
# The way back leads to what was typed. Its address may take nothing but a form, so the page stays where it is.
_SENT: Final = _ASKED._replace(
    refresh="",
    footer='<p>What you sent was not saved.</p>\n<p id="status" role="status"></p>\n'
    '<button id="back" type="button" data-asks hidden>Go back</button>',
)
# Reading still works, so that asking for the page again would tell nothing.
_READ_ONLY: Final = _Words(
    title="Read-only for maintenance",
    heading="Read-only for the moment",
    detail="Changes cannot be saved during maintenance. Nothing was changed; please try again later.",
    end="Expected end",
    refresh="",
    footer='<p id="status" role="status"></p>\n<button id="back" type="button" hidden>Go back</button>',
)

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SLOT: Final = re.compile(r"<!--(\w+)-->")
_PAGE: Final = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def _hash_of(tag: str) -> str:
    """The hash by which a policy knows the page's one `tag` (Content Security Policy 3, section 2.3.1)."""
    _, _, rest = _PAGE.partition(f"<{tag}>")
    digest = hashlib.sha256(rest.partition(f"</{tag}>")[0].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_POLICY: Final = (
    f"default-src 'none'; style-src {_hash_of('style')}; script-src {_hash_of('script')}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _render(said: _Topic) -> Response:
    """All of a response that is the same for every visitor."""
    # Half a surrogate pair, which no encoding has, becomes a question mark.
    body = _BODIES[said.kind](said).encode(errors="replace")
    headers = (
        ("Content-Type", said.kind if said.kind == _PROBLEM else f"{said.kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
        ("X-Content-Type-Options", "nosniff"),
    )
    policy = (("Content-Security-Policy", _POLICY),) if said.kind == _HTML else ()
    return Response(503, (*headers, *policy), body)


def _page(said: _Topic) -> str:
    words = said.words
    slots = words._asdict() | {"detail": html.escape(said.detail), "end": ""}
    if said.end is not None:
        iso = said.end.isoformat(timespec="seconds")
        time = f'<time datetime="{iso}" dir="auto">{_readable(said.end)}</time>'
        slots["end"] = f'<p class="end"><span>{words.end}</span> {time}</p>'
    return _SLOT.sub(lambda slot: slots[slot[1]], _PAGE)


def _problem(said: _Topic) -> str:
    """RFC 9457, section 3; `until` and `retry_after` are its extension members."""
    problem: dict[str, Any] = {"type": "about:blank", "title": "Service Unavailable", "status": 503}
    problem["detail"] = said.detail
    if said.retry_after is not None:
        problem["retry_after"] = max(1, said.retry_after)
    if said.end is not None:
        problem["until"] = said.end.isoformat()
    return json.dumps(problem, ensure_ascii=False)


def _text(said: _Topic) -> str:
    return f"{said.detail}\n" + (f"{said.words.end}: {_readable(said.end)}\n" if said.end else "")


def _readable(time: dt.datetime) -> str:
    return f"{time.replace(tzinfo=None).isoformat(' ', 'minutes')} {time.tzname()}"


_BODIES: Final[dict[str, Callable[[_Topic], str]]] = {_HTML: _page, _PROBLEM: _problem, _TEXT: _text}
_rendered: Final = _Cache(_render, size=16)

"""The standard refusal: a page, a problem or plain text."""

import datetime as dt
import functools
import json
import re
from typing import Any, Final

from maintenance.base.values import Snapshot
from maintenance.http.refusal.accept import HTML, PROBLEM, choose_kind, choose_known_kind
from maintenance.http.refusal.page import POLICY, TEXTS, fill_page
from maintenance.http.refusal.response import Response
from maintenance.http.refusal.retry import DEFAULT_RETRY_AFTER, retry_after

MAX_CACHED_ACCEPT: Final = 1024
"""The longest Accept header that is kept in a cache, in characters. Browsers send about 150."""

MAX_REFUSALS: Final = 1024
"""The number of responses that are kept for one snapshot. They share their bodies."""

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NEVER: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


def render(snapshot: Snapshot, accept: str | None, seconds: int, *, submits: bool = False) -> Response:
    """Build the 503 that a refused request gets.

    Args:
        snapshot: The flag that refuses the request.
        accept: The request's Accept header, several joined by commas, or None.
        seconds: The value of Retry-After, from `retry_after`.
        submits: True for requests that submit data (POST etc.). The page then offers a way back to the form instead
            of reloading.

    Returns:
        The HTML page, ``application/problem+json`` (RFC 9457) or plain text, as `accept` prefers.
    """
    kind = choose_known_kind(accept or "") if _is_kept(accept) else choose_kind(accept or "")
    # A process that blocks because it knows nothing has a flag that is off, and may have a mode.
    visit = "read_only" if snapshot.enabled and snapshot.mode == "read_only" else "form" if submits else "full"
    headers, body = _render_body(kind, visit, snapshot.message, snapshot.until, snapshot.retry_after)
    return Response(503, (*headers, ("Retry-After", str(seconds))), body)


def _is_kept(accept: str | None) -> bool:
    return len(accept or "") <= MAX_CACHED_ACCEPT


class Refusals:
    """The refusals of one snapshot, each built once. A look-up takes a tenth of the time of `render`."""

    __slots__ = ("_built", "_spread", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        """Start with no response."""
        self.snapshot = snapshot
        self._built: dict[tuple[str | None, int, bool], Response] = {}
        timeless = snapshot.until is None or snapshot.retry_after is not None
        steps = [step / DEFAULT_RETRY_AFTER for step in range(DEFAULT_RETRY_AFTER)] if timeless else []
        self._spread = [retry_after(snapshot, now=_NEVER, spread=step) for step in steps]

    def get(self, accept: str | None, spread: float, submits: bool) -> Response:
        """Return the refusal for a request that comes now. For `spread` see `retry_after`, for the rest `render`."""
        if self._spread:
            seconds = self._spread[int(spread * DEFAULT_RETRY_AFTER)]
        else:
            seconds = retry_after(self.snapshot, now=dt.datetime.now(dt.UTC), spread=spread)
        return self._built.get((accept, seconds, submits)) or self._build(accept, seconds, submits)

    def _build(self, accept: str | None, seconds: int, submits: bool) -> Response:
        response = render(self.snapshot, accept, seconds, submits=submits)
        if len(self._built) >= MAX_REFUSALS:
            self._built = {}  # all of them: the seconds until the end do not come again
        if _is_kept(accept):
            self._built[accept, seconds, submits] = response
        return response


@functools.lru_cache(16)
def _render_body(
    kind: str, visit: str, message: str | None, until: dt.datetime | None, seconds: int | None
) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """Return all of a response that every visitor gets alike. Cached by value, so a re-read flag renders nothing."""
    texts = TEXTS[visit]
    # Without control characters, because a terminal could obey them.
    message = _CONTROL.sub("", (message or "").replace("\r\n", "\n")).strip()
    end = _in_utc(until) if until else None
    time = f"{end.replace(tzinfo=None).isoformat(' ', 'minutes')} {end.tzname()}" if end else ""
    if kind == HTML:
        iso = end.isoformat(timespec="seconds") if end else ""
        text = fill_page(texts, message or texts["detail"], time=time, iso=iso)
    elif kind == PROBLEM:
        text = _render_problem(message or f"{texts['loss']} {texts['detail']}".strip(), end, seconds)
    else:
        lines = texts["loss"], message or texts["detail"], f"{texts['end']}: {time}" if time else ""
        text = "".join(f"{line}\n" for line in lines if line)
    # The message may hold half a surrogate pair, which no encoding has. It becomes a question mark.
    body = text.encode(errors="replace")
    headers = (
        ("Content-Type", kind if kind == PROBLEM else f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
        ("X-Content-Type-Options", "nosniff"),
    )
    return (*headers, *((("Content-Security-Policy", POLICY),) if kind == HTML else ())), body


def _render_problem(detail: str, end: dt.datetime | None, seconds: int | None) -> str:
    """Return the JSON of RFC 9457, section 3. `until` and `retry_after` are extension members."""
    problem: dict[str, Any] = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": detail}
    if seconds is not None:
        problem["retry_after"] = max(1, seconds)
    if end is not None:
        problem["until"] = end.isoformat()
    return json.dumps(problem, ensure_ascii=False)


def _in_utc(until: dt.datetime) -> dt.datetime:
    try:
        return until.astimezone(dt.UTC)
    except OverflowError:  # UTC has no such year
        return until

"""The 503 as a value: its headers, its kinds, what it says, and what it never lets through."""

import base64
import datetime as dt
import hashlib
import json
import re
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.base.secret import hash_token
from maintenance.base.values import MAX_RETRY_AFTER, Snapshot
from maintenance.http.refusal import Refusals, Renderer, Response, retry_after
from maintenance.http.refusal.accept import choose_known_kind
from maintenance.http.refusal.render import MAX_BODIES, MAX_LANGUAGE_HEADERS, MAX_REFUSALS

NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)
SOON = NOW + dt.timedelta(hours=1)
HTML, PROBLEM, TEXT = "text/html; charset=utf-8", "application/problem+json", "text/plain; charset=utf-8"
EACH_KIND = pytest.mark.parametrize("accept", ["text/html", "application/json", "text/plain"])
STANDARD = Renderer()
HOSTILE = "<script>alert(1)</script>'\"&amp;<!--title--></p><img src=x onerror=alert(1)>"


def on(**details: object) -> Snapshot:
    return Snapshot(enabled=True, **details)


def ask(
    snapshot: Snapshot,
    accept: str | None = None,
    *,
    language: str | None = None,
    spread: float = 0.0,
    submits: bool = False,
    now: dt.datetime = NOW,
    renderer: Renderer = STANDARD,
) -> Response:
    spoken = renderer.choose(language, tuple(snapshot.messages or ()))
    seconds, late = retry_after(snapshot, now=now, spread=spread), snapshot.until is not None and snapshot.until <= now
    return renderer.render(snapshot, accept, spoken, seconds, submits=submits, late=late)


def read(*args: Any, **options: Any) -> str:
    return ask(*args, **options).body.decode()


def header(answer: Response, name: str) -> str | None:
    values = [value for key, value in answer.headers if key == name]
    assert len(values) < 2, f"{name} is sent {len(values)} times"
    return values[0] if values else None


def kind(accept: str | None) -> str | None:
    return header(ask(on(), accept), "Content-Type")


class TestRetryAfter:
    @pytest.mark.parametrize(("given", "sent"), [(0, 1), (1, 1), (120, 120), (MAX_RETRY_AFTER, MAX_RETRY_AFTER)])
    def test_what_is_given_is_sent_without_spread_but_never_below_one(self, given: int, sent: int) -> None:
        snapshot = on(retry_after=given, until=NOW + dt.timedelta(hours=1))
        assert retry_after(snapshot, now=NOW, spread=0.999) == sent

    @pytest.mark.parametrize(
        ("left", "spread", "sent"),
        [(600, 0, 600), (600.001, 0, 601), (0.001, 0.999, 1), (600, 0.5, 630), (600, 0.9999, 659), (9, 0.9999, 9)],
    )
    def test_the_seconds_to_until_are_rounded_up_and_spread(self, left: float, spread: float, sent: int) -> None:
        assert retry_after(on(until=NOW + dt.timedelta(seconds=left)), now=NOW, spread=spread) == sent

    @pytest.mark.parametrize("until", [None, NOW, NOW - dt.timedelta(days=9)])
    def test_without_an_end_ahead_it_is_a_minute_and_spread(self, until: dt.datetime | None) -> None:
        snapshot = on(until=until)
        assert [retry_after(snapshot, now=NOW, spread=spread) for spread in (0.0, 0.5, 0.9999)] == [60, 63, 65]

    def test_an_end_in_another_time_zone_is_the_same_instant(self) -> None:
        tokyo = dt.timezone(dt.timedelta(hours=9))
        assert retry_after(on(until=dt.datetime(2026, 11, 21, 21, 1, tzinfo=tokyo)), now=NOW, spread=0) == 60

    def test_an_end_that_is_centuries_away_is_sent_as_the_largest_number_that_recipients_know(self) -> None:
        assert retry_after(on(until=dt.datetime.max.replace(tzinfo=dt.UTC)), now=NOW, spread=0) == MAX_RETRY_AFTER

    @given(left=st.floats(-1e6, 1e8), spread=st.floats(0, 1, exclude_max=True))
    def test_it_is_never_too_early_nor_more_than_a_tenth_too_late(self, left: float, spread: float) -> None:
        until = NOW + dt.timedelta(seconds=left)
        left = (until - NOW).total_seconds()
        floor = left if left > 0 else 60
        assert floor <= retry_after(on(until=until), now=NOW, spread=spread) < (floor + 1) * 1.1


class TestAccept:
    @pytest.mark.parametrize(
        ("expected", "accepts"),
        [
            (PROBLEM, [None, "", " , ,", "*/*", "application/json", "application/problem+json", "application/*"]),
            (HTML, ["text/html", "TEXT/HTML", "text/*"]),
            (TEXT, ["text/plain"]),
            # Browsers, for a page and for an image; axios; jQuery.
            (HTML, ["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"]),
            (PROBLEM, ["image/avif,image/webp,*/*;q=0.8", "application/json, text/plain, */*"]),
            (PROBLEM, ["application/json, text/javascript, */*; q=0.01"]),
            # The weights decide.
            (PROBLEM, ["text/html;q=0.4, application/json;q=0.5", "text/html;q=0.1, */*"]),
            (PROBLEM, ["application/json , text/html\t;\tQ=0.9"]),
            (HTML, ["text/html;q=0.5, application/json;q=0.4", "text/html;q=0.001"]),
            (TEXT, ["text/plain, text/html;q=0.999"]),
            # The most specific range gives the weight, in any order: RFC 9110, section 12.5.1.
            (HTML, ["text/*;q=0.3, text/html;q=0.7, text/html;level=1, text/html;level=2;q=0.4, */*;q=0.5"]),
            (HTML, ["application/problem+json;q=0.1, application/json, text/html;q=0.5"]),
            (TEXT, ["text/html;q=0.2, text/*, application/json;q=0.5", "text/*, text/html;q=0"]),
            (TEXT, ["*/*, application/*;q=0.1, text/html;q=0.1"]),
            # A tie goes to the kind that is named, and then to the page.
            (HTML, ["application/json, text/html", "text/plain, text/html", "text/html, */*"]),
            (HTML, ["*/*, application/json;q=0"]),
            (TEXT, ["text/plain, */*"]),
            (PROBLEM, ["text/plain, application/json"]),
            # If nothing is acceptable, it is plain text.
            (TEXT, ["image/png", "application/xml", "*/*;q=0", "text/html;q=0", "*/*;q=0.0"]),
            (TEXT, ["text/html;q=0.000, text/plain;q=0"]),
            # Parameters and quoted strings.
            (HTML, ["text/html;charset=utf-8", 'text/html; charset="UTF-8"', "text/html;;q=0.5;"]),
            (HTML, ["text/html, text/html;q=0.1, text/plain;q=0.5"]),
            (TEXT, ["text/html;charset=utf-8;q=0.1, text/plain;q=0.2"]),
            (TEXT, ['text/html;charset="UTF-8";q=0.1, text/html;level=1, text/plain;q=0.5']),
            (TEXT, ["text/html;q=0.1, text/html;level=1, text/plain;q=0.5"]),
            (TEXT, ['text/plain;x="a, text/html, \\" b";q=0.5', 'text/plain, text/html;x="never closed']),
            (PROBLEM, ["application/json;version=1"]),
            (PROBLEM, ["application/vnd.api+json", "application/*+json", "text/plain;q=0.5, application/hal+json"]),
            (HTML, ["text/html, application/ld+json;q=0.9"]),
        ],
        ids=str,
    )
    def test_the_kind_is_the_one_that_the_client_prefers(self, expected: str, accepts: list[str | None]) -> None:
        assert [kind(accept) for accept in accepts] == [expected] * len(accepts)

    @pytest.mark.parametrize(
        "malformed",
        [
            *("text/html;q=2", "text/html;q=x", "text/html;q=.5", "text/html;q=-1", "text/html;q=0.1234"),
            *("text/html;q=1.001", "text/html;q", "text/html;q=", 'text/html;q="1"', "text/html level=1", "*/html"),
            *("text/", "/html", "text", "*", "text/html/x", ";text/html", "text/html;a=b c", "te xt/html"),
            *("text/html;\x00", "téxt/html"),
        ],
    )
    def test_a_malformed_range_is_ignored(self, malformed: str) -> None:
        assert kind(malformed) == PROBLEM
        assert kind(f"{malformed}, text/plain;q=0.1") == TEXT

    @given(st.text())
    def test_no_header_whatever_raises(self, accept: str) -> None:
        assert kind(accept) in {HTML, PROBLEM, TEXT}

    @pytest.mark.timeout(5)
    @pytest.mark.parametrize("part", ['"', '\\"', "text/html;", ' ;"', "a/b;c=", ",", "\t"])
    def test_a_hostile_header_costs_time_in_proportion_to_its_length(self, part: str) -> None:
        assert kind(part * 200_000) in {HTML, PROBLEM, TEXT}


class TestHeaders:
    @pytest.mark.parametrize("accept", ["text/html", "application/json", "text/plain", "image/png"])
    def test_what_every_503_carries(self, accept: str) -> None:
        answer = ask(on(message="Möbel — 家具"), accept, spread=0.5)
        assert answer.status == 503
        assert header(answer, "Retry-After") == "63"
        assert header(answer, "Cache-Control") == "no-store"
        assert header(answer, "Vary") == "Accept, Accept-Language"
        assert header(answer, "Content-Language") == "en"
        assert header(answer, "X-Content-Type-Options") == "nosniff"
        assert header(answer, "Content-Length") == str(len(answer.body))

    @given(message=st.text(), accept=st.text() | st.sampled_from(["text/html", "text/plain"]))
    def test_nothing_from_outside_reaches_a_header(self, message: str, accept: str) -> None:
        for name, value in ask(on(message=message, actor=message, reason=message), accept).headers:
            assert re.fullmatch(r"[A-Za-z-]+", name)
            assert re.fullmatch(r"[ -~]+", value)
            assert message not in value or len(message) < 25

    def test_the_policy_of_the_page_allows_its_own_style_and_script_and_nothing_else(self) -> None:
        answer = ask(on(), "text/html")
        policy = dict(part.split(" ", 1) for part in (header(answer, "Content-Security-Policy") or "").split("; "))
        hashes = {}
        for tag in ("style", "script"):
            (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.body.decode(), re.DOTALL)
            hashes[tag] = f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
        assert policy == {
            "default-src": "'none'",
            "style-src": hashes["style"],
            "script-src": hashes["script"],
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }

    @pytest.mark.parametrize("accept", ["application/json", "text/plain"])
    def test_only_the_page_carries_a_policy(self, accept: str) -> None:
        assert header(ask(on(), accept), "Content-Security-Policy") is None

    def test_a_response_is_a_frozen_value_that_can_be_replaced(self) -> None:
        answer = Response(status=503, headers=(), body=b"")
        assert answer == Response(503, (), b"")
        assert replace(answer, status=200) == Response(200, (), b"")
        with pytest.raises(AttributeError):
            answer.status = 200  # type: ignore[misc]


class TestProblem:
    def test_it_says_what_is_known(self) -> None:
        until = dt.datetime(2026, 11, 21, 15, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
        answer = ask(on(message="Back at ½ past", until=until, retry_after=0))
        assert json.loads(answer.body) == {
            "type": "urn:problem-type:maintenance",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "Back at ½ past",
            "mode": "full",
            "scope": None,
            "retry_after": 1,
            "until": "2026-11-21T13:30:00+00:00",
        }

    def test_it_leaves_out_what_is_not(self) -> None:
        problem = json.loads(ask(on()).body)
        assert set(problem) == {"type", "title", "status", "detail", "mode", "scope"}
        assert problem["detail"] == DOWN

    @pytest.mark.parametrize("accept", ["text/html", "text/plain", "application/json"])
    @pytest.mark.parametrize("mode", ["full", "read_only"])
    def test_a_client_can_tell_it_from_any_other_503(self, mode: Any, accept: str) -> None:
        answer = ask(on(mode=mode, scope="shop"), accept)
        assert header(answer, "Maintenance-Mode") == mode
        if accept == "application/json":
            problem = json.loads(answer.body)
            assert (problem["mode"], problem["scope"]) == (mode, "shop")

    @EACH_KIND
    @pytest.mark.parametrize("submits", [False, True])
    def test_what_is_not_for_visitors_is_in_no_refusal(self, accept: str, *, submits: bool) -> None:
        token = "a token of forty-three characters, or so ..."
        hidden = {
            "actor": "Ann Operator", "reason": "an upgrade of the database", "secret": hash_token(token),
            "updated_by": UUID("0a0b0c0d-1111-2222-3333-444455556666"),
        }  # fmt: skip
        answer = ask(on(message="Back at noon.", **hidden).with_token(token), accept, submits=submits)
        shown = f"{answer.headers}{answer.body.decode()}"
        assert "Back at noon." in shown
        assert not [name for name, value in hidden.items() if str(value) in shown or token in shown]

    @given(st.text())
    def test_any_message_is_valid_json(self, message: str) -> None:
        assert json.loads(ask(on(message=message)).body)["status"] == 503


DOWN = "The service is down for maintenance. Please try again later."
FORM = "Your form was not saved. Go back to get what you typed."
CHANGE = "Your change was not saved."


class TestTexts:
    @pytest.mark.parametrize(
        ("mode", "submits", "loss", "detail"),
        [
            ("full", False, "", DOWN),
            ("full", True, FORM, DOWN),
            ("read_only", True, CHANGE, "Please try again later."),
        ],
    )
    @pytest.mark.parametrize("message", [None, "", " \r\n\t", "\x00\x1b", "Back at noon."])
    def test_each_kind_says_first_what_was_not_saved(
        self, mode: Any, submits: bool, loss: str, detail: str, message: str | None
    ) -> None:
        flag = on(mode=mode, message=message)
        page, problem, text = (
            read(flag, it, submits=submits) for it in ("text/html", "application/json", "text/plain")
        )
        given = "Back at noon." if message == "Back at noon." else None
        lines = [line for line in (loss, given or detail) if line]
        assert text.splitlines() == lines
        assert json.loads(problem)["detail"] == " ".join(lines)
        shown = re.findall(r'<(?:p|h1) [^>]*(?:unsaved|heading|message)"[^>]*>(.*?)</', page)
        assert [it for it in shown if it in lines] == lines
        assert not loss or shown[0] == loss

    def test_a_process_that_blocks_without_knowing_the_flag_does_not_mention_read_only(self) -> None:
        assert read(Snapshot(enabled=False, mode="read_only"), "text/plain") == f"{DOWN}\n"

    @pytest.mark.parametrize(
        ("mode", "first", "label"), [("full", "", "Expected back"), ("read_only", f"{CHANGE}\n", "Expected end")]
    )
    def test_plain_text_gives_the_end_in_utc(self, mode: Any, first: str, label: str) -> None:
        until = dt.datetime(2026, 11, 21, 15, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
        flag = on(mode=mode, message="Soon.\r\nReally.", until=until)
        assert read(flag, "text/plain") == f"{first}Soon.\nReally.\n{label}: 2026-11-21 13:30 UTC\n"

    @EACH_KIND
    def test_no_control_character_reaches_a_terminal(self, accept: str) -> None:
        body = read(on(message="a\x1b[2Jb\x07\x9b\x7fc\td\ne"), accept)
        assert "a[2Jbc" in body
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]|u00[01]", body)

    @EACH_KIND
    def test_no_message_and_no_end_raises(self, accept: str) -> None:
        assert b"a?b" in ask(on(message="a\ud800b"), accept).body  # half a surrogate pair
        west = dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-5)))  # UTC has no such year
        assert b"9999-12-31" in ask(on(until=west), accept).body


class _Outline(HTMLParser):
    """The tags of a page and, for each, its attributes and the text inside."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


class TestPage:
    @pytest.mark.parametrize("message", [HOSTILE, "{{script}}{message}</textarea></style>", HOSTILE * 800, "]]>\u202e"])
    def test_a_hostile_message_is_text(self, message: str) -> None:
        outline, quiet = (
            _Outline(ask(on(message=message), "text/html").body),
            _Outline(ask(on(message="m"), "text/html").body),
        )
        assert message in outline.text
        assert [(tag, set(names)) for tag, names in outline.tags] == [(tag, set(names)) for tag, names in quiet.tags]

    def test_it_refers_to_nothing_outside_itself(self) -> None:
        page = ask(on(until=SOON), "text/html").body
        assert not re.search(rb"https?:|//[a-z]|@import|\bsrc=|\bhref=", page)
        assert len(page) < 16_384

    def test_it_has_no_slot_left_open(self) -> None:
        assert b"{{" not in ask(on(until=SOON), "text/html").body

    def test_it_is_marked_up_for_those_who_hear_it(self) -> None:
        tags = _Outline(ask(on(until=SOON), "text/html").body).tags
        names = [name for name, _ in tags]
        assert ("html", {"lang": "en", "dir": "ltr"}) in tags
        assert [names.count(name) for name in ("main", "h1", "title")] == [1, 1, 1]
        assert "status" in [attributes.get("role") for _, attributes in tags]

    def test_without_a_script_it_reloads_and_shows_the_end_in_utc(self) -> None:
        page = read(on(until=SOON), "text/html")
        assert '<noscript><meta http-equiv="refresh" content="60"></noscript>' in page
        assert '<time datetime="2026-11-21T13:00:00+00:00" dir="auto">2026-11-21 13:00 UTC</time>' in page

    @pytest.mark.parametrize(("mode", "submits"), [("full", True), ("read_only", True)])
    def test_it_never_reloads_if_that_would_lose_typed_data(self, mode: Any, submits: bool) -> None:
        page = read(on(mode=mode), "text/html", submits=submits)
        assert "http-equiv" not in page
        assert '<button id="back"' in page


class TestLinks:
    @pytest.mark.parametrize(
        ("message", "links"),
        [
            ("See https://a.example/x?y=1&z=2.", ["https://a.example/x?y=1&z=2"]),
            ("(http://a.example/(b)), HTTPS://B.example!", ["http://a.example/(b)", "HTTPS://B.example"]),
            ("Write to ann.lee+shop@mail.example, or bob@x.example", ["ann.lee+shop@mail.example", "bob@x.example"]),
            ("https://a.example/\u202egpj.exe", ["https://a.example/"]),
            ('https://a.example/"onclick="alert(1)', ["https://a.example/"]),
            ("ann@localhost javascript:alert(1) data:text/html,x ftp://a.example //a.example <a href=x>", []),
            ("xhttps://a.example @b.example a@@b.example", []),
        ],
    )
    def test_only_addresses_are_links(self, message: str, links: list[str]) -> None:
        outline = _Outline(ask(on(message=message), "text/html").body)
        assert message in outline.text
        found = [attributes for tag, attributes in outline.tags if tag == "a"]
        assert [(it["href"] or "").removeprefix("mailto:") for it in found] == links
        assert all("@" in (it["href"] or "") or it["rel"] == "noopener noreferrer" for it in found)
        assert set().union(*found) <= {"href", "rel", "target", "dir"}

    @pytest.mark.timeout(5)
    @pytest.mark.parametrize("part", ["a", "a.", "a@", "a@b.", "https://", "(", "http://a.example/)"])
    def test_a_long_message_costs_time_in_proportion_to_its_length(self, part: str) -> None:
        assert ask(on(message=part * (100_000 // len(part))), "text/html").status == 503

    def test_lines_stay_lines(self) -> None:
        assert "One.<br>\n<br>\nTwo &amp; three.</p>" in read(on(message="One.\r\n\r\nTwo & three."), "text/html")


class TestTheEnd:
    @EACH_KIND
    def test_an_end_that_has_passed_is_not_promised(self, accept: str) -> None:
        flag = on(until=NOW)
        assert "2026-11-21" in read(flag, accept, now=NOW - dt.timedelta(seconds=1))
        assert "2026-11-21" not in read(flag, accept)
        assert "Expected back" not in read(flag, accept)

    def test_the_page_says_that_it_takes_longer(self) -> None:
        assert 'role="status">It’s taking a little longer than expected' in read(on(until=NOW), "text/html")

    def test_the_refusals_of_a_snapshot_stop_promising(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refusals, clock = Refusals(on(until=SOON, retry_after=9), STANDARD), [NOW]

        class Clock(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
                return clock[0]

        monkeypatch.setattr("maintenance.http.refusal.render.dt.datetime", Clock)
        assert b"2026-11-21" in refusals.get("text/plain", None, 0.0, False).body
        clock[0] = SOON
        assert b"2026-11-21" not in refusals.get("text/plain", None, 0.0, False).body


class TestCaches:
    def test_the_same_texts_are_rendered_once_however_often_the_flag_is_read(self) -> None:
        first, again = (ask(on(message="once", read_at=at, revision=7), "text/html") for at in (1.0, 2.0))
        assert first.body is again.body

    def test_each_detail_that_a_body_shows_tells_it_apart(self) -> None:
        until = NOW + dt.timedelta(hours=1)
        details = [{}, {"message": "x"}, {"until": until}, {"retry_after": 5}, {"mode": "read_only"}]
        assert len({ask(on(**it)).body for it in details}) == len(details)

    def test_old_messages_and_odd_headers_do_not_pile_up(self) -> None:
        for number in range(1000):
            ask(on(message=str(number)), f"text/html;n={number}", language=f"de, en;q=0.{number}")
        assert STANDARD._render_known.cache_info().currsize <= MAX_BODIES
        assert STANDARD.choose_known.cache_info().currsize <= MAX_LANGUAGE_HEADERS
        assert choose_known_kind.cache_info().currsize <= 256

    @pytest.mark.parametrize(("size", "kept"), [(1024, 1), (1025, 0)])
    def test_a_header_that_is_too_long_is_not_kept(self, size: int, kept: int) -> None:
        accept, refusals = f"text/html;x={'y' * (size - 12)}", Refusals(on(), STANDARD)
        choose_known_kind.cache_clear()
        assert kind(accept) == HTML
        assert refusals.get(accept, None, 0.0, False) == ask(on(), accept)
        assert (choose_known_kind.cache_info().currsize, len(refusals._built)) == (kept, kept)

    @pytest.mark.parametrize(
        "flag", [{}, {"retry_after": 5}, {"until": dt.datetime(2001, 1, 1, tzinfo=dt.UTC)}], ids=str
    )
    @pytest.mark.parametrize("submits", [True, False])
    def test_the_refusals_of_a_snapshot_are_those_of_render_and_built_once(self, flag: Any, submits: bool) -> None:
        refusals = Refusals(on(**flag), STANDARD)
        for accept, spread in (("text/html", 0.0), (None, 0.5), ("text/html", 0.5)):
            built = refusals.get(accept, None, spread, submits)
            assert built == ask(on(**flag), accept, spread=spread, submits=submits)
            assert refusals.get(accept, None, spread, submits) is built

    def test_refusals_do_not_pile_up(self) -> None:
        refusals = Refusals(on(), STANDARD)
        for number in range(2 * MAX_REFUSALS + 10):
            refusals.get(f"text/html;answer={number}", None, 0.0, False)
            assert len(refusals._built) <= MAX_REFUSALS

    def test_threads_that_share_the_caches_get_their_own_answers(self) -> None:
        wrong: list[str] = []

        def work(name: str) -> None:
            for number in range(300):
                text = f"{name}{number % 40}."
                if read(on(message=text), f"text/plain;n={number}") != f"{text}\n":
                    wrong.append(text)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert not wrong

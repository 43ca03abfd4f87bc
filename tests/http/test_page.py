"""The page in a real browser: what it shows, what it asks for, and how it brings its visitor back."""

import datetime as dt
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from maintenance import Page as Options
from maintenance.base.values import Snapshot
from maintenance.http.refusal import Renderer, retry_after

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
DOWN = "We’ll be back soon"
PROMISE = "We’ll reload this page as soon as we’re back."
NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)
LONG = "A long sentence for a narrow screen, and one word: " + "Donaudampfschifffahrtsgesellschaft" * 4 + "\n\nEnd."
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></p></main>"


@dataclass
class Site:
    """A site under maintenance, and what it was asked."""

    port: int = 0
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(enabled=True))
    up: bool = False
    status: int = 200
    hint: str | None = None
    head: int | None = None
    refresh: int = 60
    now: dt.datetime = NOW
    renderer: Renderer = field(default_factory=Renderer)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def answer(self, method: str, path: str, language: str | None) -> tuple[int, list[tuple[str, str]], bytes]:
        if method == "HEAD" and self.head is not None:
            return self.head, [("Content-Length", "0")], b""
        if self.up:
            body = f"<!doctype html><title>app</title><link rel=icon href=data:,><h1>{method}</h1>".encode()
            headers = [("Content-Type", "text/html"), ("Content-Length", str(len(body))), ("Location", "/login")]
            return 200 if path == "/login" else self.status, headers, body
        flag, late = self.snapshot, self.snapshot.until is not None and self.snapshot.until <= self.now
        spoken = self.renderer.choose(language, tuple(flag.messages or ()))
        seconds = retry_after(flag, now=self.now, spread=0.5)
        answer = self.renderer.render(flag, "text/html", spoken, seconds, submits=method == "POST", late=late)
        body = answer.body.replace(b'content="60"', b'content="%d"' % self.refresh)
        changed = {"Content-Length": str(len(body))} | ({"Retry-After": self.hint} if self.hint else {})
        return answer.status, [(name, changed.get(name, value)) for name, value in answer.headers], body


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def _any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/favicon.ico":
            self.send_response(204)
            self.end_headers()
            return
        self.site.asked.append(f"{self.command} {self.path}")
        status, headers, body = self.site.answer(self.command, self.path, self.headers.get("Accept-Language"))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = _any

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Say nothing: what was asked is in `Site.asked`."""


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site})) as server:
        site.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the PATH: `apt-get install chromium`, or install Chrome")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=FLAGS) as browser:
        yield browser


Visit = Callable[..., Page]

# Writes down each wait. The one of 20 s is the patience with a request, which an injected clock would outrun.
WAITS = """
    window.waits = [];
    const real = setTimeout;
    window.setTimeout = (work, wait) => {
        if (wait === 20000 && !window.impatient) return 0;
        waits.push(wait);
        return real(work, wait);
    };
"""


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    """Opens the page as a visitor of one's own; fails the test where it complains or asks another host."""
    complaints: list[str] = []
    opened = []

    def check(request: Request) -> None:
        if not request.url.startswith((site.url, "file:")):
            complaints.append(f"asked for {request.url}")

    def hear(text: str) -> None:
        # The browser itself notes each answer that is an error.
        if not re.match(r"Failed to load resource: (the server responded|net::)", text):
            complaints.append(text)

    def open_page(path: str = "", *, at: dt.datetime | None = NOW, script: str = "", **options: object) -> Page:
        context = browser.new_context(**{"locale": "en-GB", "timezone_id": "UTC"} | options)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("request", check)
        page.on("console", lambda message: hear(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if at is not None:
            # Installed, the clock still follows the real one: a slow machine would outrun the test. So it stands still.
            page.clock.install(time=at - dt.timedelta(minutes=10))
            page.clock.pause_at(at)
            page.add_init_script(WAITS + script)
        page.goto(site.url + path)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert not complaints


def until(**delta: float) -> Snapshot:
    return Snapshot(enabled=True, until=NOW + dt.timedelta(**delta))


def send_form(page: Page, site: Site) -> None:
    """Send a form to the site from another page."""
    page.goto("about:blank")
    page.set_content(f"<form method=post action={site.url}pay><button>Buy</button></form>")
    page.get_by_role("button").click()
    expect(page.locator("#heading")).to_be_visible()


def hear_no(page: Page, count: int) -> None:
    """Wait until the page has heard that it is not over, and waits for the `count`-th time."""
    page.wait_for_function("count => waits.length === count", arg=count)


def hide(page: Page, *, hidden: bool) -> None:
    """What a browser does when its tab goes to the background; headless, each tab counts as seen."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


class TestWhatIsShown:
    def test_the_message_keeps_its_lines(self, visit: Visit, site: Site) -> None:
        site.snapshot = Snapshot(enabled=True, message="We are moving.\nBack soon & well.")
        detail = visit().locator(".message")
        expect(detail).to_be_visible()
        assert detail.inner_text() == "We are moving.\nBack soon & well."

    @pytest.mark.parametrize(
        ("locale", "zone", "shown"),
        [
            ("en-US", "America/New_York", "Sunday, November 22 at 8:00 AM EST"),
            ("de-DE", "Europe/Berlin", "Sonntag, 22. November um 14:00 MEZ"),
            ("ja-JP", "Asia/Tokyo", "11月22日日曜日 22:00 JST"),
            ("eo", "UTC", "Sunday, November 22 at 1:00 PM UTC"),  # the page is in English
        ],
    )
    def test_the_end_is_in_the_visitors_own_time_and_the_language_of_the_page(
        self, visit: Visit, site: Site, locale: str, zone: str, shown: str
    ) -> None:
        site.snapshot = until(hours=25)
        time = visit(locale=locale, timezone_id=zone).locator("time")
        assert re.sub(r"[\s\u202f]+", " ", time.inner_text()) == shown
        assert time.get_attribute("datetime") == "2026-11-22T13:00:00+00:00"

    def test_a_language_that_is_none_hinders_nothing(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(hours=2)
        page = visit(script="Object.defineProperty(navigator, 'languages', {value: ['en-US@posix']})")
        expect(page.get_by_role("status")).to_have_text(PROMISE)
        assert re.search(r"\b(14|2):00", page.locator("time").inner_text())

    def test_an_end_today_is_a_time_and_one_next_year_has_its_year(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(hours=2)
        assert visit().locator("time").inner_text() == "14:00 UTC"
        site.snapshot = until(days=90)
        assert "2027" in visit().locator("time").inner_text()

    @pytest.mark.parametrize(
        ("locale", "minutes", "shown"),
        [
            ("en-GB", 45, "in about 45 minutes"),
            ("de-DE", 1, "in etwa 1 Minute"),
            ("fr-FR", 120, "dans environ 2 heures"),
            ("ja-JP", 60 * 48, "約2 日後"),
        ],
    )
    def test_how_long_it_takes_is_a_rough_number(
        self, visit: Visit, site: Site, locale: str, minutes: int, shown: str
    ) -> None:
        site.snapshot = until(minutes=minutes)
        page = visit(locale=locale)
        left = page.locator(".left")
        assert re.sub(r"\s+", " ", left.inner_text()) == shown
        if minutes == 45:
            page.clock.run_for("10:00")
            expect(left).to_have_text("in about 35 minutes")

    def test_once_the_end_has_passed_it_says_so_kindly(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(minutes=3)
        page = visit()
        status = page.get_by_role("status")
        expect(status).to_have_text(PROMISE)
        hide(page, hidden=True)  # so that no answer is what says it
        page.clock.run_for("03:01")
        expect(status).to_contain_text("It’s taking a little longer than expected. Thank you for your patience.")
        expect(page.locator("#end")).to_be_hidden()
        assert "Expected back" not in page.locator("main").inner_text()

    def test_an_end_that_had_passed_before_is_said_at_once(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(minutes=-1)
        for script in (True, False):
            page = visit(java_script_enabled=script, at=NOW if script else None)
            expect(page.get_by_role("status")).to_contain_text("longer than expected")
            expect(page.locator("#end")).to_be_hidden()

    def test_links_are_clickable_and_line_breaks_show(self, visit: Visit, site: Site) -> None:
        site.snapshot = Snapshot(enabled=True, message="News: https://a.example/?b=1&c=2.\nWrite to help@a.example")
        page = visit()
        assert page.evaluate("[...document.querySelectorAll('.message a')].map(a => a.href)") == [
            "https://a.example/?b=1&c=2",
            "mailto:help@a.example",
        ]
        assert page.locator(".message").inner_text() == "News: https://a.example/?b=1&c=2.\nWrite to help@a.example"

    def test_without_a_script_the_time_is_utc_and_the_page_reloads_with_a_get(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(hours=25)
        site.refresh = 1
        page = visit(java_script_enabled=False, at=None)
        assert page.locator("time").inner_text() == "2026-11-22 13:00 UTC"
        assert "reloads once a minute" in page.locator("footer").inner_text()
        site.up = True
        expect(page.locator("h1")).to_have_text("GET")

    def test_a_hostile_message_is_read_and_not_run(self, visit: Visit, site: Site) -> None:
        site.snapshot = Snapshot(enabled=True, message=HOSTILE)
        page = visit()
        assert page.locator(".message").inner_text() == HOSTILE
        assert page.title() == "Down for maintenance"
        assert page.locator("img").count() == 0

    def test_the_policy_stops_what_would_get_in_all_the_same(self, browser: Browser, site: Site) -> None:
        with closing(browser.new_context()) as context:
            page = context.new_page()
            page.goto(site.url)
            page.evaluate(
                """() => {
                    window.stopped = [];
                    addEventListener('securitypolicyviolation', event => stopped.push(event.effectiveDirective));
                    document.body.insertAdjacentHTML('beforeend', '<img src=/x.png onerror="document.title=1">');
                    document.body.append(Object.assign(document.createElement('script'), {text: 'document.title=1'}));
                }"""
            )
            page.wait_for_function("stopped.length === 3")
            assert set(page.evaluate("stopped")) == {"img-src", "script-src-attr", "script-src-elem"}
            assert page.title() == "Down for maintenance"


COLOURS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const numbers = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const channel = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
    const background = getComputedStyle(document.body);
    const stops = background.backgroundImage.match(/(?:rgb|color)\\([^)]*\\)/g) || [];
    const grounds = [background.backgroundColor, ...stops].map(numbers);
    const texts = [...document.querySelectorAll('h1, p, span, time, button, a')].filter(e => e.innerText);
    return {
        ground: background.backgroundColor,
        count: texts.length,
        grounds: grounds.length,
        contrast: Math.min(...texts.flatMap(e => grounds.map(ground => {
            const [low, high] = [light(numbers(getComputedStyle(e).color)), light(ground)].sort((a, b) => a - b);
            return (high + .05) / (low + .05);
        }))),
    };
}"""


RING = """() => {
    document.body.insertAdjacentHTML('beforeend', '<button>x</button>');
    const button = document.body.lastElementChild;
    button.focus({focusVisible: true});
    const style = getComputedStyle(button);
    return [style.outlineColor, style.color, style.outlineStyle];
}"""


class TestHowItLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_what_has_the_focus_can_be_seen_as_well_as_text(self, visit: Visit, scheme: str) -> None:
        ring, ink, style = visit(color_scheme=scheme).evaluate(RING)  # WCAG 2.2, 1.4.11
        assert (ring, style) == (ink, "solid")

    @pytest.mark.parametrize("accent", [None, "#000000", "#ffffff", "#ff0000"])
    @pytest.mark.parametrize("mode", ["full", "read_only"])
    def test_light_and_dark_differ_and_both_can_be_read(
        self, visit: Visit, site: Site, mode: str, accent: str | None
    ) -> None:
        site.renderer = Renderer(Options(accent=accent, name="Shop", support="a@b.example"))
        site.snapshot = Snapshot(enabled=True, mode=mode, until=NOW + dt.timedelta(hours=1))
        page, seen = visit(), {}
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            seen[scheme] = page.evaluate(COLOURS)
        assert seen["light"]["ground"] != seen["dark"]["ground"]
        for colours in seen.values():
            assert colours["count"] >= 7
            assert colours["grounds"] == 3
            assert colours["contrast"] >= 4.5  # WCAG 2.2, 1.4.3

    @pytest.mark.parametrize(
        ("locale", "message", "submits"),
        [
            ("de-DE", LONG, False),
            ("en-GB", LONG, True),
            ("ar", "האתר בתחזוקה.\nתודה https://a.example/" + "a" * 99, True),
            ("uk-UA", None, True),
            ("ja-JP", None, False),
        ],
    )
    def test_nothing_sticks_out_of_a_small_screen(
        self, visit: Visit, site: Site, message: str | None, locale: str, submits: bool
    ) -> None:
        site.renderer = Renderer(Options(name="Donaudampfschifffahrt" * 4, support="a" * 60 + "@b.example"))
        site.snapshot = Snapshot(enabled=True, message=message, until=NOW + dt.timedelta(days=99))
        page = visit(viewport={"width": 320, "height": 500}, locale=locale)
        if submits:
            send_form(page, site)
        for width, height in ((320, 500), (667, 320)):
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") == width
            boxes = "[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect())"
            assert page.evaluate(f"Math.max(...{boxes}.map(box => box.right))") <= width
            assert page.evaluate(f"Math.min(...{boxes}.map(box => box.left))") >= 0

    def test_on_a_phone_on_its_side_the_message_is_seen_without_scrolling(self, visit: Visit, site: Site) -> None:
        site.snapshot = Snapshot(enabled=True, message="We are moving.", until=NOW + dt.timedelta(hours=1))
        page = visit(viewport={"width": 667, "height": 320})
        for part in ("h1", ".message", "time"):
            assert page.locator(part).evaluate("e => e.getBoundingClientRect().bottom") < 320

    @pytest.mark.parametrize(("locale", "side"), [("ar", "right"), ("en-GB", "left")])
    def test_the_page_begins_on_the_side_of_its_language(
        self, visit: Visit, site: Site, locale: str, side: str
    ) -> None:
        site.snapshot = until(hours=1)
        page = visit(locale=locale)
        edges = page.evaluate(
            f"""['main', 'h1', '.end', 'time', '#status'].map(name => {{
                const range = document.createRange();
                range.selectNodeContents(document.querySelector(name));
                return range.getBoundingClientRect().{side};
            }})"""
        )
        assert max(edges) - min(edges) < 2

    def test_an_address_in_a_right_to_left_message_keeps_its_direction(self, visit: Visit, site: Site) -> None:
        site.snapshot = Snapshot(enabled=True, message="תודה https://a.example/")
        assert visit(locale="he").evaluate("getComputedStyle(document.querySelector('.message a')).direction") == "ltr"

    def test_in_forced_colours_the_page_uses_those_of_the_system(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(hours=1)
        page = visit(forced_colors="active")
        seen = page.evaluate(COLOURS)
        assert seen["grounds"] == 1  # no gradient
        assert seen["contrast"] >= 7
        assert page.evaluate("matchMedia('(forced-colors: active)').matches")

    def test_a_right_to_left_message_starts_on_the_right(self, visit: Visit, site: Site) -> None:
        site.snapshot = Snapshot(enabled=True, message="תודה")
        style = "getComputedStyle(document.querySelector('.message')).direction"
        assert visit().evaluate(style) == "rtl"

    def test_those_who_want_no_motion_get_none(self, visit: Visit) -> None:
        page, moving = visit(), "document.getAnimations().length"
        page.emulate_media(reduced_motion="no-preference")
        assert page.evaluate(moving) == 3
        page.emulate_media(reduced_motion="reduce")
        assert page.evaluate(moving) == 0

    def test_what_is_announced(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(hours=1)
        tree = visit().locator("body").aria_snapshot()
        assert re.search(rf'- main:\n\s+- heading "{DOWN}" \[level=1\]', tree)
        assert re.search(rf"- status: {PROMISE}", tree)


class TestTheWayBack:
    def test_it_asks_until_it_is_over_and_brings_the_visitor_back(self, visit: Visit, site: Site) -> None:
        page = visit("shop?item=1#reviews")
        page.clock.run_for("00:30")
        hear_no(page, 2)
        assert site.asked == ["GET /shop?item=1", "HEAD /shop?item=1"]
        expect(page.locator("h1")).to_have_text(DOWN)
        site.up = True
        page.clock.run_for("01:00")
        expect(page.locator("h1")).to_have_text("GET")
        assert site.asked[-2:] == ["HEAD /shop?item=1", "GET /shop?item=1"]
        assert page.url == site.url + "shop?item=1#reviews"

    @pytest.mark.parametrize("status", [200, 405])
    def test_a_form_is_never_sent_again_and_the_way_back_leads_to_it(
        self, visit: Visit, site: Site, status: int
    ) -> None:
        site.up = True
        page = visit("order")
        site.up, site.status = False, status
        page.set_content("<form method=post action=/pay><input name=a value=b><button>Buy</button></form>")
        page.get_by_role("button").click()
        expect(page.locator("h1")).to_have_text(DOWN)
        expect(page.get_by_text("Your form was not saved. Go back to get what you typed.")).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("We’ll let you know here when you can send it again.")
        site.up = True
        page.clock.run_for("01:00")
        expect(page.get_by_role("status")).to_have_text("Go back to your form and send it again.")
        expect(page.locator("h1")).to_have_text("We’re back")
        assert page.title() == "We’re back"
        site.status = 200
        page.get_by_role("button", name="Go back").click()
        expect(page.locator("h1")).to_have_text("GET")
        assert page.url == site.url + "order"
        assert site.asked.count("POST /pay") == 1

    def test_without_a_script_a_form_is_told_so_and_stays(self, visit: Visit, site: Site) -> None:
        site.up = True
        page = visit(at=None, java_script_enabled=False)
        site.up = False
        page.set_content(f"<form method=post action={site.url}pay><button>Buy</button></form>")
        page.get_by_role("button").click()
        expect(page.get_by_text("Your form was not saved. Go back to get what you typed.")).to_be_visible()
        expect(page.get_by_text("reloads once a minute")).to_have_count(0)
        assert "refresh" not in page.content()

    def test_an_answer_that_leaves_the_page_where_it_is_is_not_the_last_word(self, visit: Visit, site: Site) -> None:
        page = visit()
        site.up, site.status = True, 204
        page.clock.run_for(page.evaluate("waits.at(-1)"))  # no longer: the rest would count as time after the answer
        expect(page.get_by_role("status")).to_have_text("One moment …")
        page.clock.run_for("00:05")
        expect(page.get_by_role("status")).to_have_text("If nothing happens, please reload this page.")
        expect(page.locator("h1")).to_have_text("We’re back")
        expect(page.locator(".message")).to_be_hidden()
        page.clock.run_for("10:00")
        assert site.asked == ["GET /", "HEAD /", "GET /"]

    @pytest.mark.parametrize("status", [302, 404])
    def test_any_answer_of_the_app_is_the_end(self, visit: Visit, site: Site, status: int) -> None:
        page = visit()
        site.up, site.status = True, status
        page.clock.run_for("00:30")
        expect(page.locator("h1")).to_have_text("GET")
        assert site.asked == ["GET /", "HEAD /", "GET /", *["GET /login"] * (status == 302)]

    def test_a_gateway_without_a_backend_is_not(self, visit: Visit, site: Site) -> None:
        page = visit()
        site.up = True
        for count, site.status in enumerate((429, 502, 503, 504, 520, 530), start=2):
            page.clock.run_for(page.evaluate("waits.at(-1)"))
            hear_no(page, count)
        assert site.asked == ["GET /", *["HEAD /"] * 6]

    def test_where_head_is_refused_it_asks_with_get(self, visit: Visit, site: Site) -> None:
        site.head = 405
        page = visit()
        page.clock.run_for("00:30")
        hear_no(page, 2)
        assert site.asked == ["GET /", "HEAD /", "GET /"]
        expect(page.locator("h1")).to_have_text(DOWN)
        site.up = True
        page.clock.run_for("01:00")
        expect(page.locator("h1")).to_have_text("GET")

    def test_a_network_that_fails_is_not_the_end(self, visit: Visit, site: Site) -> None:
        page = visit()
        page.context.set_offline(True)
        page.clock.run_for("00:31")
        expect(page.get_by_role("status")).to_have_text("We can’t reach the site right now. We’ll keep trying.")
        expect(page.locator("h1")).to_have_text(DOWN)
        site.up = True
        page.context.set_offline(False)
        expect(page.locator("h1")).to_have_text("GET")

    def test_a_request_that_hangs_is_given_up(self, visit: Visit, site: Site) -> None:
        page = visit()
        page.evaluate("window.impatient = true")
        page.route("**", lambda route: None)
        with page.expect_request("**"):
            page.clock.run_for(page.evaluate("waits.at(-1)"))
        page.clock.run_for("00:20")
        expect(page.get_by_role("status")).to_contain_text("can’t reach the site")
        page.evaluate("window.impatient = false")
        page.unroute_all(behavior="ignoreErrors")
        site.up = True
        page.clock.run_for("01:00")
        expect(page.locator("h1")).to_have_text("GET")

    def test_read_only_asks_nothing_and_offers_the_way_back(self, visit: Visit, site: Site) -> None:
        site.up = True
        page = visit("form")
        site.up = False
        site.snapshot = Snapshot(enabled=True, mode="read_only")
        page.goto(site.url + "form?saved")
        expect(page.locator("h1")).to_have_text("You can look around, but changes are paused")
        expect(page.locator("main p").first).to_have_text("Your change was not saved.")
        page.clock.run_for("01:00:00")
        hide(page, hidden=True)
        hide(page, hidden=False)
        site.up = True
        page.get_by_role("button", name="Go back").click()
        expect(page.locator("h1")).to_have_text("GET")
        assert page.url == site.url + "form"
        assert not [asked for asked in site.asked if asked.startswith("HEAD")]

    def test_a_hidden_tab_asks_nothing_and_asks_at_once_when_it_is_seen(self, visit: Visit, site: Site) -> None:
        page = visit()
        hide(page, hidden=True)
        page.clock.run_for("01:00:00")
        assert site.asked == ["GET /"]
        hide(page, hidden=False)
        hear_no(page, 2)
        assert site.asked == ["GET /", "HEAD /"]
        site.up = True
        page.clock.run_for("01:00")
        expect(page.locator("h1")).to_have_text("GET")


class TestTheNews:
    def test_an_open_page_follows_the_message_and_the_end(self, visit: Visit, site: Site) -> None:
        site.snapshot = Snapshot(enabled=True, message="One.", until=NOW + dt.timedelta(minutes=30))
        page = visit()
        page.clock.run_for("00:30")
        page.wait_for_function("waits.length >= 3")
        assert site.asked == ["GET /", "HEAD /"]
        site.snapshot = Snapshot(enabled=True, message="Two, see https://a.example/", until=NOW + dt.timedelta(hours=3))
        page.clock.run_for("01:00")
        expect(page.locator(".message")).to_have_text("Two, see https://a.example/")
        expect(page.locator(".message a")).to_have_count(1)
        expect(page.locator("time")).to_have_text("15:00 UTC")
        expect(page.locator(".left")).to_have_text("in about 3 hours")
        count = len(site.asked)
        assert site.asked[2:] in ([*["HEAD /"] * (count - 3), "GET /"], ["HEAD /", "GET /", *["HEAD /"] * (count - 4)])
        site.snapshot = Snapshot(enabled=True, message="Two, see https://a.example/")
        page.clock.run_for("01:00")
        expect(page.locator("#end")).to_be_hidden()
        expect(page.locator("h1")).to_have_text(DOWN)

    def test_a_new_end_is_promised_again(self, visit: Visit, site: Site) -> None:
        site.snapshot = until(minutes=1)
        page = visit()
        page.clock.run_for("01:10")
        expect(page.get_by_role("status")).to_contain_text("longer than expected")
        site.snapshot, site.now = until(hours=1), NOW + dt.timedelta(minutes=2)
        for _ in range(2):  # the first answer may be to a question from before
            with page.expect_response("**"):
                page.clock.run_for("01:00")
        expect(page.locator("time")).to_have_text("13:00 UTC")
        expect(page.get_by_role("status")).to_have_text(PROMISE)

    def test_the_page_of_a_form_follows_too_and_keeps_what_was_not_saved(self, visit: Visit, site: Site) -> None:
        page = visit()
        send_form(page, site)
        site.snapshot = Snapshot(enabled=True, message="Two.")
        page.clock.run_for("01:00")
        expect(page.locator(".message")).to_have_text("Two.")
        expect(page.get_by_text("Your form was not saved.")).to_be_visible()

    def test_a_refusal_that_is_not_this_page_changes_nothing(self, visit: Visit, site: Site) -> None:
        page = visit()
        body = "<p id=message>Injected</p>"
        headers = {"Maintenance-Page": "other", "Content-Type": "text/html"}
        page.route("**", lambda route: route.fulfill(status=503, headers=headers, body=body))
        page.clock.run_for("00:30")
        hear_no(page, 2)
        assert "Injected" not in page.locator("main").inner_text()

    def test_the_tab_shows_that_it_is_over(self, visit: Visit, site: Site) -> None:
        site.renderer = Renderer(Options(name="Shop"))
        page = visit(locale="de-DE")
        assert page.title() == "Wartungsarbeiten · Shop"
        site.up, site.status = True, 204
        page.clock.run_for("00:30")
        expect(page.locator("h1")).to_have_text("Wir sind wieder da")
        expect(page).to_have_title("Wir sind wieder da · Shop")  # not while the browser tries to reload

    def test_a_file_shows_itself_and_asks_nothing(self, visit: Visit, site: Site, tmp_path: Path) -> None:
        path = tmp_path / "503.html"
        path.write_text(site.renderer.render_file(until(hours=1), "de"))
        page = visit()
        page.goto(path.as_uri())
        expect(page.get_by_role("status")).to_have_text("Sobald wir zurück sind, laden wir diese Seite neu.")
        expect(page.locator("time")).not_to_be_empty()
        waits = len(page.evaluate("waits"))
        page.clock.run_for("00:50")
        assert len(page.evaluate("waits")) == waits


class TestTheSpread:
    def test_visitors_spread_their_first_retries(self, visit: Visit) -> None:
        waits = [wait for _ in range(2) for wait in visit().evaluate("waits")]
        assert len(set(waits)) == 2
        assert all(15_000 <= wait < 30_000 for wait in waits)

    def test_what_the_server_asks_for_bounds_the_wait(self, visit: Visit, site: Site) -> None:
        page = visit()
        asked = [("20", 20), ("1", 5), ("0", 30), ("3600", 60), ("Sat, 21 Nov 2026 13:00:00 GMT", 30), ("-5", 5)]
        for count, (site.hint, most) in enumerate(asked, start=2):
            page.clock.run_for(page.evaluate("waits.at(-1)"))
            hear_no(page, count)
            assert most * 500 <= page.evaluate("waits.at(-1)") < most * 1000
            assert len(site.asked) == count

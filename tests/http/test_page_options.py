"""`Page`: what it accepts, what it refuses, and what it changes."""

import base64
import gc
import logging
import re
import weakref
from pathlib import Path
from typing import Any

import pytest

from maintenance import ConfigurationError, MaintenanceState, Page
from maintenance.http.refusal import template as template_module
from tests.http.adapters import Adapter
from tests.support.clients import Answer
from tests.support.clock import Clock

SVG = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
TEMPLATE = """<!doctype html><html lang="{{lang}}" dir="{{dir}}"><head><title>{{ title }}</title>
<style>h1 { color: green }</style></head><body>{{unsaved}}{{heading}}{{message}}{{script}}</body></html>"""


def ask(adapter: Adapter, state: MaintenanceState, page: Page | None, **options: Any) -> Answer:
    state.set(True)
    return adapter.ask(adapter.wrap(state, page=page), "/", **{"headers": {"Accept": "text/html"}} | options)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_each_option_is_on_the_page(adapter: Adapter, state: MaintenanceState, tmp_path: Path) -> None:
    page = Page(
        name="A & B",
        logo=write(tmp_path / "logo.svg", SVG),
        accent="#0b6e4f",
        support="help@shop.example",
        status_url="https://status.example/?a=1&b=2",
        texts={"en": {"heading": "<Soon>"}, "eo": {"heading": "Ni baldaŭ revenos"}, "PT-br": {"title": "Voltamos já"}},
    )
    answer = ask(adapter, state, page)
    body = answer.body.decode()
    assert "<title>Down for maintenance · A &amp; B</title>" in body
    assert f'<img src="data:image/svg+xml;base64,{base64.b64encode(SVG.encode()).decode()}" alt="">' in body
    assert "img-src data:" in answer.headers["content-security-policy"]
    assert "<style>:root { --accent: #0b6e4f; }</style>" in body
    assert 'href="mailto:help@shop.example"' in body
    assert 'href="https://status.example/?a=1&amp;b=2"' in body
    assert ">&lt;Soon&gt;</h1>" in body
    headers = {"Accept": "text/html", "Accept-Language": "eo"}
    assert "Ni baldaŭ revenos" in ask(adapter, state, page, headers=headers).body.decode()
    brazilian = ask(adapter, state, page, headers={"Accept": "text/html", "Accept-Language": "pt-BR"}).body.decode()
    assert "Voltamos já" in brazilian
    assert "Voltamos em breve" in brazilian


def test_it_is_a_frozen_value_whose_options_are_named() -> None:
    with pytest.raises(TypeError):
        Page("shop")  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Page().name = "x"  # type: ignore[misc]
    assert Page(name="x") == Page(name="x")
    assert hash(Page(texts={"de": {"title": "x"}})) == hash(Page(texts={"de": {"title": "x"}}))


@pytest.mark.parametrize(
    ("support", "shown"),
    [
        ("https://help.example/", '<a href="https://help.example/" rel='),
        ("a@b.example", "mailto:a@b.example"),
        (None, ""),
    ],
)
def test_help_is_an_address_or_a_page(
    adapter: Adapter, state: MaintenanceState, support: str | None, shown: str
) -> None:
    body = ask(adapter, state, Page(support=support)).body.decode()
    assert shown in body
    assert ('class="contact"' in body) is (support is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name is '': use one line of at most 200 characters"),
        ({"name": "a\nb"}, "name is .*: use one line"),
        ({"name": 3}, "name is 3: use one line"),
        ({"accent": "red"}, "accent is 'red': use a CSS hex colour, such as '#0b6e4f'"),
        ({"accent": "#12345"}, "use a CSS hex colour"),
        ({"accent": "#fff;}"}, "use a CSS hex colour"),
        ({"support": "http://a.example"}, "support is .*: use an e-mail address, or a URL that begins with https://"),
        ({"support": 'a"@b.example'}, "support is"),
        ({"status_url": "https://"}, "status_url is .*: use a URL that begins with https://"),
        ({"status_url": "https://[x"}, "status_url is"),
        ({"status_url": "https://user:pass@a.example"}, "status_url is a str: use"),
        ({"status_url": 'https://a.example/"'}, "status_url is"),
        ({"status_url": 3}, "status_url is 3"),
        ({"logo": 3}, "logo is 3: use a path to an SVG or PNG file, or a data: URI of an image"),
        ({"logo": "data:text/html,x"}, "logo is .*: use a path"),
        ({"logo": "data:image/png;x"}, "logo is"),
        ({"logo": "nowhere.png"}, r"logo is 'nowhere.png', which cannot be read \(No such file or directory\): use"),
        ({"logo": "a\0b"}, "which cannot be read"),
        ({"logo": "fake.png"}, "logo is 'fake.png', which is neither an SVG nor a PNG file"),
        ({"logo": "x.gif"}, "logo is 'x.gif', which is neither"),
        ({"logo": "large.svg"}, "logo is 'large.svg', which is too large: use at most 64 KiB"),
        ({"texts": ["de"]}, "texts is "),
        ({"texts": {"deutsch!": {}}}, "texts has 'deutsch!': use a language tag such as 'de'"),
        ({"texts": {"de": "x"}}, "texts has 'de': use a language tag such as 'de', and a mapping"),
        ({"texts": {"de": {"colour": "x"}}}, "texts has no name 'colour': use some of title, heading"),
        ({"texts": {"de": {"title": 3}}}, r"texts\['de'\]\['title'\] is 3: use one line"),
        ({"template": "nowhere.html"}, "template is 'nowhere.html', which cannot be read"),
        ({"template": "latin.html"}, "template is 'latin.html', which is not UTF-8: save it as UTF-8"),
        (
            {"template": "odd.html"},
            r"template 'odd.html': \{\{colour\}\} is not a slot: remove it. The slots are lang, ",
        ),
        ({"template": "short.html"}, r"it has no \{\{unsaved\}\}: add it"),
        ({"template": "slot.html"}, "a <script> has a slot"),
        ({"template": "src.html"}, "<img> loads a file, and the page must need no other"),
        ({"template": "link.html"}, "<link> loads a file"),
        ({"template": "on.html"}, "<p> has the attribute onclick, which the policy stops"),
        ({"template": "id.html"}, "<main> has the id 'maintenance', by which the script finds"),
    ],
    ids=str,
)
def test_an_option_that_is_wrong_is_refused_when_constructed(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files: dict[str, str | bytes] = {
        "fake.png": "GIF", "x.gif": "GIF", "large.svg": SVG + " " * 2**16, "latin.html": "ü".encode("latin-1"),
        "odd.html": "{{colour}}", "short.html": "{{message}}", "slot.html": TEMPLATE + "<script>{{name}}</script>",
        "src.html": TEMPLATE + "<img src=x.png>", "link.html": TEMPLATE + "<link rel=stylesheet href=x.css>",
        "on.html": TEMPLATE + "<p onclick='x()'>", "id.html": TEMPLATE + "<main id=maintenance>",
    }  # fmt: skip
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(ConfigurationError, match=message):
        Page(**options)


def test_a_middleware_takes_nothing_else(adapter: Adapter) -> None:
    with pytest.raises(ConfigurationError, match=r"page is of type str: use maintenance.Page\(...\), or None"):
        adapter.wrap(page="page.html")


def test_a_png_and_a_data_uri_are_logos(tmp_path: Path) -> None:
    uri = Page(logo=str(write(tmp_path / "Logo.PNG", PNG))).logo
    assert uri == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert Page(logo=uri).logo == uri


def test_a_logo_cannot_leave_its_attribute(adapter: Adapter, state: MaintenanceState) -> None:
    body = ask(adapter, state, Page(logo='data:image/svg+xml,<svg/>"onload="alert(1)')).body
    assert b'src="data:image/svg+xml,&lt;svg/&gt;&quot;onload=&quot;alert(1)"' in body


def test_an_own_template(adapter: Adapter, state: MaintenanceState, tmp_path: Path) -> None:
    own = TEMPLATE + '<style>@font-face { src: url("data:font/woff2;base64,AA==") }</style><img src="data:image/gif,x">'
    path = write(tmp_path / "own.html", own)
    page = Page(template=path)
    path.unlink()  # a deploy may remove it
    answer = ask(adapter, state, page, method="POST")
    body = answer.body.decode()
    assert body.startswith('<!doctype html><html lang="en" dir="ltr"><head><title>Down for maintenance</title>')
    assert body.index("Your form was not saved.") < body.index("We’ll be back soon")
    policy = answer.headers["content-security-policy"]
    for tag in ("style", "script"):
        for block in re.findall(f"<{tag}>(.*?)</{tag}>", body, re.DOTALL):
            assert template_module._hash(block) in policy
    assert "font-src data:" in policy
    assert "img-src data:" in policy


def test_a_template_with_the_line_ends_of_windows_keeps_its_style(
    adapter: Adapter, state: MaintenanceState, tmp_path: Path
) -> None:
    """A browser compares the policy's hash with that of the text after it has replaced each line end by a newline."""
    own = TEMPLATE + "<style>\r\nbody {}\r\n</style><style>\rp {}\r</style>"
    answer = ask(adapter, state, Page(template=write(tmp_path / "own.html", own)))
    for block in ("\nbody {}\n", "\np {}\n"):
        assert template_module._hash(block) in answer.headers["content-security-policy"]


def test_a_template_that_fails_falls_back_and_the_log_says_so_once_a_minute(
    adapter: Adapter,
    state: MaintenanceState,
    *,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = Page(template=write(tmp_path / "own.html", TEMPLATE))

    def fail(source: str, slots: Any) -> str:
        if source == TEMPLATE:
            raise RuntimeError("no memory")
        return template_module.fill(source, slots)

    monkeypatch.setattr("maintenance.http.refusal.render.fill", fail)
    caplog.set_level(logging.ERROR, "maintenance")
    app = adapter.wrap(state, page=page)
    for seconds, lines in ((0.0, 1), (59.0, 1), (2.0, 2)):
        clock.now += seconds
        state.set(True, message=f"{clock.now}")
        answer = adapter.ask(app, "/", headers={"Accept": "text/html"})
        assert b'class="sunrise"' in answer.body
        assert [it.getMessage().partition(":")[2] for it in caplog.records] == [
            f" the page's template failed; the standard page is sent (logged once in 60 s): {page.template!r}"
        ] * lines


def test_the_page_keeps_no_middleware_alive(adapter: Adapter, state: MaintenanceState) -> None:
    gc.disable()
    try:
        app = adapter.wrap(state)
        alive = weakref.ref(app._admission)
        del app
        assert alive() is None
    finally:
        gc.enable()

"""The banners of the announcement page, in a template and in a real browser."""

import datetime as dt
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from playwright.sync_api import expect, sync_playwright

from maintenance import MaintenanceState, set_maintenance
from maintenance.wsgi import MaintenanceMiddleware
from tests.docs.pages import blocks, sample, text
from tests.http.test_page import BROWSERS, FLAGS

PAGE = "docs/how-to/announce.md"
START = dt.datetime(2031, 5, 1, 2, 0, tzinfo=dt.UTC)


def test_a_template_shows_what_is_planned(paste: Callable[[str], Any]) -> None:
    client = paste(sample(PAGE, "render_template_string")).app.test_client()
    assert "Maintenance begins" not in client.get("/").text
    set_maintenance(True, starts=START, message="We move.")
    shown = client.get("/").text
    assert "Maintenance begins at" in shown
    assert "02:00 UTC" in shown
    assert "We move." in shown


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_browser_app_shows_what_is_planned() -> None:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the PATH")
    [script], [element] = blocks(PAGE, "javascript"), ['<p id="maintenance" role="status" hidden></p>']
    assert element in text(PAGE)
    page = f"<!doctype html><title>app</title>{element}<script type=module>{script}</script>".encode()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [page]

    with closing(MaintenanceState("memory://")) as state:
        wrapped = MaintenanceMiddleware(app, state, status_path="/maintenance.json")
        with make_server("127.0.0.1", 0, wrapped, handler_class=_Quiet) as server, sync_playwright() as playwright:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with playwright.chromium.launch(executable_path=path, args=FLAGS) as browser:
                tab = browser.new_page(locale="en-GB", timezone_id="UTC")
                tab.goto(f"http://127.0.0.1:{server.server_port}/")
                banner = tab.locator("#maintenance")
                expect(banner).to_be_hidden()
                state.set(True, starts=START, message="We move.")
                tab.reload()
                expect(banner).to_have_text("Maintenance begins at 02:00. We move.", timeout=20_000)
            server.shutdown()

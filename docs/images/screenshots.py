"""Take the images of the documentation: ``python docs/images/screenshots.py [FOLDER]``.

It serves the middleware over a store in memory, and opens the page in Chromium or Chrome.
"""

import datetime as dt
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, demo_app, make_server

from playwright.sync_api import Browser, sync_playwright

from maintenance import MaintenanceState, Page
from maintenance.wsgi import MaintenanceMiddleware

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NOW = dt.datetime(2126, 11, 22, 11, 30, tzinfo=dt.UTC)
"""The time in the browser, so that each run shows the same end. The server's own clock must not have passed it."""

MESSAGE = {
    "en": "We are moving to a faster database.\nNews: https://status.shop.example",
    "de": "Wir ziehen auf eine schnellere Datenbank um.",
    "ar": "ننتقل إلى قاعدة بيانات أسرع.",
}
LOGO = (
    "data:image/svg+xml,<svg%20xmlns='http://www.w3.org/2000/svg'%20viewBox='0%200%2040%2040'>"
    "<rect%20width='40'%20height='40'%20rx='10'%20fill='%230b7a63'/>"
    "<path%20d='M12%2026V14l16%2012V14'%20fill='none'%20stroke='white'%20stroke-width='4'/></svg>"
)
PAGE = Page(name="North Shop", logo=LOGO, accent="#0b7a63", support="help@shop.example")

IMAGES: dict[str, tuple[Page | None, dict[str, Any]]] = {
    "page.png": (None, {"viewport": {"width": 880, "height": 540}, "locale": "en-US"}),
    "page-form.png": (PAGE, {"viewport": {"width": 880, "height": 680}, "locale": "en-US"}),
    "page-dark.png": (PAGE, {"viewport": {"width": 880, "height": 640}, "locale": "de-DE", "color_scheme": "dark"}),
    "page-phone.png": (PAGE, {"viewport": {"width": 320, "height": 600}, "locale": "ar"}),
}
"""Each file, the options of the page and those of the browser."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Print nothing for each request."""


@contextmanager
def _serve(state: MaintenanceState, page: Page | None) -> Iterator[str]:
    app = MaintenanceMiddleware(demo_app, state, page=page)
    with make_server("127.0.0.1", 0, app, WSGIServer, _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _take(browser: Browser, url: str, path: Path, options: dict[str, Any]) -> None:
    with browser.new_context(timezone_id="UTC", reduced_motion="reduce", **options) as context:
        page = context.new_page()
        page.clock.set_fixed_time(NOW)
        if path.stem == "page-form":
            page.set_content(f'<form method="post" action="{url}"><button>Send</button></form>')
            page.get_by_role("button").click()
        else:
            page.goto(url)
        page.locator("#heading").wait_for()
        page.screenshot(path=path)


def main(folder: Path = HERE) -> None:
    """Write the images into a folder."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit(f"Install Chromium or Chrome: none of {', '.join(BROWSERS)} is on the PATH.")
    arguments = ["--no-sandbox", "--disable-gpu"]
    with closing(MaintenanceState("memory://")) as state, sync_playwright() as playwright:
        state.set(True, message=MESSAGE, until=NOW + dt.timedelta(minutes=45))
        with playwright.chromium.launch(executable_path=executable, args=arguments) as browser:
            for name, (page, options) in IMAGES.items():
                with _serve(state, page) as url:
                    _take(browser, url, folder / name, options)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

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
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, demo_app, make_server

from playwright.sync_api import Browser, sync_playwright

from maintenance import MaintenanceState
from maintenance.wsgi import MaintenanceMiddleware

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NOW = dt.datetime(2026, 11, 22, 11, 30, tzinfo=dt.UTC)
"""The time in the browser, so that each run shows the same end."""

MESSAGE = "We are moving to a faster database."
WIDTH, HEIGHT = 880, 520


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Print nothing for each request."""


@contextmanager
def _serve(state: MaintenanceState) -> Iterator[str]:
    app = MaintenanceMiddleware(demo_app, state)
    with make_server("127.0.0.1", 0, app, WSGIServer, _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _take(browser: Browser, url: str, path: Path) -> None:
    viewport = {"width": WIDTH, "height": HEIGHT}
    with browser.new_context(
        viewport=viewport, locale="en-US", timezone_id="UTC", color_scheme="light", reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.clock.set_fixed_time(NOW)
        page.goto(url)
        page.screenshot(path=path)


def main(folder: Path = HERE) -> None:
    """Write ``page.png`` into a folder."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit(f"Install Chromium or Chrome: none of {', '.join(BROWSERS)} is on the PATH.")
    with closing(MaintenanceState("memory://")) as state, _serve(state) as url, sync_playwright() as playwright:
        state.set(True, message=MESSAGE, until=NOW + dt.timedelta(minutes=30))
        with playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"]) as browser:
            _take(browser, url, folder / "page.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

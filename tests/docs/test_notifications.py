"""The recipes of the notifications page, against a chat on this machine."""

import json
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from maintenance import set_maintenance
from tests.docs.pages import sample, text
from tests.support.command import operator, read_until, start

PAGE = "docs/how-to/notifications.md"


@pytest.fixture
def chat() -> Iterator[tuple[str, SimpleQueue[Any]]]:
    """The address of an HTTP server, and the method and the JSON of each request to it."""
    posts: SimpleQueue[Any] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            posts.put((self.command, json.loads(body or "null")))
            self.send_response(200)
            self.end_headers()

        do_PURGE = do_POST

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", posts
        server.shutdown()


def test_the_script_posts_each_flip_to_slack(
    migrated_url: str, tmp_path: Path, chat: tuple[str, SimpleQueue[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, posts = chat
    (tmp_path / "slack.py").write_text(sample(PAGE, "SLACK_WEBHOOK_URL"))
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    monkeypatch.setenv("SLACK_WEBHOOK_URL", address)
    assert "--exec 'python3 slack.py'" in text(PAGE)
    command = shlex.join([sys.executable, str(tmp_path / "slack.py")])
    with closing(operator(migrated_url)) as state, start("watch", "--exec", command) as watching:
        read_until(watching, "maintenance is OFF")
        revision = state.set(True, scope="shop", message="<!channel> Zurück", actor="alice").revision
        _, posted = posts.get(timeout=20)
        assert posted["text"].splitlines() == [
            f"maintenance for shop is ON (revision {revision})", "mode: full", "message: &lt;!channel&gt; Zurück",
            "actor: alice",
        ]  # fmt: skip
        state.set(False, scope="shop")
        assert "maintenance for shop is OFF" in posts.get(timeout=20)[1]["text"]


def test_each_process_purges_its_cache(
    paste: Callable[[str], Any], chat: tuple[str, SimpleQueue[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    address, posts = chat
    code = sample(PAGE, "PURGE").replace("http://127.0.0.1:6081/", address)
    paste(code)
    set_maintenance(True)
    assert posts.get(timeout=20) == ("PURGE", None)
    assert "was not purged" not in caplog.text

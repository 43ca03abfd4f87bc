"""The readers in other languages follow what a Python process follows."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from maintenance import MaintenanceState
from tests.docs.pages import blocks
from tests.support.postgres import Server
from tests.support.servers import free_port
from tests.support.waiting import eventually

PAGE = "docs/how-to/other-languages.md"
GOPATH = "/usr/share/gocode"  # of Debian's packages


def build_go(folder: Path) -> list[str]:
    if shutil.which("go") is None or not Path(GOPATH, "src/github.com/lib/pq").is_dir():
        pytest.skip("golang-go and golang-github-lib-pq-dev are not installed")
    [code] = blocks(PAGE, "go")
    (folder / "main.go").write_text(code)
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": GOPATH, "GOCACHE": str(folder / "cache")}
    subprocess.run(["go", "build", "-o", "reader", "main.go"], cwd=folder, env=env, timeout=110, check=True)
    return [str(folder / "reader")]


def write_js(folder: Path) -> list[str]:
    finds = ["node", "-e", "require('pg')"]
    if shutil.which("node") is None or subprocess.run(finds, capture_output=True, check=False).returncode:
        pytest.skip("Node.js and its package pg are not installed")
    [code] = blocks(PAGE, "js")
    (folder / "reader.js").write_text(code)
    return ["node", str(folder / "reader.js")]


@contextmanager
def running(command: list[str], url: str, log: Path) -> Iterator[Callable[..., int]]:
    """Run a reader; yield the function that returns the status of its answers."""
    port = free_port()
    env = {**os.environ, "MAINTENANCE_DATABASE_URL": url, "PORT": str(port)}

    def ask(method: str = "GET") -> int:
        try:
            return httpx.request(method, f"http://127.0.0.1:{port}/").status_code
        except httpx.ConnectError:
            return 0

    with log.open("a") as written, subprocess.Popen(command, env=env, stderr=written) as process:
        try:
            eventually(ask)
            yield ask
        finally:
            process.kill()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("make", [build_go, write_js])
def test_a_reader_follows_what_a_python_process_follows(
    make: Callable[[Path], list[str]], own_server: Server, tmp_path: Path
) -> None:
    command, log = make(tmp_path), tmp_path / "log"
    url = f"{own_server.url()}?sslmode=disable"

    def change(sql: bytes) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(sql)

    def keeps(answer: int, ask: Callable[..., int]) -> None:
        """The reader reports that it cannot read the flag, and answers as before."""
        eventually(lambda: "keeping the last answer" in log.read_text(), 15.0)
        assert ask() == answer
        log.write_text("")

    with closing(MaintenanceState(url, register=False)) as state:
        state.store.migrate()
        change(b"DELETE FROM platform_settings")
        with running(command, url, log) as ask:
            keeps(503, ask)
            change(b"INSERT INTO platform_settings (key, value_bool) VALUES ('maintenance_mode', false)")
            eventually(lambda: ask() == 200, 15.0)
            log.write_text("")
            for details, expected in [
                (b"{}", (503, 503)),
                (b'{"mode": "read_only"}', (200, 503)),
                (b'{"mode": "nonsense"}', (503, 503)),
                (b"[1]", (503, 503)),
            ]:
                change(b"UPDATE platform_settings SET value_bool = true, details = '%s'" % details)
                eventually(lambda expected=expected: (ask(), ask("POST")) == expected, 3.0)
                assert state.refresh().enabled
                assert (state.snapshot().mode == "read_only") is (expected[0] == 200)
            change(b"UPDATE platform_settings SET value_bool = NULL")
            keeps(503, ask)
            state.set(False)
            eventually(lambda: ask() == 200, 3.0)
            state.set(True)
            eventually(lambda: ask() == 503, 3.0)
            change(b"DELETE FROM platform_settings")
            state.store.migrate()  # the new row is no flip
            eventually(lambda: "the database was taken back" in log.read_text(), 15.0)
            own_server.stop()
            keeps(503, ask)

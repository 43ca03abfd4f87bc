"""Each server of the documentation, in one go: its processes follow, the proof holds, and SIGTERM leaves no row."""

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from maintenance import MaintenanceState
from tests.docs.pages import ROOT, blocks, text
from tests.support.clients import ask
from tests.support.servers import (
    Running,
    alive,
    cheroot,
    daphne,
    granian,
    gunicorn,
    hypercorn,
    twist,
    uvicorn,
    uwsgi,
    waitress,
)
from tests.support.sql import find_instances, flip
from tests.support.waiting import eventually

ASGI = "tests.apps.fleet:asgi"
WSGI = "tests.apps.fleet:wsgi"
PAGE = "docs/how-to/servers.md"


@dataclass(frozen=True)
class Case:
    """A server, as the table of the documentation names it.

    Attributes:
        start: Starts it with an environment.
        processes: How many serve.
        joins: When a process joins the fleet.
    """

    start: Callable[..., AbstractContextManager[Running]]
    processes: int = 2
    joins: str = "at its first request"


AT_ITS_START = "when it starts"

CASES = {
    "uvicorn": Case(partial(uvicorn, ASGI, workers=2), joins=AT_ITS_START),
    "uvicorn, `--lifespan off`": Case(partial(uvicorn, ASGI, options=["--lifespan=off"]), 1),
    "uvicorn, `--interface wsgi`": Case(partial(uvicorn, WSGI, options=["--interface=wsgi"]), 1),
    "uvicorn, `--lifespan off`, `--workers`": Case(partial(uvicorn, ASGI, workers=2, options=["--lifespan=off"])),
    "uvicorn, `--interface wsgi`, `--workers`": Case(partial(uvicorn, WSGI, workers=2, options=["--interface=wsgi"])),
    "hypercorn, asyncio": Case(partial(hypercorn, ASGI), joins=AT_ITS_START),
    "hypercorn, trio": Case(partial(hypercorn, ASGI, worker_class="trio"), joins=AT_ITS_START),
    "granian, ASGI": Case(partial(granian, ASGI, interface="asgi"), joins=AT_ITS_START),
    "granian, WSGI": Case(partial(granian, WSGI, interface="wsgi")),
    "daphne": Case(partial(daphne, ASGI), 1),
    "gunicorn, sync": Case(partial(gunicorn, WSGI)),
    "gunicorn, gthread": Case(partial(gunicorn, WSGI, worker_class="gthread", threads=4)),
    "gunicorn, gevent": Case(partial(gunicorn, WSGI, worker_class="gevent")),
    "gunicorn, `--preload`": Case(partial(gunicorn, WSGI, preload=True)),
    "uWSGI": Case(partial(uwsgi, WSGI)),
    "uWSGI without `enable-threads`": Case(partial(uwsgi, WSGI, threads=False)),
    "waitress": Case(partial(waitress, WSGI), 1),
    "cheroot": Case(partial(cheroot, WSGI), 1),
    "Twisted": Case(partial(twist, WSGI), 1),
}


def serve_all(running: Running) -> set[int]:
    """Ask until each process has answered; return the pids."""
    seen: set[int] = set()

    def has_answered() -> bool:
        seen.add(ask(running.port, "/admin/status").pid)
        return seen >= set(running.workers())

    eventually(has_answered, 20, interval=0.005, what="an answer of each process")
    return seen


def rows() -> dict[str, list[str]]:
    """The cells of each line of the table, by the name of the server."""
    lines = [line.strip("| ").split(" | ") for line in text(PAGE).splitlines() if line.startswith("| ")]
    return {re.sub(r" +", " ", cells[0]).strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


@pytest.mark.parametrize("name", CASES)
def test_its_processes_follow_are_proven_and_leave_no_row(name: str, migrated_url: str) -> None:
    case = CASES[name]
    env = {"MAINTENANCE_DATABASE_URL": migrated_url, "APP_OPTIONS": json.dumps({"ttl": 10.0})}
    with case.start(env=env) as running, closing(MaintenanceState(migrated_url, register=False)) as boss:
        eventually(lambda: len(running.workers()) == case.processes, what="its processes")
        joined = AT_ITS_START if case.joins == AT_ITS_START else "at its first request"
        if joined == AT_ITS_START:
            eventually(lambda: find_instances(migrated_url).keys() >= set(running.workers()), what="their rows")
        else:
            assert find_instances(migrated_url) == {}
        pids = serve_all(running)
        for enabled, status in ((True, 503), (False, 200)):
            threads = "without" not in name  # or only a request lets a process acknowledge
            flag = boss.set(enabled)
            if not threads:
                serve_all(running)
            proof = boss.prove(flag, timeout=15.0, expect=case.processes)
            assert proof, proof
            assert {ask(running.port, "/").status for _ in range(10)} == {status}
        running.process.terminate()
        running.process.wait(15)
        eventually(lambda: not any(map(alive, pids)), what="the end of its processes")
        left = "none" if not find_instances(migrated_url) else "one for each process"
        assert "Traceback" not in running.log
    assert rows()[name] == [str(case.processes) if case.processes == 1 else "several", joined, left]


def test_under_daphne_a_websocket_is_closed_and_its_app_hears_of_it(migrated_url: str, tmp_path: Path) -> None:
    env = {
        "MAINTENANCE_DATABASE_URL": migrated_url,
        "APP_MIDDLEWARE": json.dumps({"close_websockets": True}),
        "APP_LOG": str(tmp_path / "log"),
    }
    with daphne(ASGI, env=env) as running, closing(MaintenanceState(migrated_url, register=False)) as boss:
        # The first request of the process: it waits for the first read, in a thread.
        with connect(f"ws://127.0.0.1:{running.port}/ws", open_timeout=10, close_timeout=1) as plain:
            plain.send("hello")
            assert plain.recv(5) == "hello"
            assert boss.prove(boss.set(True), drain=True, timeout=10)
            with pytest.raises(ConnectionClosed) as closed:
                plain.recv(5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4012
        assert (tmp_path / "log").read_text().startswith("disconnect ")
        assert "Traceback" not in running.log
        boss.set(False)


def test_under_daphne_a_websocket_that_is_the_first_request_does_not_keep_the_process_alive(migrated_url: str) -> None:
    with (
        daphne(ASGI, env={"MAINTENANCE_DATABASE_URL": migrated_url}) as running,
        connect(f"ws://127.0.0.1:{running.port}/ws", open_timeout=10, close_timeout=1) as plain,
    ):
        plain.send("hello")
        assert plain.recv(5) == "hello"
        running.process.terminate()
        assert running.process.wait(8) == 0


def test_under_uwsgi_a_thread_that_is_frozen_between_requests_follows_within_one_ttl(migrated_url: str) -> None:
    """Without `enable-threads`, Python's threads run only while a request does."""
    ttl, pause = 2.0, 0.9
    env = {"MAINTENANCE_DATABASE_URL": migrated_url, "APP_OPTIONS": json.dumps({"ttl": ttl})}
    with uwsgi(WSGI, workers=1, threads=False, env=env) as running:
        for enabled, status in ((True, 503), (False, 200), (True, 503)):
            for _ in range(4):
                ask(running.port, "/")
                time.sleep(pause)
            flip(migrated_url, on=enabled)
            flipped = time.monotonic()
            while ask(running.port, "/").status != status:
                time.sleep(pause)
                assert time.monotonic() - flipped < ttl + 2 * pause, running.log


APP = """
from maintenance.wsgi import MaintenanceMiddleware

def plain(environ, start_response):
    start_response("200 OK", [])
    return [b"open"]

app = MaintenanceMiddleware(plain)
"""


def paste(folder: Path, word: str) -> dict[str, str]:
    """Write the sample with a word, and an app below it; return what the environment needs."""
    [code] = [code for code in blocks(PAGE, "py") if word in code]
    (folder / "pasted.py").write_text(code + APP)
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def start_gunicorn(folder: Path, env: dict[str, str]) -> AbstractContextManager[Running]:
    return gunicorn("pasted:app", env=env, options=[f"--config={folder / 'pasted.py'}"])


@pytest.mark.parametrize(
    ("word", "start"),
    [("post_worker_init", start_gunicorn), ("postfork", lambda _, env: uwsgi("pasted:app", env=env))],
)
def test_with_the_hook_of_the_page_a_new_fleet_is_counted_before_its_first_request(
    word: str, start: Any, migrated_url: str, tmp_path: Path
) -> None:
    env = {"MAINTENANCE_DATABASE_URL": migrated_url, **paste(tmp_path, word)}
    with start(tmp_path, env) as running, closing(MaintenanceState(migrated_url, register=False)) as boss:
        proof = boss.prove(boss.set(True), timeout=15.0, expect=2)
        assert proof, f"{proof}: {running.log}"


def test_with_the_hook_of_the_page_twisted_leaves_no_row(migrated_url: str, tmp_path: Path) -> None:
    env = {"MAINTENANCE_DATABASE_URL": migrated_url, **paste(tmp_path, "twisted")}
    with twist("pasted:app", env=env) as running:
        assert ask(running.port, "/").status == 200
        eventually(lambda: find_instances(migrated_url), what="its row")
        running.process.terminate()
        running.process.wait(15)
    assert find_instances(migrated_url) == {}

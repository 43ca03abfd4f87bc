"""The helpers of the tests. A broken one would let every test pass."""

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import httpx
import psutil
import psycopg
import pytest

from tests.support.ports import accepts
from tests.support.postgres import DURABLE, Binaries, Server, installations, server
from tests.support.relay import Relay
from tests.support.servers import Running, alive, gunicorn, uvicorn, uwsgi
from tests.support.waiting import eventually

ASGI = "tests.support.plain_apps:asgi"
WSGI = "tests.support.plain_apps:wsgi"


def ask_in_background(connection: psycopg.Connection) -> list[object]:
    """Ask in a thread, which appends the answer to the list."""
    answers: list[object] = []
    threading.Thread(target=lambda: answers.append(connection.execute("SELECT 1").fetchone()), daemon=True).start()
    return answers


@pytest.mark.parametrize("binaries", installations(), ids=lambda found: found.source)
def test_a_server_runs_from_every_source_and_leaves_nothing_behind(binaries: Binaries) -> None:
    with server(binaries) as own:
        pid = own.pid
        with psycopg.connect(own.url()) as connection:
            shown = connection.execute("SHOW server_version_num").fetchone()
            assert shown is not None
            assert int(shown[0]) // 10_000 == binaries.version
        folder = own._folder
    assert not alive(pid)
    assert not folder.exists()


def test_the_server_is_not_run_by_root(postgres: Server) -> None:
    assert psutil.Process(postgres.pid).uids().effective != 0


def test_a_frozen_server_hangs_and_a_thawed_one_goes_on(own_server: Server) -> None:
    with psycopg.connect(own_server.url()) as connection:
        own_server.freeze()
        answers = ask_in_background(connection)
        assert accepts(own_server.port), "the kernel still accepts"
        with pytest.raises(AssertionError, match="not within"):
            eventually(lambda: answers, 0.3)
        own_server.thaw()
        eventually(lambda: answers)


def test_a_killed_server_starts_again_with_what_was_committed() -> None:
    with server(**DURABLE) as own:
        with psycopg.connect(own.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
            own.kill()
        assert not accepts(own.port)
        own.start()
        with psycopg.connect(own.url()) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        first = own.pid
        own.restart()
        assert own.pid != first


def test_each_test_has_databases_of_its_own(database_url: str, migrated_url: str) -> None:
    with psycopg.connect(database_url) as empty, psycopg.connect(migrated_url) as migrated:
        assert empty.execute("SELECT to_regclass('public.platform_settings')").fetchone() == (None,)
        assert migrated.execute("SELECT key, value_bool FROM platform_settings").fetchall() == [
            ("maintenance_mode", False)
        ]


def test_a_cut_relay_holds_and_then_delivers(postgres: Server) -> None:
    with Relay(postgres.port) as relay, psycopg.connect(postgres.url(port=relay.port)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        relay.cut()
        answers = ask_in_background(connection)
        with pytest.raises(AssertionError, match="not within"):
            eventually(lambda: answers, 0.3)
        assert accepts(relay.port), "a cut network still accepts"
        relay.pass_()
        eventually(lambda: answers)


def test_a_relay_refuses_and_passes_again(postgres: Server) -> None:
    with Relay(postgres.port) as relay:
        with psycopg.connect(postgres.url(port=relay.port)) as connection:
            assert relay.connections == 1
            relay.refuse()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relay.port), timeout=1.0)
        relay.pass_()
        psycopg.connect(postgres.url(port=relay.port)).close()
        eventually(lambda: relay.connections == 0)


@pytest.mark.parametrize(
    ("start", "workers"),
    [
        pytest.param(partial(uvicorn, ASGI), 1, id="uvicorn"),
        pytest.param(partial(uvicorn, ASGI, workers=2), 2, id="uvicorn-2"),
        pytest.param(partial(gunicorn, WSGI), 2, id="gunicorn"),
        pytest.param(partial(uwsgi, WSGI), 2, id="uwsgi"),
    ],
)
def test_a_server_answers_from_its_workers_and_leaves_no_process_behind(
    start: Callable[[], AbstractContextManager[Running]], workers: int
) -> None:
    with start() as running:
        eventually(lambda: len(running.workers()) == workers)
        pids = running.workers()
        assert int(httpx.get(running.url, timeout=10).text) in pids
    assert not any(map(alive, [*pids, running.process.pid]))
    assert not accepts(running.port)


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="nowhere"), uvicorn("tests.nowhere:app"):
        pass

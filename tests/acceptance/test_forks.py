"""Forks and threads: nothing starts before a request, nothing is shared with a child, and gevent's hub goes on."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest

from maintenance import MaintenanceState, init_maintenance
from maintenance.stores import PostgresStore
from maintenance.stores.postgres.session import PostgresSession
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.postgres import Server
from tests.support.servers import ROOT
from tests.support.waiting import eventually

# Python 3.12 warns of a fork in a process that has threads, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"open"]


def get(state: MaintenanceState) -> int:
    return call_wsgi(MaintenanceMiddleware(app, state)).status


def sql(url: str, statement: str, *values: object) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def flip(url: str, *, on: bool) -> None:
    sql(url, f"UPDATE platform_settings SET value_bool = {on}")


def registered(url: str) -> dict[int, str]:
    rows = sql(url, "SELECT pid, id FROM maintenance_instances WHERE pid <> 0")
    return {pid: instance.hex for pid, instance in rows}


def backends(url: str) -> int:
    """How many connections the library holds to this database."""
    return int(
        sql(
            url,
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'maintenance' AND datname = current_database()",
        )[0][0]
    )


class Child:
    """A function in a forked process; its result comes back over a pipe, or its traceback."""

    def __init__(self, function: Callable[[], Any]) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(reader)
                try:
                    told = {"result": function()}
                    status = 0
                except BaseException:  # noqa: BLE001 - it is told to the parent
                    told = {"failed": traceback.format_exc()}
                with os.fdopen(writer, "w") as pipe:
                    json.dump(told, pipe)
            finally:
                os._exit(status)
        os.close(writer)
        self._pipe = os.fdopen(reader)

    def result(self) -> Any:
        with self._pipe:
            told = json.loads(self._pipe.read() or '{"failed": "it died"}')
        os.waitpid(self.pid, 0)
        assert "failed" not in told, told["failed"]
        return told["result"]


@pytest.fixture
def state(migrated_url: str) -> Iterator[MaintenanceState]:
    with closing(MaintenanceState(migrated_url, ttl=10.0)) as state:
        yield state


def test_a_child_reads_before_it_answers_and_registers_as_itself(state: MaintenanceState, migrated_url: str) -> None:
    assert get(state) == 200
    mine = state.status().instance
    reader, writer = os.pipe()

    def serve() -> Any:
        os.read(reader, 1)
        # The lease that the fork has copied runs for another 10 s: resting on it would let this one through.
        return [get(state), state.status().registered, state.status().instance]

    child = Child(serve)
    flip(migrated_url, on=True)
    os.write(writer, b"x")
    status, is_registered, instance = child.result()
    os.close(reader)
    os.close(writer)
    assert (status, is_registered) == (503, True)
    assert instance != mine
    assert registered(migrated_url) == {child.pid: instance, os.getpid(): mine}


def test_both_sides_of_a_fork_read_their_own_answers(migrated_url: str) -> None:
    """One connection on both sides returns the other's rows, silently. Each side asks for a row that only it has."""
    with closing(MaintenanceState(PostgresStore(migrated_url, listen=False), ttl=10.0)) as state:
        assert get(state) == 200

        def read_on(seconds: float) -> Any:
            end, wrong, reads = time.monotonic() + seconds, 0, 0
            while time.monotonic() < end:
                get(state)
                state.lifecycle.wake()
                told = state.status()
                # `registered` is asked with this process's own id: the other's answer would say no.
                wrong += not told.registered or told.last_error is not None
                reads += 1
                time.sleep(0.001)
            return [wrong, reads, state.status().condition]

        children = [Child(lambda: read_on(1.5)) for _ in range(3)]
        here = read_on(1.5)
        for wrong, reads, condition in [here, *(child.result() for child in children)]:
            assert (wrong, condition) == (0, "fresh")
            assert reads > 50


@pytest.mark.parametrize("end", ["_exit", "SIGKILL", "exit"])
def test_the_parents_connection_and_row_survive_the_childs_end(
    end: str, state: MaintenanceState, migrated_url: str
) -> None:
    get(state)
    eventually(lambda: state.status().listening)
    mine = state.status().instance
    pid = os.fork()
    if pid == 0:
        try:
            get(state)
            if end == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            if end == "exit":
                state.close()  # as a clean end does
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert registered(migrated_url)[os.getpid()] == mine
    assert (pid in registered(migrated_url)) is (end != "exit")
    flip(migrated_url, on=True)
    began = time.monotonic()
    eventually(lambda: get(state) == 503)
    assert time.monotonic() - began < 2.0, "the parent hears of it as before"
    assert state.status().last_error is None
    assert state.status().instance == mine


def test_a_child_that_asks_for_nothing_leaves_no_trace(state: MaintenanceState, migrated_url: str) -> None:
    get(state)
    eventually(lambda: state.status().listening)
    before = backends(migrated_url)
    child = Child(lambda: [threading.active_count(), len(os.listdir("/proc/self/task"))])
    assert child.result() == [1, 1]
    assert backends(migrated_url) == before
    assert set(registered(migrated_url)) == {os.getpid()}


def test_a_child_does_not_keep_the_connection_of_a_killed_parent_alive(migrated_url: str) -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            get(MaintenanceState(migrated_url))
            if os.fork() == 0:
                os.close(writer)
                os.read(reader, 1)  # until the test ends
            else:
                eventually(lambda: backends(migrated_url) == 1)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(parent, 0)[1]) == signal.SIGKILL
    try:
        eventually(lambda: backends(migrated_url) == 0, what="the server has noticed the parent's end")
    finally:
        os.close(writer)
        os.close(reader)


def test_a_state_that_was_primed_before_the_fork(migrated_url: str) -> None:
    """As with gunicorn --preload: the master primes at import, and each worker must see what came after."""
    with closing(MaintenanceState(migrated_url)) as state:
        assert not state.prime().enabled
        flip(migrated_url, on=True)
        children = [Child(lambda: [get(state), state.status().registered]) for _ in range(3)]
        assert [child.result() for child in children] == [[503, True]] * 3
        assert state.lifecycle.watcher is None, "the master has started nothing"


def test_a_child_of_a_primed_parent_that_is_asked_by_code_follows_too(migrated_url: str) -> None:
    """Not only by requests: what the parent has read is not the child's answer."""

    def asked(state: MaintenanceState) -> list[bool]:
        return [state.enabled, state.status().registered]

    with closing(MaintenanceState(migrated_url)) as state:
        assert not state.prime().enabled
        assert not state.enabled
        flip(migrated_url, on=True)
        assert Child(lambda: asked(state)).result() == [True, True]
        assert get(state) == 503
        flip(migrated_url, on=False)
        assert Child(lambda: asked(state)).result() == [False, True]


def test_a_fork_while_another_thread_connects_leaves_the_child_no_connection(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, go_on = threading.Event(), threading.Event()
    descriptors: list[int] = []

    def slow(session: Any) -> bool:
        descriptors.append(session._connection.fileno())
        connecting.set()
        return not go_on.wait(10)

    def is_open() -> bool:
        with suppress(OSError):
            return bool(os.fstat(descriptors[0]))
        return False

    monkeypatch.setattr(PostgresSession, "_try_listen", slow)
    store = PostgresStore(migrated_url)
    connector = threading.Thread(target=lambda: store.connect(listen=True).close())
    connector.start()
    assert connecting.wait(10)
    child = Child(is_open)
    assert not child.result()
    assert is_open()
    go_on.set()
    connector.join(10)


def test_a_grandchild(state: MaintenanceState, migrated_url: str) -> None:
    get(state)

    def serve() -> Any:
        first = get(state)
        state.set(True)
        return [first, Child(lambda: get(state)).result(), get(state)]

    assert Child(serve).result() == [200, 503, 503]
    eventually(lambda: get(state) == 503)


def test_multiprocessing_with_fork(state: MaintenanceState, migrated_url: str) -> None:
    get(state)
    flip(migrated_url, on=True)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=lambda: queue.put((os.getpid(), get(state)))) for _ in range(3)]
    for worker in workers:
        worker.start()
    told = [queue.get() for _ in workers]
    for worker in workers:
        worker.join(10)
        assert worker.exitcode == 0
    assert {pid for pid, _ in told} == {worker.pid for worker in workers}
    assert [status for _, status in told] == [503] * 3


def test_fifty_flips_from_four_processes_end_in_one_revision(state: MaintenanceState, migrated_url: str) -> None:
    get(state)
    sql(migrated_url, "CREATE TABLE done ()")

    def flipping() -> Any:
        get(state)
        revisions = [state.set(bool(number % 2), actor=str(os.getpid())).revision for number in range(50)]
        sql(migrated_url, "INSERT INTO done DEFAULT VALUES")
        eventually(lambda: sql(migrated_url, "SELECT count(*) FROM done") == [(4,)], 60)
        [[last]] = sql(migrated_url, "SELECT revision FROM platform_settings")
        eventually(lambda: state.snapshot().revision == last, 5)
        return [revisions == sorted(set(revisions)), last, state.enabled]

    children = [Child(flipping) for _ in range(4)]
    told = [child.result() for child in children]
    [row] = sql(migrated_url, "SELECT revision, value_bool FROM platform_settings")
    assert told == [[True, *row]] * 4
    eventually(lambda: (state.snapshot().revision, state.enabled) == row)


def test_no_thread_starts_before_a_request(shared_url: str) -> None:
    """Nor for a moment: one that is about to end would be in the way of a fork without hooks, as uWSGI's is."""
    script = """
import os, threading
def count():
    return [threading.active_count(), len(os.listdir("/proc/self/task"))]
import maintenance, maintenance.asgi, maintenance.wsgi
assert count() == [1, 1], ("import", count())
state = maintenance.MaintenanceState(os.environ["DATABASE_URL"])
wsgi = maintenance.wsgi.MaintenanceMiddleware(lambda e, s: [], state)
asgi = maintenance.asgi.MaintenanceMiddleware(lambda e, s: [])
assert count() == [1, 1], ("construction", count())
state.prime()
assert count() == [1, 1], ("prime", count())
state = maintenance.init_maintenance()
assert count() == [1, 1], ("init_maintenance", count())
from tests.support.clients import call_wsgi
call_wsgi(maintenance.wsgi.MaintenanceMiddleware(lambda e, s: (s("200 OK", []), [b""])[1]))
assert count() == [1, 2], ("a request", count())
maintenance.process.api.current_state().close()
import time
end = time.monotonic() + 5
while count() != [1, 1] and time.monotonic() < end:
    time.sleep(0.01)
assert count() == [1, 1], ("close", count())
"""
    run(script, shared_url)


def run(script: str, url: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_process_that_ends_removes_its_row_and_waits_for_nobody(migrated_url: str) -> None:
    script = """
import os, maintenance
from tests.support.clients import call_wsgi
state = maintenance.init_maintenance()
call_wsgi(maintenance.wsgi.MaintenanceMiddleware(lambda e, s: (s("200 OK", []), [b""])[1]))
assert state.status().registered
print(os.getpid())
"""
    began = time.monotonic()
    pid = int(run("import maintenance.wsgi\n" + script, migrated_url))
    assert time.monotonic() - began < 10.0
    assert pid not in registered(migrated_url)


GEVENT = """
import json, os, signal, sys, time
if os.environ["PATCH"] == "before":
    from gevent import monkey; monkey.patch_all()
import maintenance
from maintenance.wsgi import MaintenanceMiddleware
from maintenance.stores import PostgresStore
state = maintenance.MaintenanceState(os.environ["DATABASE_URL"], ttl=1.0)
state.prime()
if os.environ["PATCH"] == "after":
    from gevent import monkey; monkey.patch_all()
import gevent
from tests.support.clients import call_wsgi
app = MaintenanceMiddleware(lambda e, s: (s("200 OK", []), [b"open"])[1], state)
gaps, statuses, took = [], [], []
def tick():
    while True:
        before = time.monotonic()
        gevent.sleep(0.01)
        gaps.append(time.monotonic() - before)
def ask(times):
    for _ in range(times):
        before = time.monotonic()
        statuses.append(call_wsgi(app).status)
        took.append(time.monotonic() - before)
        gevent.sleep(0.02)
gevent.spawn(tick)
gevent.joinall([gevent.spawn(ask, 5) for _ in range(20)], raise_error=True)
assert state.status().condition == "fresh", state.status()
assert set(statuses) == {200}
del gaps[:], statuses[:], took[:]
print("frozen?", flush=True)
sys.stdin.readline()
gevent.joinall([gevent.spawn(ask, 100) for _ in range(10)], raise_error=True)
hung = {"gap": max(gaps), "slow": sorted(t for t in took if t > 0.4), "statuses": sorted(set(statuses)),
        "condition": state.status().condition}
print(json.dumps(hung), flush=True)
sys.stdin.readline()
end = time.monotonic() + 15
while call_wsgi(app).status != 503 and time.monotonic() < end:
    gevent.sleep(0.02)
print(json.dumps([call_wsgi(app).status, state.status().condition]), flush=True)
"""


@pytest.mark.parametrize("patch", ["before", "after"])
def test_gevents_hub_goes_on_while_the_database_hangs(patch: str, own_server: Server) -> None:
    PostgresStore(own_server.url()).migrate()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", GEVENT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": own_server.url(), "PATCH": patch},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "frozen?\n"
            own_server.freeze()
            process.stdin.write("yes\n")
            process.stdin.flush()
            hung = json.loads(process.stdout.readline())
            own_server.thaw()
            sql(own_server.url(), "UPDATE platform_settings SET value_bool = true")
            process.stdin.write("yes\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == [503, "fresh"]
            process.stdin.close()
            assert process.wait(10) == 0
        finally:
            process.kill()
    assert hung["gap"] < 0.4, "no request blocks the hub"
    assert hung["statuses"] == [200]
    assert hung["condition"] == "stale"
    assert len(hung["slow"]) <= 1
    assert all(took < 1.5 for took in hung["slow"])


def test_init_maintenance_again_closes_the_first_state(migrated_url: str) -> None:
    first = init_maintenance(migrated_url)
    assert get(first) == 200
    second = init_maintenance(migrated_url)
    try:
        assert first.closed
        assert get(first) == 503
        assert get(second) == 200
        assert registered(migrated_url) == {os.getpid(): second.status().instance}
    finally:
        second.close()


def test_a_fork_without_hooks_is_noticed_by_the_pid(migrated_url: str) -> None:
    """uWSGI's prefork runs no at-fork hooks: the pid is compared past the deadline."""
    script = """
import os, threading, time, traceback
os.register_at_fork = lambda **_: None  # after threading has registered its own
import maintenance
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
state = maintenance.init_maintenance(ttl=0.3)
app = MaintenanceMiddleware(lambda e, s: (s("200 OK", []), [b""])[1])
assert call_wsgi(app).status == 200
mine = state.status().instance
pid = os.fork()
if pid == 0:
    try:
        time.sleep(0.4)  # past the deadline that it has inherited
        assert call_wsgi(app).status == 200
        told = state.status()
        assert (told.registered, told.condition) == (True, "fresh"), told
        assert told.instance != mine
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(4)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert call_wsgi(app).status == 200
assert state.status().condition == "fresh"
assert state.status().instance == mine
"""
    run(script, migrated_url)

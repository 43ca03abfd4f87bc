"""Forks and threads: nothing starts before a request, a child shares nothing, and gevent's hub goes on."""

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

import pytest

from maintenance import MaintenanceState
from maintenance.stores import PostgresStore
from maintenance.stores.postgres.session import PostgresSession
from maintenance.wsgi import MaintenanceMiddleware
from tests.support.clients import call_wsgi
from tests.support.plain_apps import wsgi
from tests.support.postgres import Server
from tests.support.servers import ROOT
from tests.support.sql import find_instances, flip, run_sql
from tests.support.waiting import eventually

# Python 3.12 warns of a fork in a process that has threads, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

FORK = multiprocessing.get_context("fork")


def get(state: MaintenanceState) -> int:
    return call_wsgi(MaintenanceMiddleware(wsgi, state)).status


def count_connections(url: str) -> int:
    """Return how many connections the library holds to this database."""
    [[count]] = run_sql(
        url,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'maintenance' AND datname = current_database()",
    )
    return int(count)


class Child:
    """A function in a forked process, whose result or traceback comes back over a pipe."""

    def __init__(self, function: Callable[[], Any]) -> None:
        reader, writer = FORK.Pipe(duplex=False)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                writer.send((True, function()))
            except BaseException:  # noqa: BLE001 - the parent shows it
                writer.send((False, traceback.format_exc()))
            finally:
                os._exit(0)
        writer.close()
        self._reader = reader

    def result(self) -> Any:
        with self._reader:
            well, sent = self._reader.recv()
        os.waitpid(self.pid, 0)
        assert well, sent
        return sent


@pytest.fixture
def state(migrated_url: str) -> Iterator[MaintenanceState]:
    with closing(MaintenanceState(migrated_url, ttl=10.0)) as state:
        assert get(state) == 200
        yield state


def test_a_child_reads_before_it_answers_and_registers_as_itself(state: MaintenanceState, migrated_url: str) -> None:
    mine = state.status().instance
    flipped = FORK.Event()

    def serve() -> Any:
        flipped.wait(10)
        # The copied lease runs for another 10 s. A child that used it would admit this request.
        return get(state), state.status().registered, state.status().instance

    child = Child(serve)
    flip(migrated_url, on=True)
    flipped.set()
    status, is_registered, instance = child.result()
    assert (status, is_registered) == (503, True)
    assert instance != mine
    assert find_instances(migrated_url) == {child.pid: instance, os.getpid(): mine}


def test_both_sides_of_a_fork_read_their_own_answers(migrated_url: str) -> None:
    """A connection that both sides use returns the other's rows. Each side asks for a row that only it has."""
    with closing(MaintenanceState(PostgresStore(migrated_url, listen=False), ttl=10.0)) as state:
        assert get(state) == 200

        def read_on() -> tuple[int, int, str]:
            end, wrong, reads = time.monotonic() + 1.0, 0, 0
            while time.monotonic() < end:
                get(state)
                state.lifecycle.wake(read=True)
                status = state.status()
                # Each process asks whether its own id is registered. An answer to the other says no.
                wrong += not status.registered or status.last_error is not None
                reads += 1
                time.sleep(0.001)
            return wrong, reads, state.status().condition

        children = [Child(read_on) for _ in range(3)]
        here = read_on()
        for wrong, reads, condition in [here, *(child.result() for child in children)]:
            assert (wrong, condition) == (0, "fresh")
            assert reads > 30


@pytest.mark.parametrize("end", ["_exit", "SIGKILL", "exit"])
def test_the_parents_connection_and_row_survive_the_childs_end(
    end: str, state: MaintenanceState, migrated_url: str
) -> None:
    eventually(lambda: state.status().listening)
    mine = state.status().instance
    pid = os.fork()
    if pid == 0:
        try:
            get(state)
            if end == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            if end == "exit":
                state.close()  # as atexit does
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    rows = find_instances(migrated_url)
    assert rows[os.getpid()] == mine
    assert (pid in rows) is (end != "exit")
    flip(migrated_url, on=True)
    eventually(lambda: get(state) == 503, 2.0, what="a notification, as before")
    assert state.status().last_error is None
    assert state.status().instance == mine


def test_a_child_that_asks_for_nothing_leaves_no_trace(state: MaintenanceState, migrated_url: str) -> None:
    eventually(lambda: state.status().listening)
    before = count_connections(migrated_url)
    # A library of another test may start a thread in each child, which ends at once.
    child = Child(lambda: eventually(lambda: threading.active_count() == len(os.listdir("/proc/self/task")) == 1))
    assert child.result() is True
    assert count_connections(migrated_url) == before
    assert set(find_instances(migrated_url)) == {os.getpid()}


def test_a_child_does_not_keep_the_connection_of_a_killed_parent_alive(migrated_url: str) -> None:
    over = FORK.Event()
    parent = os.fork()
    if parent == 0:
        try:
            get(MaintenanceState(migrated_url))
            if os.fork() == 0:
                over.wait(30)
            else:
                eventually(lambda: count_connections(migrated_url) == 1)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(parent, 0)[1]) == signal.SIGKILL
    try:
        eventually(lambda: count_connections(migrated_url) == 0, what="the server notices the parent's end")
    finally:
        over.set()


def test_a_state_that_was_primed_before_the_fork(migrated_url: str) -> None:
    """As with gunicorn --preload: the master primes at import, and each worker must see a later flip."""
    with closing(MaintenanceState(migrated_url)) as state:
        assert not state.prime().enabled
        flip(migrated_url, on=True)
        children = [Child(lambda: (get(state), state.status().registered)) for _ in range(3)]
        assert [child.result() for child in children] == [(503, True)] * 3
        assert state.lifecycle.watcher is None, "the master starts nothing"


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


def test_a_grandchild(state: MaintenanceState) -> None:
    def serve() -> Any:
        first = get(state)
        state.set(True)
        return first, Child(lambda: get(state)).result(), get(state)

    assert Child(serve).result() == (200, 503, 503)
    eventually(lambda: get(state) == 503)


def test_multiprocessing_with_fork(state: MaintenanceState, migrated_url: str) -> None:
    flip(migrated_url, on=True)
    queue = FORK.SimpleQueue()
    workers = [FORK.Process(target=lambda: queue.put((os.getpid(), get(state)))) for _ in range(3)]
    for worker in workers:
        worker.start()
    statuses = dict(queue.get() for _ in workers)
    for worker in workers:
        worker.join(10)
        assert worker.exitcode == 0
    assert statuses == {worker.pid: 503 for worker in workers}


def test_flips_from_four_processes_end_in_one_revision(state: MaintenanceState, migrated_url: str) -> None:
    done = FORK.Barrier(4)

    def flip_often() -> Any:
        get(state)
        revisions = [state.set(bool(number % 2), actor=str(os.getpid())).revision for number in range(25)]
        done.wait(60)
        [[last]] = run_sql(migrated_url, "SELECT revision FROM platform_settings")
        eventually(lambda: state.snapshot().revision == last, 5)
        return revisions == sorted(set(revisions)), last, state.enabled

    children = [Child(flip_often) for _ in range(4)]
    results = [child.result() for child in children]
    [row] = run_sql(migrated_url, "SELECT revision, value_bool FROM platform_settings")
    assert results == [(True, *row)] * 4
    eventually(lambda: (state.snapshot().revision, state.enabled) == row)


def test_no_thread_starts_before_a_request(shared_url: str) -> None:
    """Not even for a moment: a thread that is about to end breaks a fork without hooks, such as uWSGI's."""
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


def test_a_process_that_ends_removes_its_row_and_waits_for_nothing(migrated_url: str) -> None:
    script = """
import os, maintenance, maintenance.wsgi
from tests.support.clients import call_wsgi
state = maintenance.init_maintenance()
call_wsgi(maintenance.wsgi.MaintenanceMiddleware(lambda e, s: (s("200 OK", []), [b""])[1]))
assert state.status().registered
print(os.getpid())
"""
    began = time.monotonic()
    pid = int(run(script, migrated_url))
    assert time.monotonic() - began < 10.0
    assert pid not in find_instances(migrated_url)


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
def test_gevents_hub_goes_on_while_the_database_hangs(patch: str, shaky: Server, shaky_url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", GEVENT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": shaky_url, "PATCH": patch},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "frozen?\n"
            shaky.freeze()
            process.stdin.write("yes\n")
            process.stdin.flush()
            hung = json.loads(process.stdout.readline())
            shaky.thaw()
            flip(shaky_url, on=True)
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

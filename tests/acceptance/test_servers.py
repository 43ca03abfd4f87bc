"""Real servers: a flip is made in one process, and every other process follows."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_postgresql.executors import NoopExecutor
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from maintenance import MaintenanceState
from tests.support.clients import Crowd, ask, keep_asking
from tests.support.postgres import Server, database
from tests.support.servers import Running, alive, gunicorn, uvicorn, uwsgi
from tests.support.sql import find_instances, flip
from tests.support.waiting import eventually

ASGI = "tests.apps.fleet:asgi"
WSGI = "tests.apps.fleet:wsgi"
TTL = 1.0

SERVERS: dict[str, Callable[..., AbstractContextManager[Running]]] = {
    "uvicorn": partial(uvicorn, ASGI, workers=2),
    "gunicorn-sync": partial(gunicorn, WSGI, workers=2),
    "gunicorn-preload": partial(gunicorn, WSGI, workers=2, preload=True),
    "gunicorn-gthread": partial(gunicorn, WSGI, worker_class="gthread", workers=2, threads=4),
    "gunicorn-gevent": partial(gunicorn, WSGI, worker_class="gevent", workers=2),
    "gunicorn-gevent-preload": partial(gunicorn, WSGI, worker_class="gevent", workers=2, preload=True),
    "uwsgi": partial(uwsgi, WSGI, workers=2),
}
every_server = pytest.mark.parametrize("name", SERVERS)
each_protocol = pytest.mark.parametrize("name", ["uvicorn", "gunicorn-gthread", "uwsgi"])
each_adapter = pytest.mark.parametrize("name", ["uvicorn", "gunicorn-sync"])


@dataclass(frozen=True, slots=True)
class Site:
    """A server with two processes, and the operator of its database.

    Attributes:
        running: The server.
        url: Its database.
        operator: A state that does not serve, as in a playbook.
        log: The file in which slow requests write their begin and end.
    """

    running: Running
    url: str
    operator: MaintenanceState
    log: Path

    def statuses(self) -> dict[int, dict[str, Any]]:
        """Ask until each process has returned its status."""
        found: dict[int, dict[str, Any]] = {}

        def ask_once() -> bool:
            answer = ask(self.running.port, "/admin/status")
            found[answer.pid] = json.loads(answer.body)
            return found.keys() >= set(self.running.workers())

        eventually(ask_once, 20, interval=0.0)
        return found


def environment(url: str, **options: Any) -> dict[str, str]:
    return {"MAINTENANCE_DATABASE_URL": url, "APP_OPTIONS": json.dumps({"ttl": 10.0, **options})}


def operate(url: str) -> AbstractContextManager[MaintenanceState]:
    return closing(MaintenanceState(url, register=False))


@pytest.fixture
def operator(migrated_url: str) -> Iterator[MaintenanceState]:
    with operate(migrated_url) as state:
        yield state


@pytest.fixture(scope="module")
def sites(
    postgres: Server, migrated_template: NoopExecutor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Site]]:
    """Return the site of a server by its name. Tests share it, because a start takes longer than most tests."""
    found: dict[str, Site] = {}
    with ExitStack() as stack:

        def start(name: str) -> Site:
            url = stack.enter_context(database(postgres, migrated_template.template_dbname))
            log = tmp_path_factory.mktemp(name) / "log"
            log.touch()
            env = {**environment(url, when_stale="block"), "APP_LOG": str(log)}
            return Site(stack.enter_context(SERVERS[name](env=env)), url, stack.enter_context(operate(url)), log)

        def get(name: str) -> Site:
            if name not in found or found[name].running.process.poll() is not None:
                found[name] = start(name)
            return found[name]

        yield get


@pytest.fixture
def site(name: str, sites: Callable[[str], Site]) -> Site:
    """A site of the server `name`, in service. Its processes refuse when they are stale."""
    found = sites(name)
    with attack(found.running) as clients:
        found.operator.set(False)
        await_all(found.running, clients, 200, since=time.monotonic())
    return found


@contextmanager
def attack(running: Running, path: str = "/", **options: Any) -> Iterator[Crowd]:
    with keep_asking(Crowd(lambda: ask(running.port, path)), **options) as crowd:
        yield crowd


def await_all(running: Running, crowd: Crowd, status: int, timeout: float = 15.0, *, since: float) -> None:
    """Wait until both processes have answered with a status, to requests sent since a moment."""

    def have_answered() -> bool:
        pids = {one.answer.pid for one in crowd.since(since) if one.status == status}
        serving = running.workers()
        return len(serving) == 2 and pids.issuperset(serving)

    eventually(have_answered, timeout, what=f"{status} from both processes")


def flip_inside(running: Running, *, on: bool) -> float:
    """Flip through whichever process answers the admin endpoint; return when it has answered."""
    assert ask(running.port, f"/admin/flip?on={int(on)}").status == 200
    return time.monotonic()


@every_server
def test_a_flip_through_one_process_reaches_every_other_and_a_new_one(site: Site) -> None:
    running = site.running
    eventually(lambda: all(status["listening"] for status in site.statuses().values()))
    with attack(running) as clients:
        began = time.monotonic()
        flipped = flip_inside(running, on=True)
        await_all(running, clients, 503, since=began)
        # Far below the TTL of 10 s: the processes were notified. A busy machine takes its time to run them.
        assert clients.last(200) - flipped < 1.0
        for on, status in ((False, 200), (True, 503)):
            await_all(running, clients, status, since=flip_inside(running, on=on))
        before = time.monotonic()
        clients.seen.clear()
        [victim, *_] = running.workers()
        psutil.Process(victim).kill()
        eventually(lambda: victim not in running.workers() and len(running.workers()) == 2, 20)
        await_all(running, clients, 503, 20, since=before)
        assert clients.last(200) < before, "the new process admitted a request"


@each_adapter
def test_a_server_that_starts_while_maintenance_is_on_lets_nothing_through(
    name: str, migrated_url: str, operator: MaintenanceState
) -> None:
    operator.set(True)
    with SERVERS[name](env=environment(migrated_url)) as running, attack(running) as clients:
        await_all(running, clients, 503, since=0.0)
        assert clients.last(200) == float("-inf")


@each_protocol
def test_without_notifications_a_flip_arrives_within_one_ttl(name: str, migrated_url: str) -> None:
    env = {**environment(migrated_url, ttl=TTL), "APP_LISTEN": "0"}
    with SERVERS[name](env=env) as running, attack(running) as clients:
        await_all(running, clients, 200, since=0.0)
        flip(migrated_url, on=True)
        flipped = time.monotonic()
        await_all(running, clients, 503, since=flipped)
        assert clients.last(200) - flipped < TTL + 1.0  # a busy machine takes its time to read


@each_protocol
def test_after_a_proof_no_request_gets_through(site: Site) -> None:
    with attack(site.running, clients=6, pause=0.002) as clients:
        for _ in range(5):
            for on, status, other in ((True, 503, 200), (False, 200, 503)):
                proof = site.operator.prove(site.operator.set(on), timeout=10, expect=2)
                proven = time.monotonic()
                assert proof, proof
                await_all(site.running, clients, status, since=proven)
                assert clients.last(other) < proven
        assert not clients.failures


@each_protocol
def test_after_a_proof_with_drain_nothing_is_still_running(site: Site) -> None:
    def read_log() -> list[list[str]]:
        return [line.split() for line in site.log.read_text().splitlines()]

    with attack(site.running, "/slow?seconds=0.7") as clients:
        eventually(lambda: len({pid for _, pid, _ in read_log()}) == 2)
        proof = site.operator.prove(site.operator.set(True), drain=True, timeout=20, expect=2)
        proven = time.monotonic()
        lines = read_log()
        await_all(site.running, clients, 503, since=proven)
        assert proof, proof
        assert proof.elapsed > 0.05, "nothing was running, so the test shows nothing"
        assert [word for word, *_ in lines].count("begin") == [word for word, *_ in lines].count("end")
        time.sleep(0.3)  # a handler that began after the proof would have written by now
        assert read_log() == lines


@pytest.mark.parametrize("name", ["gunicorn-sync"])
def test_a_proof_fails_while_one_process_hangs_and_names_it(site: Site) -> None:
    [hung, _] = site.running.workers()
    process = psutil.Process(hung)
    process.suspend()
    try:
        proof = site.operator.prove(site.operator.set(True), timeout=1.0)
    finally:
        process.resume()
    assert not proof
    assert [instance.pid for instance, _ in proof.laggards] == [hung]
    assert site.operator.prove(site.operator.refresh(), timeout=10.0)


@pytest.mark.parametrize("name", ["gunicorn-sync", "uwsgi"])
def test_a_file_that_the_server_sends_is_whole_and_leaves_once_it_is_sent(name: str, site: Site) -> None:
    content = (Path(__file__).parents[1] / "apps" / "fleet.py").read_bytes()
    served: set[int] = set()

    def ask_for_the_file() -> bool:
        answer = ask(site.running.port, "/file")
        assert (answer.status, answer.body) == (200, content)
        served.add(answer.pid)
        return served == set(site.running.workers())

    eventually(ask_for_the_file, 20, interval=0.0)
    # Only the request that asks is in flight.
    assert {status["in_flight"] for status in site.statuses().values()} == {1}
    if name == "uwsgi":
        assert "via sendfile()" in site.running.log, "the middleware changed the type of the body"


@each_adapter
def test_head_has_the_same_headers_and_no_body(site: Site) -> None:
    assert site.operator.prove(site.operator.set(True, message="Back soon.", retry_after=90), timeout=10.0)
    get, head = (exchange(site.running.port, method) for method in ("GET", "HEAD"))
    assert head[0].startswith("HTTP/1.1 503 ")
    assert head[2] == b""
    assert get[2]
    varies = {"date", "x-pid"}
    assert [pair for pair in head[1] if pair[0] not in varies] == [pair for pair in get[1] if pair[0] not in varies]
    sent = {"content-length": str(len(get[2])), "retry-after": "90", "cache-control": "no-store"}
    sent |= {"vary": "Accept, Accept-Language"}
    assert dict(head[1]).items() >= sent.items()


def exchange(port: int, method: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Send one request as bytes, and return everything until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":")[::2] for line in lines]
    return status, [(name.lower(), value.strip()) for name, value in pairs], body


def open_websocket(running: Running, path: str = "/ws") -> Any:
    return connect(f"ws://127.0.0.1:{running.port}{path}", open_timeout=10, close_timeout=1)


def check_echo(socket: Any, text: str) -> None:
    socket.send(text)
    assert socket.recv(5) == text


@pytest.mark.parametrize("name", ["uvicorn"])
def test_a_websocket_is_refused_with_a_503_that_says_when_to_come_back(site: Site) -> None:
    with open_websocket(site.running) as before:
        check_echo(before, "hello")
        assert site.operator.prove(site.operator.set(True, message="Back soon.", retry_after=90), timeout=10)
        with pytest.raises(InvalidStatus) as refused:
            open_websocket(site.running)
        response = refused.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "90")
        assert response.headers["Cache-Control"] == "no-store"
        assert b"Back soon." in (response.body or b"")
        check_echo(before, "without close_websockets it stays open")
        with open_websocket(site.running, "/admin/ws") as exempt:
            check_echo(exempt, "in")
    assert "ERROR" not in site.running.log


def test_open_websockets_are_closed_when_the_flip_arrives_and_exempt_ones_stay(
    migrated_url: str, operator: MaintenanceState
) -> None:
    env = {**environment(migrated_url), "APP_MIDDLEWARE": json.dumps({"close_websockets": True})}
    with (
        uvicorn(ASGI, env=env) as running,
        open_websocket(running) as plain,
        open_websocket(running, "/admin/ws") as exempt,
    ):
        for one in (plain, exempt):
            check_echo(one, "hello")
        proof = operator.prove(operator.set(True), drain=True, timeout=10)
        assert proof, proof
        with pytest.raises(ConnectionClosed) as closed:
            plain.recv(5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        check_echo(exempt, "still")


def test_rules_are_relative_to_the_root_path_that_a_proxy_announces(
    migrated_url: str, operator: MaintenanceState
) -> None:
    operator.set(True)
    with uvicorn(ASGI, env=environment(migrated_url), options=["--root-path=/api"]) as running:
        statuses = {path: ask(running.port, path).status for path in ("/health", "/x", "/admin/status")}
    assert statuses == {"/health": 200, "/x": 503, "/admin/status": 200}


@each_protocol
def test_sigterm_ends_it_promptly_while_the_database_hangs(name: str, shaky: Server, shaky_url: str) -> None:
    with SERVERS[name](env=environment(shaky_url, ttl=1.0)) as running:
        with attack(running) as clients:
            await_all(running, clients, 200, since=0.0)
        shaky.freeze()
        began = time.monotonic()
        running.process.terminate()
        running.process.wait(10)
        assert time.monotonic() - began < 5.0
        shaky.thaw()


@every_server
def test_sigterm_ends_it_promptly_and_its_instances_leave(site: Site) -> None:
    """The last test of each site."""
    running = site.running
    workers = set(running.workers())
    eventually(lambda: workers <= find_instances(site.url).keys(), what="a row for each process")
    began = time.monotonic()
    running.process.terminate()
    running.process.wait(10)
    eventually(lambda: not any(map(alive, workers)))
    assert time.monotonic() - began < 5.0
    assert find_instances(site.url).keys().isdisjoint(workers), running.log
    assert "Traceback" not in running.log

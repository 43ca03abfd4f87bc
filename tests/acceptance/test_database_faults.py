"""What requests get while a process starts without its database, or while single connections break.

`tests/faults` has what begins while the process serves.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
import pytest

from maintenance import MaintenanceState, StoreError
from maintenance.stores import PostgresStore, SQLiteStore
from tests.support.clients import keep_asking
from tests.support.life import watcher_of
from tests.support.ports import free_port
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.site import site
from tests.support.sql import change_port, flip, run_sql
from tests.support.waiting import eventually

TTL = 1.0
SLACK = 0.7
"""Seconds that a machine with every core busy may take to run a thread that could run."""


@dataclass(frozen=True, slots=True)
class Freezer:
    """Stops the server's end of single connections, as a bug or a full disk does. The server itself is healthy."""

    frozen: dict[MaintenanceState, int]

    def backend(self, state: MaintenanceState) -> int | None:
        """The server's process that a state reads from; None while it connects."""
        session: Any = watcher_of(state).reader.session
        return session and session._connection.info.backend_pid

    def freeze(self, state: MaintenanceState) -> None:
        self.frozen[state] = pid = eventually(lambda: self.backend(state))
        psutil.Process(pid).suspend()

    def has_replaced(self, state: MaintenanceState) -> bool:
        """Whether a state has read over another connection."""
        return self.backend(state) not in (None, self.frozen[state]) and not state.lease.failing


@pytest.fixture
def freezer(shaky: Server) -> Iterator[Freezer]:
    yield Freezer({})
    for child in psutil.Process(shaky.pid).children():
        with suppress(psutil.NoSuchProcess):
            child.resume()


@pytest.mark.parametrize(("ttl", "listen"), [(2.0, True), (2.0, False), (5.0, True)])
def test_under_block_no_request_is_refused_while_one_connection_after_the_other_freezes(
    ttl: float, listen: bool, shaky_url: str, freezer: Freezer
) -> None:
    with ExitStack() as stack:
        store = PostgresStore(shaky_url, listen=listen)
        sites = [stack.enter_context(site(store, ttl=ttl, when_stale="block")) for _ in range(4)]
        for one in sites:
            stack.enter_context(keep_asking(one, clients=1, pause=0.05))
        eventually(lambda: {one.condition for one in sites} == {"fresh"})
        for _ in range(2):
            for one in sites:
                freezer.freeze(one.state)
                time.sleep(ttl / 20)
            for one in sites:
                eventually(lambda one=one: freezer.has_replaced(one.state), what="another connection")
        eventually(lambda: {one.condition for one in sites} == {"fresh"})
        assert {seen.status for one in sites for seen in one.since(0.0)} == {200}


@pytest.mark.parametrize(
    ("variable", "when_stale", "status", "source"),
    [(None, "serve", 200, "default"), ("off", "block", 503, "environment")],
)
def test_a_boot_without_a_database(
    variable: str | None, when_stale: str, status: int, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("MAINTENANCE_MODE", variable)
    with site(f"postgresql://someone:topsecret@127.0.0.1:{free_port()}/nowhere", when_stale=when_stale) as one:
        assert [one.ask() for _ in range(5)] == [status] * 5
        assert max(seen.took for seen in one.seen) < 2.0 + SLACK
        report = one.state.status()
        assert (report.condition, report.snapshot.source) == ("never read", source)
        assert "topsecret" not in f"{report}"
        assert "refused" in (report.last_error or "")


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_a_boot_while_the_network_is_silent_lasts_boot_timeout_and_the_first_answer_counts_at_once(
    when_stale: str, postgres: Server, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "off")
    flip(migrated_url, on=True)
    with Relay(postgres.port) as relay:
        relay.cut()
        url = change_port(migrated_url, relay.port)
        with site(url, ttl=TTL, boot_timeout=0.8, when_stale=when_stale) as one, keep_asking(one, clients=5):
            eventually(lambda: len(one.seen) >= 20)
            first = sorted(one.seen, key=lambda seen: seen.sent)[:5]
            assert {seen.status for seen in one.seen} == {503 if when_stale == "block" else 200}
            assert all(0.5 < seen.took < 0.8 + SLACK for seen in first)
            relay.pass_()
            eventually(lambda: one.condition == "fresh")
            back = time.monotonic()
            eventually(lambda: len(one.since(back)) > 5)
            assert {seen.status for seen in one.since(back)} == {503}


@contextmanager
def lock_table(url: str) -> Iterator[None]:
    """Lock the settings as an ALTER TABLE does."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE platform_settings IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def lock_file(url: str) -> Iterator[None]:
    """Keep a transaction open, which locks the whole file."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def cut(relay: Relay) -> Iterator[None]:
    relay.cut()
    yield
    relay.pass_()


@contextmanager
def refuse_connections(url: str) -> Iterator[None]:
    """Let the server refuse new connections for the moment, as while it starts or has none left."""
    name = url.rpartition("/")[2]
    other = url.removesuffix(name) + "postgres"
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        yield
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@pytest.fixture(params=["a locked table", "a silent network", "a busy server", "a locked file"])
def slow(request: pytest.FixtureRequest) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """A store in which the flag is on, and what makes it slow."""
    if request.param == "a locked file":
        url = request.getfixturevalue("sqlite_url")
        SQLiteStore(url).migrate()
        with closing(MaintenanceState(url, register=False)) as operator:
            operator.set(True)
        yield url, lock_file(url)
        return
    url = request.getfixturevalue("migrated_url")
    flip(url, on=True)
    if request.param == "a locked table":
        yield url, lock_table(url)
        return
    if request.param == "a busy server":
        yield url, refuse_connections(url)
        return
    with Relay(request.getfixturevalue("postgres").port) as relay:
        yield change_port(url, relay.port), cut(relay)


def test_no_first_request_leaks_through_a_slow_first_read(slow: tuple[str, AbstractContextManager[None]]) -> None:
    """The store is slow for longer than a single try, so tries fail and are repeated."""
    url, what = slow
    with site(url) as one:
        with what:
            threads = [threading.Thread(target=one.ask, daemon=True) for _ in range(12)]
            for thread in threads:
                thread.start()
            time.sleep(3.5)  # the first try ends after 2.5 s, and `boot_timeout` after 5 s
            assert not one.seen, "no request is answered before the read"
            assert one.state.status().last_error
        for thread in threads:
            thread.join(10)
        assert [seen.status for seen in one.seen] == [503] * 12


def test_a_connection_that_the_server_ends_is_replaced(migrated_url: str) -> None:
    with site(migrated_url) as one:
        assert one.ask() == 200
        eventually(lambda: one.state.status().listening)
        for on in (True, False, True):
            run_sql(
                migrated_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'maintenance' AND datname = current_database()",
            )
            flip(migrated_url, on=on)
            # Far below the TTL of 10 s: the process notices the end, and loses no flip in between.
            eventually(lambda on=on: one.ask() == (503 if on else 200), 4.0)
        assert one.condition == "fresh"


class SilentAfterLogin(Relay):
    """Cuts itself when a client that has logged in asks its first question."""

    armed = True

    def forwards(self, source: Any, chunk: bytes) -> bool:
        if self.armed and chunk[:1] in (b"Q", b"P"):
            self.cut()
        return True


@pytest.mark.parametrize("work", ["refresh", "set", "request"])
def test_a_server_that_falls_silent_right_after_the_login_is_given_up(
    work: str, postgres: Server, migrated_url: str
) -> None:
    with (
        SilentAfterLogin(postgres.port) as relay,
        site(change_port(migrated_url, relay.port), ttl=1.0, boot_timeout=1.0) as one,
    ):
        began = time.monotonic()
        if work == "request":
            assert one.ask() == 200
            eventually(lambda: one.state.status().last_error, what="the process gives the read up")
            relay.armed = False
            relay.pass_()
            eventually(lambda: one.condition == "fresh", what="the process reads again")
        else:
            with pytest.raises(StoreError):
                one.state.refresh() if work == "refresh" else one.state.set(True)
        assert time.monotonic() - began < 10.0


class Forgetful(Relay):
    """Loses the connections that it has without notice to either end, and relays new ones."""

    lost: frozenset[Any] = frozenset()

    def lose(self) -> None:
        with self._lock:
            self.lost = frozenset(self._sockets)

    def forwards(self, source: Any, chunk: bytes) -> bool:
        return source not in self.lost


@pytest.mark.parametrize("listen", [True, False])
def test_a_connection_that_died_in_silence_is_given_up(listen: bool, postgres: Server, migrated_url: str) -> None:
    """As behind a firewall that forgot it: no end ever comes, so only the watchdog ends the read."""
    with Forgetful(postgres.port) as relay:
        store = PostgresStore(change_port(migrated_url, relay.port), listen=listen)
        with site(store, ttl=1.0) as one:
            assert one.ask() == 200
            relay.lose()
            flip(migrated_url, on=True)
            # The next read is due within 0.8 s, and is given up after 0.5 s more.
            eventually(lambda: one.ask() == 503, 5.0)
            eventually(lambda: one.condition == "fresh")


def test_a_process_that_could_not_report_for_a_while_removes_its_row_all_the_same(migrated_url: str) -> None:
    with closing(MaintenanceState(migrated_url, register=False)) as operator:
        with site(migrated_url, ttl=TTL) as one:
            assert one.ask() == 200
            with psycopg.connect(migrated_url) as other:
                other.execute("LOCK TABLE maintenance_instances")
                flip(migrated_url, on=True)
                eventually(lambda: one.state.status().registration_error, what="a report that the lock holds up")
        assert operator.fleet().instances == ()

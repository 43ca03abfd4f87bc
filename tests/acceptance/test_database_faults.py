"""What requests get while the database is killed, frozen, cut off, locked or wrong, and how it all comes back."""

import json
import re
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from maintenance import MaintenanceState, StoreError
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.cli import main
from maintenance.process.lease import LAGGING
from maintenance.stores import PostgresStore, Session, SQLiteStore
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import acall_asgi, call_wsgi
from tests.support.ports import free_port
from tests.support.postgres import Server, database, installations, private_folder, server
from tests.support.relay import Relay
from tests.support.waiting import eventually

TTL = 1.5
SLACK = 0.7
"""Seconds that a machine with every core busy may take to run a thread that could run."""


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"open"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"open"})


@dataclass(frozen=True, slots=True)
class Seen:
    sent: float
    took: float
    status: int


@dataclass(slots=True)
class Site:
    """One process's app, and what its clients saw."""

    state: MaintenanceState
    seen: deque[Seen] = field(default_factory=deque)

    def get(self) -> int:
        sent = time.monotonic()
        status = call_wsgi(self.app).status
        self.seen.append(Seen(sent, time.monotonic() - sent, status))
        return status

    @property
    def app(self) -> Any:
        return WSGIMiddleware(wsgi_app, self.state)

    def since(self, moment: float) -> list[Seen]:
        return [one for one in list(self.seen) if one.sent >= moment]

    def between(self, moment: float, end: float) -> list[Seen]:
        """Sent and answered: on a busy machine, what was sent before `end` may be answered long after."""
        return [one for one in self.since(moment) if one.sent + one.took < end]


@contextmanager
def site(url: str, **options: Any) -> Iterator[Site]:
    with closing(MaintenanceState(url, **{"ttl": TTL, **options})) as state:
        yield Site(state)


@contextmanager
def clients(of: Site, number: int = 6) -> Iterator[None]:
    """Threads that ask all the time."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            of.get()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(10)


def condition(of: Site) -> str:
    return of.state.status().condition


def sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def flip(url: str, *, on: bool) -> None:
    sql(url, f"UPDATE platform_settings SET value_bool = {on} WHERE key = 'maintenance_mode'")


@pytest.fixture(scope="module")
def shaky() -> Iterator[Server]:
    """A server that each test of this module may break, and must leave running."""
    with server() as own:
        yield own


@pytest.fixture
def shaky_url(shaky: Server) -> Iterator[str]:
    with database(shaky) as url:
        PostgresStore(url).migrate()
        yield url


@dataclass(frozen=True, slots=True)
class Fault:
    """How a database goes away, and comes back."""

    begin: Callable[[], None]
    end: Callable[[], None]


@pytest.fixture(params=["kill", "freeze", "refuse", "cut"])
def fault(request: pytest.FixtureRequest, shaky: Server, shaky_url: str) -> Iterator[tuple[str, Fault]]:
    with Relay(shaky.port) as relay:
        dbname = shaky_url.rpartition("/")[2]
        faults = {
            "kill": Fault(shaky.kill, shaky.start),
            "freeze": Fault(shaky.freeze, shaky.thaw),
            "refuse": Fault(relay.refuse, relay.pass_),
            "cut": Fault(relay.cut, relay.pass_),
        }
        yield shaky.url(dbname, port=relay.port), faults[request.param]


def log_lines(caplog: pytest.LogCaptureFixture, containing: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if containing in record.getMessage()]


def test_while_it_is_away_one_request_waits_and_all_others_are_answered_at_once(
    fault: tuple[str, Fault], shaky: Server, shaky_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, what = fault
    with site(url, when_stale="serve") as serve, site(url, when_stale="block") as block:
        with clients(serve), clients(block):
            eventually(lambda: condition(serve) == condition(block) == "fresh")
            caplog.clear()
            began = time.monotonic()
            what.begin()
            gone = time.monotonic()
            try:
                eventually(lambda: time.monotonic() > gone + TTL + 2.5)
                told_of = [one.state.status() for one in (serve, block)]
                complaints = log_lines(caplog, "is stale"), log_lines(caplog, "fresh again")
            finally:
                ended = time.monotonic()  # before it: until it returns, they may be back already
                what.end()
            for told in told_of:
                assert told.condition == "stale"
                assert told.last_error
                assert shaky.password not in f"{told}{caplog.text}"
            eventually(lambda: condition(serve) == condition(block) == "fresh", what="both are back by themselves")
            back = time.monotonic()
            flip(shaky_url, on=True)
            for one in (serve, block):
                eventually(lambda one=one: {seen.status for seen in one.since(time.monotonic() - 0.1)} == {503})
        assert {seen.status for seen in serve.between(began, ended)} == {200}, "the last known answer was off"
        assert {seen.status for seen in block.between(gone + TTL, ended)} == {503}
        assert {seen.status for seen in block.since(back) if seen.sent < back + 0.01} <= {200, 503}
        for one in (serve, block):
            # One may wait for 1 s and the others for 0.1 s: what lies between is the machine's, which may be busy.
            slow = sorted(seen.took for seen in one.since(began) if seen.took > 0.5)
            assert len(slow) <= 1 + len([seen for seen in one.seen if seen.took > 0.5 and seen.sent < began])
            assert max((seen.took for seen in one.since(began)), default=0) < 1.0 + SLACK
    assert (len(complaints[0]), complaints[1]) == (2, []), "one line for each process"
    # Not exactly two, as in `test_health`: on a busy machine a read may take too long once more.
    assert len(log_lines(caplog, "fresh again")) >= 2


def unreachable(scheme: str = "postgresql") -> str:
    return f"{scheme}://someone:topsecret@127.0.0.1:{free_port()}/nowhere"


@pytest.mark.parametrize(
    ("variable", "when_stale", "status", "source"),
    [
        (None, "serve", 200, "default"),
        ("on", "serve", 503, "environment"),
        ("off", "serve", 200, "environment"),
        ("off", "block", 503, "environment"),
        (None, "block", 503, "default"),
    ],
)
def test_a_boot_without_a_database(
    variable: str | None, when_stale: str, status: int, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("MAINTENANCE_MODE", variable)
    with site(unreachable(), when_stale=when_stale) as one:
        assert [one.get() for _ in range(5)] == [status] * 5
        assert max(seen.took for seen in one.seen) < 2.0 + SLACK
        told = one.state.status()
        assert (told.condition, told.snapshot.source) == ("never read", source)
        assert "topsecret" not in f"{told}"
        assert "refused" in (told.last_error or "")


@pytest.mark.parametrize("when_stale", ["serve", "block"])
def test_a_boot_while_the_network_is_silent_lasts_boot_timeout_and_the_first_answer_counts_at_once(
    when_stale: str, shaky: Server, shaky_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "off")
    flip(shaky_url, on=True)
    with Relay(shaky.port) as relay:
        relay.cut()
        url = shaky.url(shaky_url.rpartition("/")[2], port=relay.port)
        with site(url, boot_timeout=0.8, when_stale=when_stale) as one:
            with clients(one, 5):
                eventually(lambda: len(one.seen) >= 20)
                first = sorted(one.seen, key=lambda seen: seen.sent)[:5]
                assert {seen.status for seen in one.seen} == {503 if when_stale == "block" else 200}
                assert all(0.5 < seen.took < 0.8 + SLACK for seen in first)
                relay.pass_()
                eventually(lambda: condition(one) == "fresh")
                back = time.monotonic()
                eventually(lambda: len(one.since(back)) > 5)
            assert {seen.status for seen in one.since(back)} == {503}


@contextmanager
def locked(url: str, table: str = "platform_settings") -> Iterator[None]:
    """What an ALTER TABLE does, for as long as the block lasts."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def written_to(sqlite_url: str) -> Iterator[None]:
    """A transaction that another process keeps open, which locks the whole file."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture(params=["a locked table", "a silent network", "a locked file"])
def slow(request: pytest.FixtureRequest) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """A store in which the flag is on, and what makes it slow."""
    if request.param == "a locked file":
        url = request.getfixturevalue("sqlite_url")
        SQLiteStore(url).migrate()
        with closing(MaintenanceState(url, register=False)) as operator:
            operator.set(True)
        yield url, written_to(url)
        return
    url = request.getfixturevalue("migrated_url")
    flip(url, on=True)
    if request.param == "a locked table":
        yield url, locked(url)
        return
    postgres: Server = request.getfixturevalue("postgres")
    with Relay(postgres.port) as relay:
        yield postgres.url(url.rpartition("/")[2], port=relay.port), silent(relay)


@contextmanager
def silent(relay: Relay) -> Iterator[None]:
    relay.cut()
    yield
    relay.pass_()


def test_no_first_request_leaks_through_a_slow_first_read(
    slow: tuple[str, AbstractContextManager[None]],
) -> None:
    """Longer than any single try, which fails again and again meanwhile."""
    url, what = slow
    with site(url, ttl=10.0) as one:
        with what:
            threads = [threading.Thread(target=one.get, daemon=True) for _ in range(12)]
            for thread in threads:
                thread.start()
            time.sleep(3.5)  # how long the read takes, between the second try's end and `boot_timeout`
            assert not one.seen, "none has been answered before the read"
            assert one.state.status().last_error
        for thread in threads:
            thread.join(10)
        assert [seen.status for seen in one.seen] == [503] * 12


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_first_request_leaks_and_the_event_loop_goes_on(backend: str, migrated_url: str) -> None:
    flip(migrated_url, on=True)
    statuses: list[int] = []
    gaps: list[float] = []

    async def tick(scope: anyio.CancelScope) -> None:
        while not scope.cancel_called:
            before = time.monotonic()
            await anyio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    async def ask(app: Any) -> None:
        statuses.append((await acall_asgi(app)).status)

    async def main(app: Any) -> None:
        async with anyio.create_task_group() as ticking:
            ticking.start_soon(tick, ticking.cancel_scope)
            with locked(migrated_url):
                asking = anyio.create_task_group()
                await asking.__aenter__()
                for _ in range(60):  # more than there are threads to wait in
                    asking.start_soon(ask, app)
                await anyio.sleep(1.0)
                assert not statuses
            await asking.__aexit__(None, None, None)
            ticking.cancel_scope.cancel()

    with closing(MaintenanceState(migrated_url)) as state:
        anyio.run(main, ASGIMiddleware(asgi_app, state), backend=backend)
    assert statuses == [503] * 60
    assert max(gaps) < 0.5, "the loop has stood still"


def test_a_locked_table_keeps_nobody_waiting(migrated_url: str) -> None:
    with site(migrated_url, ttl=1.0) as one, clients(one):
        eventually(lambda: condition(one) == "fresh")
        began = time.monotonic()
        with locked(migrated_url):
            eventually(lambda: condition(one) == "stale")
            time.sleep(1.0)
        eventually(lambda: condition(one) == "fresh")
        flip(migrated_url, on=True)
        eventually(lambda: one.get() == 503)
        waited = [seen.took for seen in one.since(began) if seen.took > 0.3]
        assert len(waited) <= 1
        assert max(seen.took for seen in one.since(began)) < 1.0 + SLACK


def trigger(url: str, table: str, body: str) -> None:
    sql(
        url,
        f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION meddle()",
    )


def test_a_flip_that_a_trigger_overrules_is_an_error_and_proves_nothing(
    migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trigger(migrated_url, "platform_settings", "NEW.value_bool := false; RETURN NEW;")
    with closing(MaintenanceState(migrated_url, register=False)) as state:
        with pytest.raises(StoreError, match="was written, and is off all the same: look for a trigger"):
            state.set(True)
        assert not state.enabled
    assert main(["on", "--wait", "--drain", "--database", migrated_url]) == 1
    assert "look for a trigger that overrules it" in capsys.readouterr().err


@pytest.mark.parametrize(("when_stale", "status"), [("serve", 200), ("block", 503)])
def test_a_registration_that_a_trigger_suppresses_is_none(migrated_url: str, when_stale: str, status: int) -> None:
    trigger(migrated_url, "maintenance_instances", "RETURN NULL;")
    with site(migrated_url, when_stale=when_stale) as one:
        assert one.get() == status
        told = one.state.status()
        assert (told.registered, "is not there: look for a trigger" in str(told.registration_error)) == (False, True)


def test_a_row_is_removed_by_a_process_whose_connection_was_just_lost(migrated_url: str) -> None:
    state = MaintenanceState(PostgresStore(migrated_url, listen=False))
    state.wait_for_answer()
    eventually(lambda: state.status().registered)
    sql(
        migrated_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'maintenance'",
    )
    state.close()
    with closing(MaintenanceState(migrated_url, register=False)) as other:
        eventually(lambda: other.fleet().instances == ())


WRONG_ROWS = {
    "missing": ("DELETE FROM platform_settings", "no row 'maintenance_mode'"),
    "null": ("UPDATE platform_settings SET value_bool = NULL", "value_bool"),
    "text for details": ("""UPDATE platform_settings SET details = '"x"'""", "details"),
    "unknown mode": ("""UPDATE platform_settings SET details = '{"mode": "half"}'""", "half"),
    "naive until": ("""UPDATE platform_settings SET details = '{"until": "2031-01-01"}'""", "time zone"),
    "a number for until": ("""UPDATE platform_settings SET details = '{"until": 5}'""", "until"),
    "text for retry_after": ("""UPDATE platform_settings SET details = '{"retry_after": "x"}'""", "retry_after"),
}


@pytest.mark.parametrize(("breaking", "named"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_a_missing_or_wrong_row_is_a_failed_read_that_a_flip_repairs(
    breaking: str, named: str, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with site(migrated_url, ttl=0.5) as serve, site(migrated_url, ttl=0.5, when_stale="block") as block:
        assert (serve.get(), block.get()) == (200, 200)
        sql(migrated_url, breaking)
        for one in (serve, block):
            eventually(lambda one=one: condition(one) == "stale")
            assert named in (one.state.status().last_error or "")
        assert (serve.get(), block.get()) == (200, 503)
        with pytest.raises(StoreError, match=re.escape(named)):
            serve.state.refresh()
        caplog.clear()
        serve.state.set(True)
        assert serve.get() == 503
        eventually(lambda: condition(serve) == condition(block) == "fresh")
        serve.state.set(False)
        eventually(lambda: (serve.get(), block.get()) == (200, 200))


def test_a_wrong_row_at_boot_leaves_what_stands_without_a_read(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTENANCE_MODE", "1")
    sql(migrated_url, "UPDATE platform_settings SET value_bool = NULL")
    with site(migrated_url, ttl=0.5) as one:
        assert one.get() == 503
        assert condition(one) == "never read"
        flip(migrated_url, on=False)
        eventually(lambda: one.get() == 200)


@pytest.fixture
def reader_url(postgres: Server, migrated_url: str) -> Iterator[str]:
    """The database as a role that may read the flag and the instances, and write neither."""
    role = f"reader_{time.monotonic_ns()}"
    sql(
        migrated_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'reader'",
        f"GRANT SELECT ON platform_settings, maintenance_instances TO {role}",
    )
    yield migrated_url.replace(f"{postgres.user}:{postgres.password}@", f"{role}:reader@")
    sql(migrated_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def serves_and_says_why(url: str, admin_url: str, *, why: str) -> None:
    """Where a process cannot register: `serve` goes on, `block` admits nothing, and both follow a flip."""
    with site(url, ttl=0.5) as serve, site(url, ttl=0.5, when_stale="block") as block:
        assert (serve.get(), block.get()) == (200, 503)
        told = serve.state.status()
        assert (told.condition, told.registered) == ("fresh", False)
        assert why in (told.registration_error or "")
        assert why in (block.state.status().last_error or "")
        sql(admin_url, "SET default_transaction_read_only = off", "UPDATE platform_settings SET value_bool = true")
        eventually(lambda: serve.get() == 503)
        assert condition(serve) == "fresh"


def test_a_role_that_may_not_write(reader_url: str, migrated_url: str) -> None:
    serves_and_says_why(reader_url, migrated_url, why="grant this role")
    with closing(MaintenanceState(reader_url)) as state:
        before = state.prime()
        with pytest.raises(StoreError, match="permission denied"):
            state.set(False)
        assert state.snapshot() == before


def test_a_table_of_instances_that_is_missing(migrated_url: str) -> None:
    sql(migrated_url, "DROP TABLE maintenance_instances")
    serves_and_says_why(migrated_url, migrated_url, why="run `maintenance migrate`")
    with site(migrated_url, ttl=0.5, when_stale="block") as block:
        flip(migrated_url, on=False)
        assert block.get() == 503
        block.state.store.migrate()
        eventually(lambda: block.get() == 200, what="it registers by itself once there is a table")
        assert block.state.status().registered


def test_a_database_that_is_read_only(migrated_url: str) -> None:
    """What a failed-over or a full service sets; a standby proper has a test of its own."""
    sql(migrated_url, f"ALTER DATABASE {migrated_url.rpartition('/')[2]} SET default_transaction_read_only = on")
    serves_and_says_why(migrated_url, migrated_url, why="read-only")


def test_a_table_of_instances_whose_writes_fail_does_not_hide_the_flag(migrated_url: str) -> None:
    """A full disk, a trigger, a constraint: what is read is still true."""
    sql(
        migrated_url,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE disk_full USING MESSAGE = 'no space left on device'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON maintenance_instances EXECUTE FUNCTION refuse()",
    )
    serves_and_says_why(migrated_url, migrated_url, why="no space left on device")


def test_a_database_that_nobody_has_migrated_says_what_to_run(database_url: str) -> None:
    with site(database_url, ttl=0.5) as one:
        assert one.state.prime().source == "default"
        assert one.get() == 200
        told = one.state.status()
        assert told.condition == "never read"
        assert "run `maintenance migrate`" in (told.last_error or "")
        with pytest.raises(StoreError, match="run `maintenance migrate`"):
            one.state.refresh()
        with pytest.raises(StoreError, match="run `maintenance migrate`"):
            one.state.set(True)
        PostgresStore(database_url).migrate()
        flip(database_url, on=True)
        eventually(lambda: one.get() == 503, what="nothing has to be restarted")


def test_a_connection_that_is_ended_by_the_server_is_made_anew(migrated_url: str) -> None:
    with site(migrated_url, ttl=10.0) as one:
        assert one.get() == 200
        eventually(lambda: one.state.status().listening)
        for on in (True, False, True):
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'maintenance'"
            sql(migrated_url, f"{ended} AND datname = current_database()")
            flip(migrated_url, on=on)
            # Far below the TTL: the end of a connection is noticed, and a flip in between is not lost.
            eventually(lambda on=on: one.get() == (503 if on else 200), 4.0)
        assert one.state.status().condition == "fresh"


class Split:
    """A store whose reader, the one that listens, goes another way than its writers."""

    def __init__(self, reader: PostgresStore, writer: PostgresStore) -> None:
        self.name = writer.name
        self._reader, self._writer = reader, writer

    def connect(self, *, listen: bool = False) -> Session:
        return (self._reader if listen else self._writer).connect(listen=listen)

    def migrate(self) -> None:
        self._writer.migrate()


def test_a_read_that_was_sent_before_an_own_write_returned_never_replaces_it(
    postgres: Server, migrated_url: str
) -> None:
    with Relay(postgres.port) as relay:
        reader = PostgresStore(postgres.url(migrated_url.rpartition("/")[2], port=relay.port), listen=False)
        store = Split(reader, PostgresStore(migrated_url))
        with site(store, ttl=10.0) as one:  # type: ignore[arg-type]
            assert one.get() == 200
            for _ in range(2):
                relay.delay = 0.4  # each way: the store answers after 0.4 s, and the answer is here after 0.8 s
                one.state.lifecycle.wake()
                time.sleep(0.55)
                assert one.state.set(True).enabled
                until = time.monotonic() + 0.6
                while time.monotonic() < until:
                    assert one.state.enabled
                    assert one.get() == 503
                    time.sleep(0.01)
                relay.delay = 0.0
                one.state.set(False)
                eventually(lambda: one.state.status().condition == "fresh" and one.get() == 200)


def test_fast_flips_end_in_one_revision_everywhere(migrated_url: str) -> None:
    with ExitStack() as stack:
        sites = [stack.enter_context(site(migrated_url, ttl=10.0)) for _ in range(4)]
        assert [one.get() for one in sites] == [200] * 4
        wrong: list[str] = []

        def flipping(one: Site, first: bool) -> None:
            last = 0
            for number in range(50):
                written = one.state.set(bool(number % 2) is first, actor="me")
                if written.revision <= last:
                    wrong.append(f"{written.revision} after {last}")
                last = written.revision

        threads = [threading.Thread(target=flipping, args=(one, bool(n % 2))) for n, one in enumerate(sites)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        with psycopg.connect(migrated_url) as connection:
            row = connection.execute("SELECT revision, value_bool FROM platform_settings").fetchone()
        eventually(lambda: {(it.state.snapshot().revision, it.state.enabled) for it in sites} == {row}, 5.0)


class Mute(Relay):
    """Falls silent as soon as a client that has logged in asks its first question."""

    mute = True

    def _pump(self, source: Any, sink: Any) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                if self.mute and chunk[:1] in (b"Q", b"P"):
                    self.cut()
                self._open.wait()
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("work", ["refresh", "set", "request"])
def test_a_server_that_falls_silent_right_after_the_login_holds_nothing_up_for_ever(
    work: str, postgres: Server, migrated_url: str
) -> None:
    with Mute(postgres.port) as relay:
        url = postgres.url(migrated_url.rpartition("/")[2], port=relay.port)
        with site(url, ttl=1.0, boot_timeout=1.0) as one:
            began = time.monotonic()
            if work == "request":
                assert one.get() == 200
                eventually(lambda: one.state.status().last_error, what="the read is given up")
                relay.mute = False
                relay.pass_()
                eventually(lambda: condition(one) == "fresh", what="and sent again")
            else:
                with pytest.raises(StoreError):
                    one.state.refresh() if work == "refresh" else one.state.set(True)
            assert time.monotonic() - began < 10.0


class Forgetful(Relay):
    """Loses the connections that it has, without a word to either end, and relays new ones."""

    lost: frozenset[Any] = frozenset()

    def lose(self) -> None:
        with self._lock:
            self.lost = frozenset(self._sockets)

    def _pump(self, source: Any, sink: Any) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                if source not in self.lost:
                    sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("listen", [True, False])
def test_a_connection_that_died_in_silence_is_given_up(listen: bool, postgres: Server, migrated_url: str) -> None:
    """As behind a firewall that has forgotten it: no end ever comes, so only the watchdog ends the read."""
    with Forgetful(postgres.port) as relay:
        url = postgres.url(migrated_url.rpartition("/")[2], port=relay.port)
        with site(PostgresStore(url, listen=listen), ttl=1.0) as one:  # type: ignore[arg-type]
            assert one.get() == 200
            relay.lose()
            flip(migrated_url, on=True)
            # The next read is due within 0.8 s, and is given up after 0.5 s more.
            eventually(lambda: one.get() == 503, 5.0)
            eventually(lambda: condition(one) == "fresh")


def test_who_could_not_register_for_a_while_takes_its_row_away_all_the_same(migrated_url: str) -> None:
    """A read says that it is not registered where the instances are locked, and so does the report that follows."""
    with closing(MaintenanceState(migrated_url, register=False)) as operator:
        with site(migrated_url) as one:
            assert one.get() == 200
            with psycopg.connect(migrated_url) as other:
                other.execute("LOCK TABLE maintenance_instances")
                flip(migrated_url, on=True)
                eventually(lambda: one.state.status().registration_error, what="a report that was refused")
        assert operator.fleet().instances == ()


class Standby(Server):
    """A hot standby that follows another server by streaming replication."""

    def __init__(self, primary: Server, folder: Path) -> None:
        self._primary = primary
        super().__init__(installations()[0], folder)
        self.password = primary.password

    def _initdb(self) -> None:
        self._run(
            *("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            *("--pgdata", str(self._folder / "data"), "--dbname", self._primary.url()),
        )


@pytest.fixture
def standby(shaky: Server) -> Iterator[Server]:
    with private_folder() as folder:
        second = Standby(shaky, folder)
        try:
            second.start()
            yield second
        finally:
            second.stop()


def test_the_command_line_says_that_a_standby_answered(
    standby: Server, shaky_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = standby.url(shaky_url.rpartition("/")[2])
    eventually(lambda: main(["status", "--database", url]) == 0, what="the tables, by replication")
    capsys.readouterr()
    for command in ("status", "fleet"):
        assert main([command, "--database", url]) == 0
        assert capsys.readouterr().err.endswith(f"warning: {LAGGING}\n")
        assert main([command, "--database", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["problem"] == LAGGING
        assert main([command, "--database", shaky_url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["problem"] is None


def test_a_standby_updates_the_answer_and_never_the_lease(standby: Server, shaky_url: str) -> None:
    url = standby.url(shaky_url.rpartition("/")[2])
    with site(url, ttl=0.5) as serve, site(url, ttl=0.5, when_stale="block") as block:
        flip(shaky_url, on=True)
        eventually(lambda: serve.get() == 503, what="the flip, by polling")
        flip(shaky_url, on=False)
        eventually(lambda: serve.get() == 200)
        assert block.get() == 503, "what only a standby says is no lease"
        told = serve.state.status()
        assert (told.condition, told.listening, told.registered) == ("stale", False, False)
        assert "standby" in (told.last_error or "")
        with pytest.raises(StoreError, match="read-only"):
            serve.state.set(True)
        assert not serve.state.enabled

"""A resolver that hangs, which no test can have for real: `socket.getaddrinfo` is replaced. The servers are real."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from maintenance import MaintenanceState, StoreError
from maintenance.base.runtime import REAL
from maintenance.errors import LateError
from maintenance.stores import PostgresStore
from maintenance.stores.postgres import connection, resolver
from maintenance.stores.postgres.connection import parse_url
from maintenance.stores.postgres.resolver import Lookup
from tests.stores.helpers import LONG, in_child, in_thread, succeeded
from tests.support.clock import refuse
from tests.support.ports import free_port
from tests.support.postgres import Server
from tests.support.waiting import eventually


class Names:
    """What the resolver knows, and how often it is asked. A name without addresses makes it hang until `released`."""

    def __init__(self, **addresses: list[str] | None) -> None:
        self.addresses = addresses
        self.asked: list[str] = []
        self.released = threading.Event()

    def find(self, host: str, port: str, **_: Any) -> list[Any]:
        self.asked.append(host)
        name = host.removesuffix(".test")
        if name not in self.addresses:
            raise socket.gaierror(-2, "Name or service not known")
        found = self.addresses[name]
        if found is None:
            self.released.wait(LONG)
            found = ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    known = Names(good=["127.0.0.1"], hangs=None)
    monkeypatch.setattr(socket, "getaddrinfo", known.find)
    yield known
    known.released.set()
    eventually(lambda: not resolver._under_way)


@pytest.fixture
def at(postgres: Server, migrated_url: str) -> Callable[..., str]:
    """Makes the URL of the migrated database under other host names."""

    def make(*hosts: str, port: int = postgres.port) -> str:
        places = ",".join(host if ":" in host else f"{host}:{port}" for host in hosts)
        return f"postgresql://{postgres.user}:{postgres.password}@{places}/{migrated_url.rpartition('/')[2]}"

    return make


@contextmanager
def took(least: float, most: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began < most


def test_a_name_is_resolved_and_kept_for_tls(names: Names, at: Callable[..., str]) -> None:
    with closing(PostgresStore(at("good.test")).connect(listen=True)) as session:
        info = session._connection.info
        assert (info.host, info.hostaddr, names.asked) == ("good.test", "127.0.0.1", ["good.test"])


def test_each_address_of_a_name_is_tried(names: Names, at: Callable[..., str]) -> None:
    names.addresses["two"] = ["127.0.0.77", "127.0.0.1"]  # nothing listens at the first
    with closing(PostgresStore(at("two.test")).connect()) as session:
        assert session._connection.info.hostaddr == "127.0.0.1"


@pytest.mark.usefixtures("names")
def test_a_name_that_is_unknown_is_an_error_unless_another_one_is_known(at: Callable[..., str]) -> None:
    PostgresStore(at("unknown.test", "good.test")).connect().close()
    with pytest.raises(StoreError, match=r"failed to resolve host 'unknown\.test': .*Name or service not known"):
        PostgresStore(at("unknown.test")).connect()


def test_a_resolver_that_hangs_is_waited_for_within_the_limit_by_all_and_asked_once(
    names: Names, at: Callable[..., str]
) -> None:
    store = PostgresStore(at("hangs.test"))

    def connect(_: int) -> None:
        with pytest.raises(LateError, match=r"has not found host 'hangs\.test' within 0\.3 s: check the name"):
            store.connect(limit=0.3)

    with took(0.3, 5.0), ThreadPoolExecutor(5) as pool:
        list(pool.map(connect, range(5)))
    with took(0.3, 5.0):
        connect(0)
    assert names.asked == ["hangs.test"], "the lookup that hangs is joined"
    threading.Timer(0.2, names.released.set).start()
    store.connect(limit=LONG).close()
    assert names.asked == ["hangs.test"]
    store.connect().close()
    assert names.asked == ["hangs.test"] * 2, "no answer is kept"


def test_without_a_limit_a_resolver_that_hangs_has_its_own(
    names: Names, at: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RESOLVE_LIMIT", 0.2)
    with took(0.2, 5.0), pytest.raises(LateError):
        PostgresStore(at("hangs.test")).connect(listen=True)


@pytest.mark.parametrize("other", ["good.test", "127.0.0.1"])
def test_of_several_names_one_may_hang(other: str, names: Names, at: Callable[..., str]) -> None:
    with took(0.5, 5.0):
        PostgresStore(at("hangs.test", other)).connect(limit=1.0).close()


@pytest.mark.parametrize("call", ["refresh", "prime", "prove"])
def test_no_call_takes_longer_than_it_may(call: str, names: Names, at: Callable[..., str]) -> None:
    with closing(MaintenanceState(at("good.test"), boot_timeout=0.5, register=False)) as state:
        snapshot = state.refresh()
        names.addresses["good"] = None
        with took(0.5, 5.0):
            if call == "prove":
                assert not state.prove(snapshot, timeout=1.0)
            elif call == "prime":
                state.prime()
            else:
                with pytest.raises(StoreError):
                    state.refresh()


def test_a_child_of_a_fork_does_not_wait_for_the_thread_of_its_parent(names: Names, at: Callable[..., str]) -> None:
    with pytest.raises(LateError):
        PostgresStore(at("hangs.test")).connect(limit=0.1)

    def connect() -> None:
        names.addresses["hangs"] = ["127.0.0.1"]
        with took(0.0, 4.0):
            PostgresStore(at("hangs.test")).connect(limit=5.0).close()

    assert succeeded(in_child(connect))


def test_a_child_that_runs_no_hooks_asks_again(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    Lookup.join("hangs.test", "1")
    monkeypatch.setattr(resolver.os, "getpid", lambda: 1)
    Lookup.join("hangs.test", "1")
    eventually(lambda: names.asked == ["hangs.test"] * 2)


def test_without_a_thread_the_caller_asks(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "REAL", replace(REAL, start=refuse))
    lookup = Lookup.join("good.test", "1")
    assert lookup.wait(0.0)
    assert lookup.addresses == ["127.0.0.1"]
    assert Lookup.join("unknown.test", "1").error == "[Errno -2] Name or service not known"


def test_an_answer_ends_the_wait_of_each_caller(names: Names) -> None:
    lookup = Lookup("good.test", "1")
    with (
        in_thread(lambda: lookup.wait(time.monotonic() + LONG)) as one,
        in_thread(lambda: lookup.wait(time.monotonic() + LONG)) as other,
    ):
        eventually(lambda: len(lookup._waiters) == 2)
        lookup._run()
    assert one == other == [True]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1,[::1],[fe80::1%25lo]/d",
        "postgresql:///d",
        "postgresql:///d?host=/tmp,@abstract",
        "postgresql://h/d?hostaddr=127.0.0.1",
        "postgresql:///d?service=s",
        "postgresql://a,b,c/d?port=1,2",
    ],
)
def test_what_needs_no_resolver_asks_none(url: str, names: Names) -> None:
    assert connection._with_addresses(parse_url(url), inf) == parse_url(url)
    assert names.asked == []


def test_a_name_in_the_environment_is_resolved_too(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "good.test,/tmp")
    monkeypatch.setenv("PGPORT", "5433")
    found = connection._with_addresses(parse_url("postgresql:///d"), inf)
    assert (found["host"], found["port"], found["hostaddr"]) == ("good.test,/tmp", "5433,5433", "127.0.0.1,")


def test_the_addresses_share_the_limit_and_the_login_is_part_of_it(at: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        # psycopg's own limit is 2 s at least.
        with took(1.0, 2.0):
            PostgresStore(at(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}", "127.0.0.1")).connect(limit=3.0).close()
        with took(0.5, 1.5), pytest.raises(LateError, match="check the host, the port and the firewall"):
            PostgresStore(at(f"127.0.0.1:{port}")).connect(limit=0.5)


def test_under_gevent_other_green_threads_run_meanwhile() -> None:
    script = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, time
def hang(*_, **__): gevent.monkey.get_original("time", "sleep")(0.5); raise OSError("unknown")
gevent.monkey.saved["socket"]["getaddrinfo"] = hang
from maintenance import StoreError
from maintenance.stores import PostgresStore
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)
gevent.spawn(tick)
try:
    PostgresStore("postgresql://h.test/d").connect(limit=5.0)
except StoreError as exc:
    assert "failed to resolve host 'h.test': unknown" in str(exc), exc
    assert len(ticks) > 10, ticks
    print("green")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode) == ("green", 0), done.stderr

"""The default state of a process, and the functions that use it."""

import datetime as dt
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

import maintenance
from maintenance import (
    ConfigurationError,
    MaintenanceState,
    StoreError,
    aset_maintenance,
    aupdate_maintenance,
    init_maintenance,
    maintenance_enabled,
    set_maintenance,
)
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.process import api
from maintenance.stores import MemoryStore, PostgresStore
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import acall_asgi, call_asgi, call_wsgi
from tests.support.faulty import FaultyStore
from tests.support.plain_apps import asgi, wsgi
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("_no_default")


@pytest.fixture
def _no_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(api, "_state", None)
    yield
    if api._state is not None:
        api._state.close()


ADAPTERS = pytest.mark.parametrize(
    ("middleware", "app", "call"),
    [(WSGIMiddleware, wsgi, call_wsgi), (ASGIMiddleware, asgi, call_asgi)],
    ids=["wsgi", "asgi"],
)
ASKS: dict[str, Callable[[], Any]] = {
    "wsgi": lambda: call_wsgi(WSGIMiddleware(wsgi)),
    "asgi": lambda: call_asgi(ASGIMiddleware(asgi)),
    "enabled": maintenance_enabled,
    "set": lambda: set_maintenance(True),
    "fleet": maintenance.fleet,
    "init": init_maintenance,
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_without_a_url_the_error_names_the_variables_to_set(ask: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError, match="set MAINTENANCE_DATABASE_URL or DATABASE_URL, or use init_maint"):
        ask()
    assert api.current_state() is None


@pytest.mark.parametrize(
    ("variable", "more"),
    [("MAINTENANCE_DATABASE_URL", ""), ("DATABASE_URL", "; or keep it for the app, and set MAINTENANCE_DATABASE_URL")],
)
@pytest.mark.parametrize("ask", [init_maintenance, maintenance_enabled], ids=["init", "enabled"])
def test_a_wrong_url_is_reported_with_its_variable(
    variable: str, more: str, ask: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "postgresql+asyncpg://me:hunter2@h/d")
    with pytest.raises(ConfigurationError) as caught:
        ask()
    error = f"{variable}: the database URL begins with postgresql+asyncpg://: use postgresql:// instead{more}"
    assert str(caught.value) == error


@pytest.mark.parametrize("ask", [maintenance.fleet, functools.partial(set_maintenance, True)], ids=["fleet", "set"])
@pytest.mark.parametrize("wrong", ["memory://", False, MaintenanceState], ids=str)
def test_anything_but_a_state_is_refused(ask: Callable[..., Any], wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"state is of type {type(wrong).__name__}: use"):
        ask(state=wrong)


def test_the_library_s_variable_comes_before_database_url(
    migrated_url: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    for own, scheme in (("", "sqlite"), (f" {migrated_url} ", "postgresql"), ("", "sqlite")):
        monkeypatch.setenv("MAINTENANCE_DATABASE_URL", own)
        assert init_maintenance().store.name.startswith(scheme)


@ADAPTERS
def test_an_app_that_is_wrapped_first_follows_each_later_state(middleware: Any, app: Any, call: Any) -> None:
    wrapped = middleware(app)
    assert call(wrapped, "/health").status == 200, "an exempt path needs no state"
    states = [init_maintenance("memory://")]
    for ttl in (3.0, 4.0):
        assert call(wrapped).status == 200
        set_maintenance(True)
        assert maintenance_enabled()
        assert call(wrapped).status == 503
        states.append(init_maintenance("memory://", ttl=ttl))
    assert [state.closed for state in states] == [True, True, False]
    assert api.current_state() is states[-1]


def test_a_closed_state_stays_closed_although_the_environment_names_a_store(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = WSGIMiddleware(wsgi)
    init_maintenance("memory://").close()
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    assert call_wsgi(app).status == 503
    assert maintenance_enabled()


def test_a_second_init_with_a_wrong_option_leaves_the_first_state() -> None:
    first = init_maintenance("memory://")
    with pytest.raises(ConfigurationError, match="ttl is 0"):
        init_maintenance("memory://", ttl=0)
    assert api.current_state() is first
    assert not first.closed


def test_init_reads_once_and_raises_nothing_if_the_store_is_away() -> None:
    store = FaultyStore()
    MaintenanceState(store).set(True)
    assert init_maintenance(store).lease.known.site.enabled
    store.away()
    assert init_maintenance(store).lease.known.site.source == "default"


def test_threads_that_ask_first_at_once_share_one_state(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    together = threading.Barrier(8)

    def ask(_: int) -> MaintenanceState:
        together.wait()
        return api.default_state()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_set_maintenance_writes_each_option_to_the_default_state_or_another() -> None:
    other = MaintenanceState(MemoryStore())
    until = dt.datetime(2031, 5, 1, tzinfo=dt.UTC)
    options: Any = {"message": "m", "until": until, "retry_after": 9, "mode": "read_only", "actor": "me", "reason": "r"}
    for state in (other, None):
        snapshot = set_maintenance(True, updated_by=UUID(int=7), state=state, **options)
        assert {name: getattr(snapshot, name) for name in options} == options
        assert (snapshot.enabled, snapshot.updated_by) == (True, UUID(int=7))
        assert maintenance.fleet(state).reading.row is not None
        if state is other:
            assert other.refresh().actor == "me"
            assert api.current_state() is None
            init_maintenance(MemoryStore())


# aset_maintenance and aprove

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class SlowWrite:
    """A state whose writes last until they are let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        store = FaultyStore()
        self.state = MaintenanceState(store)
        connect = store.connect

        def connect_slowly(*, listen: bool = False, limit: float | None = None) -> Any:
            self.begun.set()
            assert self.go_on.wait(10)
            return connect(listen=listen)

        store.connect = connect_slowly  # type: ignore[method-assign]

    async def let_go(self, scope: anyio.CancelScope, *, cancel: bool) -> None:
        """Let the write end, once the loop has run for a while."""
        while not self.begun.is_set():
            await anyio.lowlevel.checkpoint()
        if cancel:
            scope.cancel()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert not self.state.lease.known.site.enabled
        self.go_on.set()


@pytest.mark.parametrize("cancel", [False, True])
@BACKENDS
def test_an_async_flip_blocks_no_loop_and_a_cancelled_one_ends_after_the_write(backend: str, *, cancel: bool) -> None:
    write, returned = SlowWrite(), []

    async def main() -> bool:
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(functools.partial(write.let_go, scope, cancel=cancel))
                returned.append(await aset_maintenance(True, message="hi", state=write.state))
            assert write.go_on.is_set(), "it has waited for the write"
        return scope.cancel_called

    assert anyio.run(main, backend=backend) is cancel
    assert write.state.lease.known.site.message == "hi"
    assert cancel or returned[0].enabled


@BACKENDS
def test_an_async_flip_raises_the_errors_of_a_flip(backend: str) -> None:
    store = FaultyStore()
    store.away()

    async def main() -> None:
        with pytest.raises(StoreError, match="away"):
            await aset_maintenance(True, state=MaintenanceState(store))
        with pytest.raises(TypeError, match="enabled is 1"):
            await aset_maintenance(1, state=MaintenanceState(store))  # type: ignore[arg-type]

    anyio.run(main, backend=backend)


@BACKENDS
def test_an_async_proof_is_proven(backend: str) -> None:
    state = MaintenanceState(MemoryStore(), register=False)
    seen: list[Any] = []

    async def main() -> Any:
        snapshot = await aset_maintenance(True, state=state)
        snapshot = await aupdate_maintenance(message="Back at noon", state=state)
        assert (snapshot.enabled, snapshot.message) == (True, "Back at noon")
        return await state.aprove(snapshot, progress=seen.append)

    assert anyio.run(main, backend=backend)
    assert len(seen) == 1
    assert seen[0].proven


@BACKENDS
def test_an_async_proof_that_is_cancelled_stops_asking(backend: str) -> None:
    store = FaultyStore()
    state = MaintenanceState(store, register=False)
    looks: list[Any] = []

    async def main() -> None:
        snapshot = await aset_maintenance(True, state=state)
        token = anyio.lowlevel.current_token()
        with anyio.CancelScope() as scope:

            def look(proof: Any) -> None:
                looks.append(proof)
                anyio.from_thread.run_sync(scope.cancel, token=token)

            await state.aprove(snapshot, expect=99, progress=look)
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    eventually(lambda: store.open == 0, what="the end of the wait in its thread")
    assert len(looks) == 1


@BACKENDS
def test_no_event_loop_builds_the_default_state(
    backend: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    built: list[int] = []
    original = PostgresStore.__init__

    def build(self: PostgresStore, *args: Any, **options: Any) -> None:
        built.append(threading.get_ident())
        original(self, *args, **options)

    monkeypatch.setattr(PostgresStore, "__init__", build)
    app = ASGIMiddleware(asgi)

    async def main() -> tuple[int, int]:
        return (await acall_asgi(app)).status, threading.get_ident()

    status, loop = anyio.run(main, backend=backend)
    assert status == 200
    assert len(built) == 1
    assert built[0] != loop
    assert app._admission._state is api.current_state()


def test_the_second_thread_gets_the_state_that_the_first_has_built(monkeypatch: pytest.MonkeyPatch) -> None:
    first = MaintenanceState(MemoryStore())

    class Taken:
        """The lock. The first thread had it while it built the state."""

        def __enter__(self) -> None:
            api._state = first

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(api, "_lock", Taken)
    assert api.default_state() is first


def test_a_child_waits_for_no_lock_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", "memory://")
    monkeypatch.setattr(api, "_state", None)
    child = os.getpid() + 1
    with api._lock():
        monkeypatch.setattr(os, "getpid", lambda: child)
        assert api.default_state().store.name == "memory://"


def test_a_child_that_has_its_parents_pid_builds_a_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pid namespace of its own. The thread that has the lock is not in the child."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with api._lock():
        child = os.fork()
        if child == 0:
            os._exit(0 if api._lock().acquire(blocking=False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


GREEN = """
import faulthandler
from maintenance.process import api

class Slow:
    name = "slow"
    def connect(self, **_): raise AssertionError
    def __init__(self): gevent.sleep(0.1)  # as a driver that is loaded

from gevent import monkey
monkey.patch_all()
import gevent

api.open_named = lambda *_: Slow()
faulthandler.dump_traceback_later(20, exit=True)
built = [gevent.spawn(api.default_state) for _ in range(3)]
gevent.joinall(built, raise_error=True)
assert len({id(one.value) for one in built}) == 1
"""


def test_green_threads_that_ask_at_once_share_one_state() -> None:
    """As under gunicorn's gevent worker with --preload, which patches after the app was imported."""
    environment = {**os.environ, "MAINTENANCE_DATABASE_URL": "memory://"}
    subprocess.run([sys.executable, "-c", GREEN], env=environment, timeout=60, check=True)

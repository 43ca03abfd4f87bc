"""The process's default state: where it comes from, and when."""

import datetime as dt
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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
    ("make", "ask"),
    [(lambda: WSGIMiddleware(wsgi), call_wsgi), (lambda: ASGIMiddleware(asgi), call_asgi)],
    ids=["wsgi", "asgi"],
)


def ask_wsgi() -> int:
    return call_wsgi(WSGIMiddleware(wsgi)).status


def ask_asgi() -> int:
    return call_asgi(ASGIMiddleware(asgi)).status


@pytest.mark.parametrize(
    "ask",
    [ask_wsgi, ask_asgi, maintenance_enabled, lambda: set_maintenance(True), maintenance.fleet],
    ids=["wsgi", "asgi", "enabled", "set", "fleet"],
)
def test_without_a_url_it_says_which_variables_to_set(ask: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError, match="set MAINTENANCE_DATABASE_URL or DATABASE_URL, or use init_maint"):
        ask()


@pytest.mark.parametrize(
    ("variable", "more"),
    [("MAINTENANCE_DATABASE_URL", ""), ("DATABASE_URL", "; or keep it for the app, and set MAINTENANCE_DATABASE_URL")],
)
@pytest.mark.parametrize("ask", [init_maintenance, maintenance_enabled], ids=["init", "enabled"])
def test_a_wrong_url_is_told_with_the_variable_that_it_stands_in(
    variable: str, more: str, ask: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "postgresql+asyncpg://me:hunter2@h/d")
    with pytest.raises(ConfigurationError) as caught:
        ask()
    told = f"{variable}: the database URL begins with postgresql+asyncpg://: use postgresql:// instead{more}"
    assert str(caught.value) == told


@pytest.mark.parametrize("ask", [maintenance.fleet, functools.partial(set_maintenance, True)], ids=["fleet", "set"])
@pytest.mark.parametrize("wrong", ["memory://", False, MaintenanceState], ids=str)
def test_what_is_no_state_is_refused(ask: Callable[..., Any], wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"state is of type {type(wrong).__name__}: use"):
        ask(state=wrong)


def test_without_a_url_nothing_is_initialised() -> None:
    with pytest.raises(ConfigurationError, match="MAINTENANCE_DATABASE_URL or DATABASE_URL"):
        init_maintenance()
    assert api.current_state() is None


def test_the_own_variable_comes_before_the_platform_s(
    migrated_url: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    assert init_maintenance().store.name.startswith("sqlite")
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", f" {migrated_url} ")
    assert init_maintenance().store.name.startswith("postgresql")
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", "")
    assert init_maintenance().store.name.startswith("sqlite")


@ADAPTERS
def test_wrapping_before_the_state_is_there_is_well(make: Callable[[], Any], ask: Any) -> None:
    app = make()
    init_maintenance("memory://")
    assert ask(app).status == 200
    set_maintenance(True)
    assert maintenance_enabled()
    assert ask(app).status == 503


def test_what_is_exempt_passes_without_any_state() -> None:
    assert call_wsgi(WSGIMiddleware(wsgi), "/health").status == 200
    assert call_asgi(ASGIMiddleware(asgi), "/health").status == 200


@ADAPTERS
def test_a_second_init_replaces_the_first_for_apps_that_are_wrapped_already(make: Callable[[], Any], ask: Any) -> None:
    app = make()
    first = init_maintenance("memory://")
    set_maintenance(True)
    assert ask(app).status == 503
    second = init_maintenance("memory://", ttl=3.0)
    assert (first.closed, second.closed) == (True, False)
    assert ask(app).status == 200
    assert api.current_state() is second
    set_maintenance(True)
    assert ask(app).status == 503


def test_a_state_that_was_closed_stays_so_whatever_the_environment_names(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = WSGIMiddleware(wsgi)
    init_maintenance("memory://").close()
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    assert call_wsgi(app).status == 503
    assert maintenance_enabled()


def test_a_second_init_that_is_wrong_leaves_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first = init_maintenance("memory://")
    with pytest.raises(ConfigurationError, match="ttl is 0"):
        init_maintenance("memory://", ttl=0)
    assert api.current_state() is first
    assert not first.closed


def test_init_reads_once_and_goes_on_where_the_store_is_away() -> None:
    store = FaultyStore()
    MaintenanceState(store).set(True)
    assert init_maintenance(store).lease.known.enabled
    store.away()
    assert init_maintenance(store).lease.known.source == "default"


def test_threads_that_ask_first_at_once_share_one_state(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    together, found = threading.Barrier(8), []

    def ask() -> None:
        together.wait()
        found.append(api.default_state())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_all_that_is_said_of_a_flip_is_written() -> None:
    init_maintenance(MemoryStore())
    by, until = UUID(int=7), dt.datetime(2031, 5, 1, tzinfo=dt.UTC)
    said = {"message": "m", "until": until, "retry_after": 9, "mode": "read_only", "actor": "me", "reason": "r"}
    told = set_maintenance(True, updated_by=by, **said)  # type: ignore[arg-type]
    assert {name: getattr(told, name) for name in said} == said
    assert (told.enabled, told.updated_by) == (True, by)


def test_another_state_may_be_named() -> None:
    other = MaintenanceState(MemoryStore())
    assert set_maintenance(True, mode="read_only", actor="me", state=other).mode == "read_only"
    assert maintenance.fleet(other).reading.row is not None
    assert other.refresh().actor == "me"
    assert api.current_state() is None


# aset_maintenance and aprove

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Answer:
    """A store whose writes last until they are let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.store = FaultyStore()
        self.store.back()
        self.state = MaintenanceState(self.store)
        connect = self.store.connect

        def slow(*, listen: bool = False) -> Any:
            self.begun.set()
            assert self.go_on.wait(10)
            return connect(listen=listen)

        self.store.connect = slow  # type: ignore[method-assign]


@BACKENDS
def test_an_async_flip_never_blocks_the_loop(backend: str) -> None:
    held, beats = Answer(), []

    async def beat() -> None:
        while not held.begun.is_set():
            await anyio.lowlevel.checkpoint()
        beats.extend([await anyio.lowlevel.checkpoint() for _ in range(50)])
        held.go_on.set()

    async def main() -> Any:
        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            return await aset_maintenance(True, message="hi", state=held.state)

    told = anyio.run(main, backend=backend)
    assert len(beats) == 50
    assert (told.enabled, held.state.lease.known.message) == (True, "hi")


@BACKENDS
def test_an_async_flip_that_is_cancelled_ends_once_the_write_has(backend: str) -> None:
    held, over = Answer(), []

    async def cancel(scope: anyio.CancelScope) -> None:
        while not held.begun.is_set():
            await anyio.lowlevel.checkpoint()
        scope.cancel()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert not over
        held.go_on.set()

    async def main() -> bool:
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(cancel, scope)
                await aset_maintenance(True, state=held.state)
            over.append(scope)
        return scope.cancel_called

    assert anyio.run(main, backend=backend)
    assert held.state.lease.known.enabled


@BACKENDS
def test_an_async_flip_raises_what_a_flip_raises(backend: str) -> None:
    store = FaultyStore()
    store.away()

    async def main() -> None:
        with pytest.raises(StoreError, match="away"):
            await aset_maintenance(True, state=MaintenanceState(store))
        with pytest.raises(TypeError, match="enabled is 1"):
            await aset_maintenance(1, state=MaintenanceState(store))  # type: ignore[arg-type]

    anyio.run(main, backend=backend)


@BACKENDS
def test_an_async_proof_is_one(backend: str) -> None:
    state = MaintenanceState(MemoryStore(), register=False)
    seen: list[Any] = []

    async def main() -> Any:
        return await state.aprove(await aset_maintenance(True, state=state), progress=seen.append)

    assert anyio.run(main, backend=backend)
    assert len(seen) == 1
    assert seen[0].proven


@BACKENDS
def test_an_async_proof_that_is_cancelled_stops_asking(backend: str) -> None:
    store = FaultyStore()
    state = MaintenanceState(store, register=False)
    looks: list[Any] = []

    async def main() -> None:
        told = await aset_maintenance(True, state=state)
        with anyio.CancelScope() as scope:

            def look(proof: Any) -> None:
                looks.append(proof)
                anyio.from_thread.run_sync(scope.cancel)

            await state.aprove(told, expect=99, progress=look)
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
    assert app._admission._state is api.current_state()  # and from now on it is followed without asking again


def test_whoever_comes_second_gets_what_the_first_has_built(monkeypatch: pytest.MonkeyPatch) -> None:
    first = MaintenanceState(MemoryStore())

    class Taken:
        """The lock, which the first one held for as long as it was building."""

        def __enter__(self) -> None:
            api._state = first

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(api, "_lock", Taken)
    assert api.default_state() is first


def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", "memory://")
    monkeypatch.setattr(api, "_state", None)
    child = os.getpid() + 1
    with api._lock():
        monkeypatch.setattr(os, "getpid", lambda: child)
        assert api.default_state().store.name == "memory://"


def test_a_child_that_has_its_parents_pid_builds_a_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pid namespace of its own; the thread that was at it is not there to let go."""
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
    def __init__(self): gevent.sleep(0.1)  # as a driver that is loaded, and calls a program

from gevent import monkey
monkey.patch_all()
import gevent

api.open_named = lambda *_: Slow()
faulthandler.dump_traceback_later(20, exit=True)
built = [gevent.spawn(api.default_state) for _ in range(3)]
gevent.joinall(built, raise_error=True)
assert len({id(one.value) for one in built}) == 1
"""


def test_green_threads_that_ask_at_once_let_the_first_one_build() -> None:
    """As under gunicorn's gevent worker with --preload, which patches after the app was imported."""
    environment = {**os.environ, "MAINTENANCE_DATABASE_URL": "memory://"}
    subprocess.run([sys.executable, "-c", GREEN], env=environment, timeout=60, check=True)

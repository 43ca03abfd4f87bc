"""The places where faults happen: servers, networks and files, each with two databases."""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from maintenance.stores import PostgresStore, SQLiteStore
from tests.docs.pages import marked
from tests.faults.fault import Case, Lab, Place, set_flag, update_flag
from tests.support.pgbouncer import PoolMode, pgbouncer
from tests.support.postgres import Server, database, installations, private_folder, server, standby_of
from tests.support.relay import Relay
from tests.support.sql import change_port, run_sql

ROLE: Final = "shop_app"
"""The processes' role, with the documented grants."""


def grant(case: Case) -> None:
    case.sql(marked("docs/reference/sql.md", "grants: serve"))


@contextmanager
def _database(on: Server, *, flag: bool) -> Iterator[Case]:
    with database(on) as admin:
        PostgresStore(admin).migrate()
        url = re.sub("//[^@]*@", f"//{ROLE}:{on.password}@", admin)
        case = Case(on=flag, url=url, admin=admin)
        grant(case)
        if flag:
            update_flag(case, on=True)
        yield case


def _make_role(on: Server) -> None:
    if not run_sql(on.url(), f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'"):
        run_sql(on.url(), f"CREATE ROLE {ROLE} LOGIN PASSWORD '{on.password}'")


@contextmanager
def _place(on: Server) -> Iterator[Place]:
    _make_role(on)
    with ExitStack() as outer:
        cases = tuple(outer.enter_context(_database(on, flag=flag)) for flag in (False, True))
        with ExitStack() as stack:
            try:
                yield Place(cases, stack, server=on)
            finally:
                on.thaw()
                if not on.running:
                    on.start()


def direct(lab: Lab) -> contextlib.AbstractContextManager[Place]:
    """The shared server."""
    return _place(lab.server)


@contextmanager
def relayed(lab: Lab) -> Iterator[Place]:
    """The same, behind a network that can break."""
    with direct(lab) as place, Relay(lab.server.port) as relay:
        for case in place.cases:
            case.url = change_port(case.url, relay.port)
        place.relay = relay
        yield place


def pooled(mode: PoolMode) -> Callable[[Lab], contextlib.AbstractContextManager[Place]]:
    """The same, behind PgBouncer."""

    @contextmanager
    def make(lab: Lab) -> Iterator[Place]:
        with direct(lab) as place, pgbouncer(lab.server, mode=mode, user=ROLE) as bouncer:
            for case in place.cases:
                case.url = change_port(case.url, bouncer.port)
            place.tools["pgbouncer"] = bouncer
            yield place

    return make


@contextmanager
def replicated(_: Lab) -> Iterator[Place]:
    """A server of its own and its standby. The URL names both."""
    with (
        server(synchronous_commit="on") as primary,
        _place(primary) as place,
        standby_of(primary) as standby,
    ):
        for case in place.cases:
            both = f"@{primary.host}:{primary.port},{standby.host}:{standby.port}/"
            case.url = re.sub("@[^/]*/", both, case.url)
        place.tools["standby"] = standby
        yield place


@contextmanager
def moving(_: Lab) -> Iterator[Place]:
    """A server of its own and its standby, behind one address that leads to either."""
    with (
        server(synchronous_commit="on") as primary,
        _place(primary) as place,
        standby_of(primary) as standby,
        Relay(primary.port) as relay,
    ):
        for case in place.cases:
            case.url = change_port(case.url, relay.port)
        place.relay, place.tools["standby"] = relay, standby
        yield place


class _Clocked(Server):
    """A server whose wall clock can be moved."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._more = environment
        super().__init__(installations()[0], folder, {"synchronous_commit": "on"})

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._more}


@contextmanager
def clocked(_: Lab) -> Iterator[Place]:
    """A server of its own and processes whose wall clocks can be moved."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    with private_folder() as folder:
        library, clocks = folder / "wall_clock.so", {"server": folder / "server", "processes": folder / "processes"}
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        for clock in clocks.values():
            clock.write_bytes(bytes(8))
            clock.chmod(0o644)
        environment = {who: {"LD_PRELOAD": str(library), "WALL_CLOCK": str(clock)} for who, clock in clocks.items()}
        (folder / "cluster").mkdir()
        shutil.chown(folder / "cluster", folder.stat().st_uid, folder.stat().st_gid)
        own = _Clocked(folder / "cluster", environment["server"])
        try:
            own.start()
            with _place(own) as place:
                place.environment, place.tools["clocks"] = environment["processes"], clocks
                yield place
        finally:
            own.stop()


@contextmanager
def sqlite(_: Lab) -> Iterator[Place]:
    """Two files."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="maintenance-sqlite-") as name, ExitStack() as stack:
        cases = tuple(_file(Path(name), flag=flag) for flag in (False, True))
        yield Place(cases, stack, tools={"folder": Path(name)})


@contextmanager
def sqlite_of_nobody(lab: Lab) -> Iterator[Place]:
    """Two files, and processes that are not root's, because root may write everywhere."""
    with sqlite(lab) as place:
        if os.geteuid() == 0:
            place.user = pwd.getpwnam("nobody").pw_uid
            for path in (place.tools["folder"], *place.tools["folder"].iterdir()):
                os.chown(path, place.user, place.user)
        yield place


def _file(folder: Path, *, flag: bool) -> Case:
    url = f"sqlite:///{folder / ('on.db' if flag else 'off.db')}"
    SQLiteStore(url).migrate()
    case = Case(on=flag, url=url, admin=url)
    if flag:
        set_flag(case, on=True)
    return case


def path_of(case: Case) -> Path:
    return Path(case.admin.removeprefix("sqlite:///"))

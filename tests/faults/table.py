"""The table of faults."""

import contextlib
import functools
import os
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import psycopg
import pytest

from maintenance.stores.migrations import migrations
from tests.faults.fault import OFF, ON, Effect, Fault, Place, set_flag
from tests.faults.places import (
    ROLE,
    clocked,
    direct,
    grant,
    moving,
    path_of,
    pooled,
    relayed,
    replicated,
    sqlite,
    sqlite_of_nobody,
)
from tests.faults.runner import SLOTS
from tests.support.postgres import installations
from tests.support.sql import change_port, run_sql

Act = Callable[[Place], object]

TERMINATE: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'maintenance'"


def _sql(*statements: str) -> Act:
    return lambda place: place.sql(*statements)


def _again_and_again(place: Place, act: Callable[[], object], pause: float = 0.0) -> None:
    """Repeat an act in a thread until the fault ends."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(pause):
            act()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    place.stack.callback(thread.join, 10)
    place.stack.callback(over.set)


# The server


def _terminate_often(place: Place) -> None:
    connection = place.stack.enter_context(psycopg.connect(place.server.url(), autocommit=True))
    _again_and_again(place, lambda: connection.execute(TERMINATE), 0.1)


def _take_all_slots(place: Place) -> None:
    """Take the connections of the processes as well, as an app that leaks them does."""
    # It takes one of the slots, and must keep it.
    admin = place.stack.enter_context(psycopg.connect(place.server.url(), autocommit=True))
    leaks: list[object] = []
    while len(leaks) < SLOTS - 1:
        with contextlib.suppress(psycopg.OperationalError):
            leaks.append(place.stack.enter_context(psycopg.connect(place.cases[0].url)))
        admin.execute(TERMINATE)


def _promote(place: Place) -> None:
    standby = place.tools["standby"]
    run_sql(standby.url(), "SELECT pg_promote()")
    for case in place.cases:
        case.admin = change_port(case.admin, standby.port)


SERVER: Final = (
    Fault(
        group="The server",
        name="The server is killed",
        place=direct,
        begin=lambda place: place.server.kill(),
        end=lambda place: place.server.start(),
        when="after",
        quick=True,
    ),
    Fault(
        group="The server",
        name="The server is stopped",
        place=direct,
        begin=lambda place: place.server.stop(),
        end=lambda place: place.server.start(),
        when="after",
    ),
    Fault(
        group="The server",
        name="The server is restarted",
        place=direct,
        begin=lambda place: place.server.restart(),
        effect=Effect.SHORT,
    ),
    Fault(
        group="The server",
        name="The server is frozen",
        place=direct,
        begin=lambda place: place.server.freeze(),
        end=lambda place: place.server.thaw(),
        when="after",
        quick=True,
    ),
    Fault(
        group="The server",
        name="The connections are terminated every 0.1 s",
        place=direct,
        begin=_terminate_often,
        effect=Effect.SHORT,
    ),
    Fault(
        group="The server",
        name="All connection slots are taken",
        place=direct,
        begin=_take_all_slots,
    ),
    Fault(
        group="The server",
        name="The server fails, and its standby is promoted",
        place=replicated,
        begin=lambda place: place.server.kill(),
        end=_promote,
        when="after",
    ),
    Fault(
        group="The server",
        name="The address leads to a standby",
        place=moving,
        begin=lambda place: place.relay.lead_to(place.tools["standby"].port),
        end=lambda place: place.relay.lead_to(place.server.port),
        effect=Effect.LEARNS,
        quick=True,
    ),
)


# The network

NETWORK: Final = (
    Fault(
        group="The network",
        name="The network drops all packets",
        place=relayed,
        begin=lambda place: place.relay.cut(),
        end=lambda place: place.relay.pass_(),
        quick=True,
    ),
    Fault(
        group="The network",
        name="The network refuses connections",
        place=relayed,
        begin=lambda place: place.relay.refuse(),
        end=lambda place: place.relay.pass_(),
        quick=True,
    ),
    *(
        Fault(
            group="The network",
            name=f"PgBouncer, pooling by {mode}, is killed",
            place=pooled(mode),  # type: ignore[arg-type]
            begin=lambda place: place.tools["pgbouncer"].kill(),
            end=lambda place: place.tools["pgbouncer"].start(),
        )
        for mode in ("session", "transaction", "statement")
    ),
)


# The tables


def _lock(place: Place) -> None:
    for case in place.cases:
        connection = place.stack.enter_context(psycopg.connect(case.admin))
        connection.execute("LOCK TABLE platform_settings IN ACCESS EXCLUSIVE MODE")


def _migrate(place: Place) -> None:
    """Create what is missing, with the value that the flag had."""
    for case in place.cases:
        with psycopg.connect(case.admin) as connection:
            for _, text in migrations():
                connection.execute(text.encode())
            connection.execute(f"UPDATE platform_settings SET {ON if case.on else OFF}".encode())
        grant(case)


def _bring_back_row(place: Place) -> None:
    for case in place.cases:
        set_flag(case, on=case.on)


def _client(program: str) -> Path:
    found = [it.folder / program for it in installations() if (it.folder / program).exists()]
    if not found:
        pytest.skip(f"this PostgreSQL has no {program}")
    return found[0]


def _dump(place: Place) -> None:
    for case in place.cases:
        set_flag(case, on=not case.on)
        command = [_client("pg_dump"), "--clean", "--if-exists", case.admin]
        place.tools[case.admin] = subprocess.run(command, capture_output=True, check=True).stdout
        set_flag(case, on=case.on)


def _restore(place: Place) -> None:
    for case in place.cases:
        command = [_client("psql"), "--quiet", "--set=ON_ERROR_STOP=1", case.admin]
        subprocess.run(command, input=place.tools[case.admin], capture_output=True, check=True)


GARBAGE: Final = """UPDATE platform_settings SET value_text = repeat(E'\\x01', 9999), details = '[{"mode": 3}, null]',
description = repeat('?', 99999), updated_at = 'infinity', updated_by = '00000000-0000-0000-0000-000000000000',
revision = -5"""
NEWER: Final = """UPDATE platform_settings SET details =
'{"schema": 9, "mode": "sunset", "message": {"form": 2}, "until": {"in": "P1D"}, "quota": [1, {"unit": "s"}]}'"""

TABLES: Final = (
    Fault(group="The tables", name="The table is locked", place=direct, begin=_lock, when="after", quick=True),
    Fault(
        group="The tables",
        name="The table is renamed",
        place=direct,
        begin=_sql("ALTER TABLE platform_settings RENAME TO renamed"),
        end=_sql("ALTER TABLE renamed RENAME TO platform_settings"),
        when="after",
    ),
    Fault(
        group="The tables",
        name="The table is dropped",
        place=direct,
        begin=_sql("DROP TABLE platform_settings CASCADE"),
        end=_migrate,
        when="after",
    ),
    Fault(
        group="The tables",
        name="A column is missing",
        place=direct,
        begin=_sql("ALTER TABLE platform_settings DROP COLUMN details CASCADE"),
        end=_migrate,
        when="after",
    ),
    Fault(
        group="The tables",
        name="The row is deleted",
        place=direct,
        begin=_sql("DELETE FROM platform_settings"),
        end=_bring_back_row,
        when="after",
    ),
    Fault(
        group="The tables",
        name="The value is NULL",
        place=direct,
        begin=_sql("UPDATE platform_settings SET value_bool = NULL"),
        end=_bring_back_row,
        when="after",
    ),
    Fault(
        group="The tables",
        name="All other columns hold garbage",
        place=direct,
        begin=_sql(GARBAGE),
        effect=Effect.FOLLOWS,
    ),
    Fault(
        group="The tables",
        name="A newer version has written the row",
        place=direct,
        begin=_sql("ALTER TABLE platform_settings ADD COLUMN weight int NOT NULL DEFAULT 7", NEWER),
        effect=Effect.FOLLOWS,
    ),
    Fault(
        group="The tables",
        name="The role may not write",
        place=direct,
        begin=_sql(f"REVOKE INSERT, UPDATE, DELETE ON platform_settings, maintenance_instances FROM {ROLE}"),
        end=lambda place: [grant(case) for case in place.cases],
        effect=Effect.FOLLOWS,
    ),
    Fault(
        group="The tables",
        name="The role may not read",
        place=direct,
        begin=_sql(f"REVOKE SELECT ON platform_settings FROM {ROLE}"),
        end=lambda place: [grant(case) for case in place.cases],
    ),
    Fault(
        group="The tables",
        name="The database is read-only",
        place=direct,
        begin=_sql(
            'ALTER DATABASE "{name}" SET default_transaction_read_only = on',
            f"{TERMINATE} AND datname = current_database()",
        ),
        end=_sql(
            "SET default_transaction_read_only = off",
            'ALTER DATABASE "{name}" RESET default_transaction_read_only',
            f"{TERMINATE} AND datname = current_database()",
        ),
        flip=lambda case, *, on: case.sql(
            "SET default_transaction_read_only = off",
            f"UPDATE platform_settings SET {ON if on else OFF}",
        ),
        effect=Effect.FOLLOWS,
    ),
    Fault(
        group="The tables",
        name="A dump is restored that is older than the flip",
        place=direct,
        prepare=_dump,
        begin=_restore,
        end=lambda place: None,
        effect=Effect.SHORT,
        flip=set_flag,
        values=(True,),
    ),
)


# Other clients


def _loop(*statements: str) -> Act:
    """Run statements as fast as the server can, over one connection to each database."""
    sql = "DO $$ BEGIN LOOP {} COMMIT; END LOOP; END $$".format(" ".join(f"{it};" for it in statements))

    def begin(place: Place) -> None:
        for case in place.cases:
            connection = place.stack.enter_context(psycopg.connect(case.admin, autocommit=True))
            thread = threading.Thread(target=_run_until_cancelled, args=(connection, sql), daemon=True)
            thread.start()
            place.stack.callback(thread.join, 10)
            place.stack.callback(connection.cancel_safe)

    return begin


def _run_until_cancelled(connection: psycopg.Connection, sql: str) -> None:
    with contextlib.suppress(psycopg.errors.QueryCanceled):
        connection.execute(sql.encode())


CLIENTS: Final = (
    Fault(
        group="Other clients",
        name="Another client sends notifications as fast as it can",
        place=direct,
        begin=_loop("PERFORM pg_notify('platform_settings', 'maintenance_mode')"),
        effect=Effect.FOLLOWS,
    ),
    Fault(
        group="Other clients",
        name="Another client changes the flag's end and flips a scope as fast as it can",
        place=direct,
        prepare=_sql("INSERT INTO platform_settings (key, value_bool) VALUES ('maintenance_mode:other', false)"),
        begin=_loop(
            "UPDATE platform_settings SET details = details || jsonb_build_object('until', now() + interval '1 day') "
            "WHERE key = 'maintenance_mode' AND value_bool",
            "UPDATE platform_settings SET value_bool = NOT value_bool WHERE key = 'maintenance_mode:other'",
        ),
        effect=Effect.FOLLOWS,
    ),
)


# The processes


def _signal(number: int) -> Act:
    return lambda place: [os.kill(pid, number) for pid in place.pids]


def _set_clock(who: str, seconds: int) -> Act:
    return lambda place: place.tools["clocks"][who].write_bytes(struct.pack("l", seconds))


PROCESSES: Final = (
    Fault(
        group="The processes",
        name="The processes are frozen",
        place=direct,
        begin=_signal(signal.SIGSTOP),
        end=_signal(signal.SIGCONT),
        effect=Effect.SHORT,
    ),
    Fault(
        group="The processes",
        name="The processes fork every 0.1 s",
        place=direct,
        begin=lambda place: place.tell("fork"),
        end=lambda place: place.tell("no fork"),
        effect=Effect.FOLLOWS,
    ),
    *(
        Fault(
            group="The processes",
            name=f"The wall clock of the {who} is set {way} by 1 h",
            place=clocked,
            begin=_set_clock(who, seconds),
            end=_set_clock(who, 0),
            effect=Effect.FOLLOWS,
        )
        for who in ("server", "processes")
        for way, seconds in (("forward", 3600), ("back", -3600))
    ),
)


# SQLite


def _each_file(act: Callable[[Path], object]) -> Act:
    return lambda place: [act(path_of(case)) for case in place.cases]


def _lock_files(place: Place) -> None:
    for case in place.cases:
        connection = place.stack.enter_context(closing(sqlite3.connect(path_of(case), isolation_level=None)))
        connection.execute("BEGIN EXCLUSIVE")


def _forbid_writing(place: Place) -> None:
    folder = place.tools["folder"]
    place.stack.callback(folder.chmod, 0o755)
    folder.chmod(0o555)
    for case in place.cases:
        place.stack.callback(path_of(case).chmod, 0o644)
        path_of(case).chmod(0o444)


def _limit_files(place: Place) -> None:
    """Let the processes write nothing more, as a full disk does. Other processes still can."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for pid in place.pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
        place.stack.callback(_lift_limit, pid, most)


def _lift_limit(pid: int, most: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def _keep(path: Path) -> Path:
    return path.with_suffix(".kept")


def _break_file(break_: Callable[[Path], object]) -> Act:
    def begin(path: Path) -> None:
        _keep(path).write_bytes(path.read_bytes())
        break_(path)

    return _each_file(begin)


def _bring_back(path: Path) -> None:
    if path.exists():
        path.write_bytes(_keep(path).read_bytes())
    else:
        _keep(path).rename(path)


WRITER: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("PRAGMA cache_spill = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("CREATE TABLE filler (content)")
connection.execute("UPDATE platform_settings SET value_bool = NOT value_bool")
for _ in range(200):
    connection.execute("INSERT INTO filler VALUES (randomblob(4000))")
print("written", flush=True)
sys.stdin.read()
"""


def _kill_a_writer(path: Path) -> None:
    """End a process in the middle of a transaction that has begun to write into the file."""
    size = path.stat().st_size
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
    assert path.stat().st_size > size
    assert path.with_name(f"{path.name}-journal").exists()


_in_sqlite: Final = functools.partial(Fault, group="SQLite", place=sqlite, flip=set_flag)

SQLITE: Final = (
    _in_sqlite(name="The file is locked", begin=_lock_files, when="after", quick=True),
    _in_sqlite(
        name="The file and its folder are read-only",
        place=sqlite_of_nobody,
        begin=_forbid_writing,
        effect=Effect.FOLLOWS,
    ),
    _in_sqlite(name="The disk is full", begin=_limit_files, effect=Effect.FOLLOWS),
    _in_sqlite(
        name="The file is deleted",
        begin=_break_file(lambda path: path.unlink()),
        end=_each_file(_bring_back),
        when="after",
    ),
    _in_sqlite(
        name="Half of the file is lost",
        begin=_break_file(lambda path: os.truncate(path, path.stat().st_size // 2)),
        end=_each_file(_bring_back),
        when="after",
    ),
    _in_sqlite(
        name="The file is full of garbage",
        begin=_break_file(lambda path: path.write_bytes(os.urandom(path.stat().st_size))),
        end=_each_file(_bring_back),
        when="after",
    ),
    _in_sqlite(
        name="A process is killed in the middle of a write", begin=_each_file(_kill_a_writer), effect=Effect.SHORT
    ),
)

FAULTS: Final = (*SERVER, *NETWORK, *TABLES, *CLIENTS, *PROCESSES, *SQLITE)

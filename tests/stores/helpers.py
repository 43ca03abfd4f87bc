"""Instances, SQL by hand, forked children and threads, for the tests of every store."""

import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import psycopg

from maintenance.base.instances import Instance
from maintenance.base.values import Change, Details, Row, Snapshot
from maintenance.stores import Session

ON = Change(enabled=True, details=Details())
OFF = Change(enabled=False, details=Details())
LONG = 10.0
"""Seconds for a wait that something else shall end; far above what that takes."""


def instance(**changed: Any) -> Instance:
    """A whole report of one process."""
    values = {"id": uuid4().hex, "host": "web-1", "boot": "b/1", "pid": 17, "program": "gunicorn", "version": "1.0"}
    return Instance(**{**values, "when_stale": "block", "ttl": 10.0, **changed})


def read(session: Session) -> Row:
    row = session.read().row
    assert row is not None
    return row


def snapshot(session: Session) -> Snapshot:
    return session.read().snapshot(read_at=0.0)


def flip(session: Session, change: Change = ON) -> int:
    """Write a change; return its revision."""
    return session.write(change).row.snapshot(read_at=0.0).revision


def path_of(url: str) -> str:
    return unquote(url.removeprefix("sqlite:///"))


def run_sql(url: str, sql: str) -> None:
    """Do what an operator does in psql or in the sqlite3 shell."""
    opened = (
        sqlite3.connect(path_of(url), timeout=5.0, isolation_level=None)
        if url.startswith("sqlite")
        else psycopg.connect(url, autocommit=True)
    )
    with closing(opened) as connection:
        connection.execute(sql)


def in_child(action: Callable[[], object]) -> int:
    """Fork, and run `action` in the child, which ends there; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        action()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def succeeded(*pids: int) -> bool:
    """Wait for forked children; whether each one's action returned. One that hangs is ended, and has not."""
    return [_status(pid) for pid in pids] == [0] * len(pids)


def _status(pid: int) -> int:
    deadline = time.monotonic() + LONG
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.005)


@contextmanager
def in_thread(action: Callable[[], object]) -> Iterator[list[BaseException | object]]:
    """Run `action` beside the block; what it returned or raised is in the list afterwards."""
    results: list[BaseException | object] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            results.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield results
    finally:
        thread.join(LONG)
        assert not thread.is_alive()

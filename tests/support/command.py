"""The command line: as a process of its own, or in this one, with an output that acts on what it reads."""

import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from maintenance import MaintenanceState
from maintenance.base.instances import Instance
from maintenance.stores import Store
from tests.support.waiting import eventually

COMMAND = (sys.executable, "-m", "maintenance")


def run(*arguments: str, env: Mapping[str, str] = {}, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        arguments: Without the program's name.
        env: Over this process's own environment.
        timeout: Seconds.
    """
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_as_main(name: str, *, as_name: str = "__main__") -> None:
    """Run a module in this process, as ``python -m`` does, or under another name.

    `runpy` cannot: pytest loads a package that has a plugin in a way of its own.
    """
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    code = compile(Path(spec.origin).read_text(encoding="utf-8"), spec.origin, "exec")
    exec(code, {"__name__": as_name, "__spec__": spec, "__file__": spec.origin})


@contextmanager
def start(*arguments: str, env: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    """A command whose output is read while it runs. It is killed if it has not ended by the end of the block."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a test can press Ctrl-C as a terminal does: for the whole group
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a command prints, up to the line that holds a text.

    Raises:
        AssertionError: It ended without it.
    """
    read = ""
    for line in process.stdout or ():
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} is not in {read!r}; on stderr: {process.stderr and process.stderr.read()!r}")


class Acting(io.StringIO):
    """An output that calls a function once, when it first reads a text."""

    def __init__(self, actions: Mapping[str, Callable[[], object]]) -> None:
        super().__init__()
        self._actions = dict(actions)

    def write(self, text: str) -> int:
        written = super().write(text)
        for sign in [sign for sign in self._actions if sign in self.getvalue()]:
            self._actions.pop(sign)()
        return written


def instance(**given: object) -> Instance:
    """A process on another host, which serves when stale, and has acknowledged nothing."""
    usual = Instance(
        id=uuid4().hex, host="web-1", boot="another", pid=4242, program="gunicorn", version="0.1.0",
        when_stale="serve", ttl=10.0,
    )  # fmt: skip
    return replace(usual, **given)  # type: ignore[arg-type]


def register(store: Store, *instances: Instance) -> None:
    """Write rows as their processes would."""
    session = store.connect()
    for one in instances:
        session.report(one)
    session.close()


@dataclass(frozen=True)
class Done:
    """How a command has ended, in this process."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


Cli = Callable[..., Done]


def operator(url: str) -> MaintenanceState:
    """A state that does not count as a process that serves."""
    return MaintenanceState(url, register=False)


@contextmanager
def fleet_of(url: str, size: int) -> Iterator[list[MaintenanceState]]:
    """States that serve, each registered."""
    states = [MaintenanceState(url) for _ in range(size)]
    for state in states:
        state.start()
    try:
        eventually(lambda: _all_follow(states))
        yield states
    finally:
        for state in states:
            state.close()


def _all_follow(states: list[MaintenanceState]) -> bool:
    rows = {one.id: one.revision for one in states[0].fleet().instances}
    return all(rows.get(state.status().instance or "") for state in states)


@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """Have this process live in a time zone."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            yield
    finally:
        time.tzset()


def change(url: str, sql: str) -> None:
    """Run SQL on an SQLite store, behind the library's back."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(sql)

"""The command line: as a process of its own, or in this one, with an output that acts on what it reads."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from maintenance.base.values import Instance
from maintenance.stores import Store

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


@contextmanager
def started(*arguments: str, env: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    """A command whose output is read while it runs; killed where it has not ended by then."""
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

"""Real application servers over an app's import path, each in a process group of its own."""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from tests.support.ports import accepts, free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]

START = 30.0
"""Seconds until a server must accept connections."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs.

    Attributes:
        url: Without a path, such as ``http://127.0.0.1:20123``.
        port: Of `url`.
        process: The one that was started; the leader of its process group.
    """

    url: str
    port: int
    process: subprocess.Popen[bytes]
    _output: IO[bytes]

    @property
    def log(self) -> str:
        """Everything that it has printed."""
        return Path(self._output.name).read_text(errors="replace")

    def workers(self) -> list[int]:
        """The pids of the processes that serve, which may be the one that was started."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children()
            return [child.pid for child in children if _serves(child)] or [self.process.pid]
        return []

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its whole process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self) -> None:
        """Terminate the process group, and kill it after 10 s."""
        self.signal(signal.SIGCONT)
        workers = self.workers()
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait(10)
        self.signal(signal.SIGKILL)  # workers that outlived the one that started them
        eventually(lambda: not any(map(alive, workers)), what="the workers' end")


def alive(pid: int) -> bool:
    """Whether a process runs or is stopped. A zombie is dead."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _serves(child: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "resource_tracker" not in " ".join(child.cmdline())
    return False


@contextmanager
def _running(
    command: Sequence[str], port: int, env: Mapping[str, str] | None, python: str = sys.executable
) -> Iterator[Running]:
    with tempfile.NamedTemporaryFile(prefix="maintenance-server-") as output:
        process = subprocess.Popen(
            [python, *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        running = Running(f"http://127.0.0.1:{port}", port, process, output)
        try:
            eventually(lambda: _answers(running), START, what=f"{command[1]} on port {port}")
            yield running
        finally:
            running.end()


def _answers(running: Running) -> bool:
    if running.process.poll() is not None:
        raise RuntimeError(f"the server ended while it started: {running.log}")
    return accepts(running.port)


def uvicorn(
    app: str,
    *,
    workers: int = 1,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> AbstractContextManager[Running]:
    """An ASGI app under uvicorn.

    Args:
        app: Its import path, such as ``tests.apps.fleet:asgi``.
        workers: Processes; with one, uvicorn serves in the process that was started.
        env: Environment variables, added to those of this process.
        options: More options of uvicorn.
    """
    port = free_port()
    command = ["-m", "uvicorn", app, f"--port={port}", f"--workers={workers}", "--no-access-log", *options]
    return _running(command, port, env)


def gunicorn(
    app: str,
    *,
    worker_class: str = "sync",
    workers: int = 2,
    threads: int = 1,
    preload: bool = False,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    python: str = sys.executable,
) -> AbstractContextManager[Running]:
    """A WSGI app under gunicorn.

    Args:
        app: Its import path, such as ``tests.apps.fleet:wsgi``.
        worker_class: ``sync``, ``gthread`` or ``gevent``.
        workers: Processes beside the master.
        threads: For each process, under ``gthread``.
        preload: Whether the master imports the app before it forks.
        env: Environment variables, added to those of this process.
        options: More options of gunicorn.
        python: The interpreter.
    """
    port = free_port()
    command = [
        *("-m", "gunicorn", app, f"--bind=127.0.0.1:{port}", f"--worker-class={worker_class}"),
        *(f"--workers={workers}", f"--threads={threads}", "--graceful-timeout=2", "--no-control-socket"),
        *(["--preload"] if preload else []),
        *options,
    ]
    return _running(command, port, env, python)


def uwsgi(
    app: str,
    *,
    workers: int = 2,
    threads: bool = True,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> AbstractContextManager[Running]:
    """A WSGI app under uWSGI, which imports it once and forks without Python's hooks.

    Args:
        app: Its import path, such as ``tests.apps.fleet:wsgi``.
        workers: Processes beside the master.
        threads: Whether Python's threads run between two requests.
        env: Environment variables, added to those of this process.
        options: More options of uWSGI.
    """
    port = free_port()
    command = [
        os.path.join(sysconfig.get_path("scripts"), "uwsgi"),
        *(f"--module={app}", f"--http-socket=127.0.0.1:{port}", f"--processes={workers}"),
        *("--master", "--die-on-term", "--need-app", *(["--enable-threads"] if threads else [])),
        *options,
    ]
    return _running(command, port, env)


def hypercorn(
    app: str, *, worker_class: str = "asyncio", workers: int = 2, env: Mapping[str, str] | None = None
) -> AbstractContextManager[Running]:
    """An ASGI app under hypercorn, in the event loop that `worker_class` names."""
    port = free_port()
    options = [f"--bind=127.0.0.1:{port}", f"--workers={workers}", f"--worker-class={worker_class}"]
    return _running(["-m", "hypercorn", app, *options], port, env)


def granian(
    app: str, *, interface: str, workers: int = 2, env: Mapping[str, str] | None = None
) -> AbstractContextManager[Running]:
    """An app under granian, as ``asgi`` or ``wsgi``."""
    port = free_port()
    options = ["--host=127.0.0.1", f"--port={port}", f"--workers={workers}", f"--interface={interface}"]
    return _running(["-m", "granian", app, *options], port, env)


def daphne(app: str, *, env: Mapping[str, str] | None = None) -> AbstractContextManager[Running]:
    """An ASGI app under daphne, which has one process."""
    port = free_port()
    return _running(["-m", "daphne", f"--port={port}", app], port, env)


def waitress(app: str, *, env: Mapping[str, str] | None = None) -> AbstractContextManager[Running]:
    """A WSGI app under waitress, which has one process."""
    port = free_port()
    return _running(["-m", "waitress", f"--listen=127.0.0.1:{port}", app], port, env)


def cheroot(app: str, *, env: Mapping[str, str] | None = None) -> AbstractContextManager[Running]:
    """A WSGI app under cheroot, which has one process."""
    port = free_port()
    return _running(["-m", "cheroot", f"--bind=127.0.0.1:{port}", app], port, env)


def twist(app: str, *, env: Mapping[str, str] | None = None) -> AbstractContextManager[Running]:
    """A WSGI app under Twisted, which has one process."""
    port = free_port()
    return _running(
        ["-m", "twisted", "web", f"--listen=tcp:{port}:interface=127.0.0.1", f"--wsgi={app.replace(':', '.')}"],
        port,
        env,
    )

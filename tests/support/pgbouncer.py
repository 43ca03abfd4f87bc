"""A real PgBouncer in front of a server, if PgBouncer is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from tests.support.ports import accepts, free_port
from tests.support.postgres import Server, as_account, private_folder
from tests.support.waiting import eventually

PoolMode = Literal["session", "transaction", "statement"]

SHARED = 2
"""Server sessions for each database, fewer than the clients that share them."""


@contextmanager
def pgbouncer(upstream: Server, *, mode: PoolMode) -> Iterator[int]:
    """The port of a PgBouncer of its own."""
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
        }
        (folder / "users").write_text(f'"{upstream.user}" "{upstream.password}"\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host={upstream.host} port={upstream.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, folder / "ini"], **as_account(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            eventually(lambda: accepts(port), what=f"PgBouncer on port {port}")
            yield port
        finally:
            process.kill()
            process.wait()

"""``maintenance demo``: two real servers, one flag, and a fleet to play with."""

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from maintenance.base.values import Snapshot
from maintenance.cli.demo.processes import ADMIN, Server
from maintenance.errors import ConfigurationError, MaintenanceError
from maintenance.process.api import open_named
from maintenance.process.state import MaintenanceState

VARIABLE: Final = "MAINTENANCE_DATABASE_URL"

MESSAGE: Final = "We are moving the shelves."


def run() -> int:
    """Show each step; then keep running until Ctrl-C, unless ``DEMO_ONCE`` is 1.

    Returns:
        The exit status, 0.

    Raises:
        MaintenanceError: A step failed.
    """
    with _prepare_database() as url:
        state = MaintenanceState(open_named(VARIABLE, url), register=False)
        _check_unused(state)
        with _restore_flag(state), Server("A", url) as a, Server("B", url) as b:
            _introduce(a, b, state.store.name)
            _show_steps(a, b, state)
            if os.environ.get("DEMO_ONCE") == "1":
                _print("Every step worked.")
            else:
                with contextlib.suppress(KeyboardInterrupt):
                    _invite(a, b, None if _read_variable() else state.store.name)
                    _keep_running((a, b), state)
                _print("\nStopping the servers.")
    return 0


def _print(line: str) -> None:
    print(line, flush=True)


def _read_variable() -> str:
    return os.environ.get(VARIABLE, "").strip()


@contextlib.contextmanager
def _prepare_database() -> Iterator[str]:
    if url := _read_variable():
        if url.startswith("memory:"):
            raise ConfigurationError(f"{VARIABLE} is memory://, which two processes cannot share: unset it")
        yield url
    else:
        with tempfile.TemporaryDirectory(prefix="maintenance-demo-") as folder:
            yield f"sqlite:///{quote(folder)}/maintenance.db"


def _check_unused(state: MaintenanceState) -> None:
    """Create the tables, and make sure that the demo affects no other process.

    Raises:
        MaintenanceError: Another process uses the database, or maintenance is on.
    """
    state.store.migrate()
    snapshot = state.refresh()
    state.prove(snapshot, timeout=0)  # removes the rows that a killed demo on this machine has left
    others = len(state.fleet().instances)
    if others or snapshot.enabled:
        why = f"is used by other processes ({others})" if others else "has maintenance switched on"
        raise MaintenanceError(f"{state.store.name} {why}, and the demo would flip their flag: use another database")


@contextlib.contextmanager
def _restore_flag(state: MaintenanceState) -> Iterator[None]:
    try:
        yield
    finally:
        state.close()
        state.prove(state.set(False, actor="demo", reason="the demo has ended"), timeout=0)


def _introduce(a: Server, b: Server, store: str) -> None:
    _print(f"Two servers share one flag in {store}\n")
    for server in (a, b):
        server.expect("GET", "/", 200)
        _print(f"  {server.name}  {server.url}/  pid {server.pid}  answers 200")


def _show_steps(a: Server, b: Server, state: MaintenanceState) -> None:
    _print("\n1. An admin switches maintenance on, through A")
    _flip(a, b, enabled=True)
    answer = b.expect("GET", "/", 503)
    b.expect("GET", "/health", 200)
    _print(f"   B asks its visitors to come back in {answer.retry_after} s; its /health still answers 200")
    _print("\n2. B is killed and started again")
    before = b.pid
    b.kill()
    b.start()
    b.expect("GET", "/", 503)
    _print(
        f"   B was pid {before} and is now pid {b.pid}; its first answer is 503, because the flag is in the database"
    )
    _print("\n3. The admin switches maintenance off, through B")
    _flip(b, a, enabled=False)
    _print("\n4. Does every process follow?")
    proof = state.prove(state.refresh())
    if not proof:
        raise MaintenanceError(f"not proven that both servers follow: {proof.problem or proof.laggards}")
    _print(f"   Proven: {len(proof.confirmed)} processes have acknowledged revision {proof.revision}\n")


def _flip(through: Server, other: Server, *, enabled: bool) -> None:
    status = 503 if enabled else 200
    through.expect("PUT", ADMIN, 200, {"enabled": enabled, "message": MESSAGE if enabled else None})
    written = time.perf_counter()
    through.expect("GET", "/", status)
    delay = other.wait_for_status(status, since=written)
    _print(f"   {through.name} answers {status} immediately, {other.name} {delay * 1000:.0f} ms after the flip")


def _invite(a: Server, b: Server, database: str | None) -> None:
    command = _find_command()
    option = f" --database {shlex.quote(database)}" if database else ""
    _print(f"Now try it. Open {a.url}/ and {b.url}/ side by side, and run in another terminal:\n")
    for body in ('{"enabled": true, "message": "Back in a minute."}', '{"enabled": false}'):
        _print(f"  curl -X PUT {a.url}{ADMIN} -d '{body}'")
    _print(f"  curl -i {b.url}/\n")
    if not database:
        _print(f"  # with the same {VARIABLE} as here:")
    for name, more in (("on", " --for 5m --message 'Back in a minute.' --wait"), ("fleet", ""), ("off", " --wait")):
        _print(f"  {command} {name}{option}{more}")
    _print(f"  kill -9 {b.pid}\n\nPress Ctrl-C to stop.\n")


def _find_command() -> str:
    """Return how to run the command line from another terminal in this folder."""
    script = Path(sys.executable).with_name("maintenance")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m maintenance"
    if shutil.which("maintenance") == str(script):
        return "maintenance"
    nearby = script.is_relative_to(Path.cwd())
    return shlex.quote(str(script.relative_to(Path.cwd()) if nearby else script))


def _keep_running(servers: Sequence[Server], state: MaintenanceState) -> None:
    """Restart servers that have ended, and print each change of the flag, for ever."""
    state.on_change(_print_change)
    state.start()
    while True:
        for server in servers:
            if not server.is_running:
                before = server.pid
                server.kill()  # closes its pipes
                server.start()
                _print(f"{server.name} (pid {before}) has ended; restarted as pid {server.pid}, with the same flag")
        time.sleep(0.1)


def _print_change(snapshot: Snapshot) -> None:
    message = f": {snapshot.message}" if snapshot.message else ""
    _print(f"maintenance is {'ON' if snapshot.enabled else 'OFF'}, revision {snapshot.revision}{message}")

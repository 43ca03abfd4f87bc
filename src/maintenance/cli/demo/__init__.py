"""``maintenance demo``: two real servers, one flip, and a fleet to play with."""

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
    """Show the main job; then stay until Ctrl-C, unless ``DEMO_ONCE`` is set.

    Returns:
        The exit status, 0.

    Raises:
        MaintenanceError: A step did not hold.
    """
    with _database() as url:
        state = MaintenanceState(open_named(VARIABLE, url), register=False)
        _claim(state)
        with _left_as_found(state), Server("A", url) as a, Server("B", url) as b:
            _introduce(a, b, state.store.name)
            _show(a, b, state)
            if os.environ.get("DEMO_ONCE") == "1":
                _say("Every step held.")
            else:
                with contextlib.suppress(KeyboardInterrupt):
                    _invite(a, b, None if _given() else state.store.name)
                    _stay((a, b), state)
                _say("\nThe servers end.")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _given() -> str:
    return os.environ.get(VARIABLE, "").strip()


@contextlib.contextmanager
def _database() -> Iterator[str]:
    if url := _given():
        if url.startswith("memory:"):
            raise ConfigurationError(f"{VARIABLE} is memory://, which two processes cannot share: unset it")
        yield url
    else:
        with tempfile.TemporaryDirectory(prefix="maintenance-demo-") as folder:
            yield f"sqlite:///{quote(folder)}/maintenance.db"


def _claim(state: MaintenanceState) -> None:
    """Make the table, and make sure that nobody else would be switched.

    Raises:
        MaintenanceError: Somebody would.
    """
    state.store.migrate()
    snapshot = state.refresh()
    state.prove(snapshot, timeout=0)  # removes what an earlier demo on this machine has left behind
    others = state.fleet().instances
    if others or snapshot.enabled:
        why = f"has other processes registered ({len(others)})" if others else "has maintenance switched on"
        raise MaintenanceError(f"{state.store.name} {why}, which the demo would switch too: name another database")


@contextlib.contextmanager
def _left_as_found(state: MaintenanceState) -> Iterator[None]:
    try:
        yield
    finally:
        state.close()
        state.prove(state.set(False, actor="demo", reason="the demo has ended"), timeout=0)


def _introduce(a: Server, b: Server, store: str) -> None:
    _say(f"Two servers share one flag, in {store}\n")
    for server in (a, b):
        server.expect("GET", "/", 200)
        _say(f"  {server.name}  {server.url}/  pid {server.pid}  answers 200")


def _show(a: Server, b: Server, state: MaintenanceState) -> None:
    _say("\n1. An admin switches maintenance on, through A")
    _flip(a, b, enabled=True)
    answer = b.expect("GET", "/", 503)
    b.expect("GET", "/health", 200)
    _say(f"   B tells its visitors to come back in {answer.retry_after} s; its /health is still 200")
    _say("\n2. B is killed and started again")
    before = b.pid
    b.kill()
    b.start()
    b.expect("GET", "/", 503)
    _say(f"   B was pid {before} and is pid {b.pid}; its first answer is 503: it remembers")
    _say("\n3. The admin switches maintenance off, through B")
    _flip(b, a, enabled=False)
    _say("\n4. Has everybody followed? The flag can tell")
    proof = state.prove(state.refresh())
    if not proof:
        raise MaintenanceError(f"it is not proven that both servers follow: {proof.problem or proof.laggards}")
    _say(f"   Proven: {len(proof.confirmed)} processes have acknowledged revision {proof.revision}\n")


def _flip(through: Server, other: Server, *, enabled: bool) -> None:
    status = 503 if enabled else 200
    through.expect("PUT", ADMIN, 200, {"enabled": enabled, "message": MESSAGE if enabled else None})
    written = time.perf_counter()
    through.expect("GET", "/", status)
    delay = other.follow(status, since=written)
    _say(f"   {through.name} answers {status} at once, {other.name} {delay * 1000:.0f} ms after the flip was written")


def _invite(a: Server, b: Server, database: str | None) -> None:
    command = _command()
    option = f" --database {shlex.quote(database)}" if database else ""
    _say(f"Now you. Open {a.url}/ and {b.url}/ side by side, and in another terminal:\n")
    for body in ('{"enabled": true, "message": "Back in a minute."}', '{"enabled": false}'):
        _say(f"  curl -X PUT {a.url}{ADMIN} -d '{body}'")
    _say(f"  curl -i {b.url}/\n")
    if not database:
        _say(f"  # where {VARIABLE} is set as it is here:")
    for name, more in (("on", " --for 5m --message 'Back in a minute.' --wait"), ("fleet", ""), ("off", " --wait")):
        _say(f"  {command} {name}{option}{more}")
    _say(f"  kill -9 {b.pid}\n\nCtrl-C ends it.\n")


def _command() -> str:
    """What runs the command line in another terminal that stands in the same folder."""
    script = Path(sys.executable).with_name("maintenance")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m maintenance"
    if shutil.which("maintenance") == str(script):
        return "maintenance"
    nearby = script.is_relative_to(Path.cwd())
    return shlex.quote(str(script.relative_to(Path.cwd()) if nearby else script))


def _stay(servers: Sequence[Server], state: MaintenanceState) -> None:
    state.on_change(_report)
    state.start()
    while True:
        for server in servers:
            if server.ended:
                gone = server.pid
                server.kill()  # lets go of what is left of it
                server.start()
                _say(f"{server.name} (pid {gone}) has ended; it is back as pid {server.pid}, and remembers")
        time.sleep(0.1)


def _report(snapshot: Snapshot) -> None:
    said = f": {snapshot.message}" if snapshot.message else ""
    _say(f"maintenance is {'ON' if snapshot.enabled else 'OFF'}, revision {snapshot.revision}{said}")

"""``maintenance on``, ``off`` and ``wait``: the flip, and the wait for the fleet."""

import argparse
import datetime as dt
import getpass
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace

from maintenance.base.values import Snapshot
from maintenance.cli import text
from maintenance.cli.display import show_progress
from maintenance.cli.options import INTERRUPTED, NOT_PROVEN
from maintenance.cli.standings import Standings
from maintenance.cli.store import connect_state, is_missing
from maintenance.errors import ConfigurationError
from maintenance.process.state import MaintenanceState
from maintenance.proof.membership import HEARTBEAT, hostname


def flip(args: argparse.Namespace) -> int:
    """Write the flag; with ``--wait``, wait until every process follows."""
    # No process can follow a file that does not exist yet, so a wait never creates one.
    with connect_state(args, create=args.command == "on" and not args.wait) as state:
        is_new = is_missing(state.store)
        snapshot = _write(state, args)
        now = dt.datetime.now(dt.UTC)
        _print_flag(snapshot, state, args, now=now)
        if is_new:
            text.warn(f"{state.store.name} did not exist and was created, so no server uses it yet")
        if snapshot.until and snapshot.until <= now:
            text.warn("--until is in the past. Maintenance is on and stays on until you run `maintenance off`.")
        return _wait(state, snapshot, args) if args.wait else 0


def _write(state: MaintenanceState, args: argparse.Namespace) -> Snapshot:
    names = ("message", "until", "retry_after", "mode", "updated_by", "reason")
    details = {name: getattr(args, name) for name in names}
    actor = name_user() if args.actor is None else args.actor
    try:
        # Asking for the drain in the same statement wakes every process once, not twice.
        return state.set(args.command == "on", actor=actor, drain=args.drain, **details)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted during the write: run `maintenance status` to see whether the flag was changed"
        ) from None
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(str(exc)) from exc


def name_user() -> str:
    """Return who runs this command, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # in a container, the user often has only a number
        user = f"uid {os.getuid()}"
    return f"{user}@{hostname()}"


def wait(args: argparse.Namespace) -> int:
    """Wait until every process follows the flag, without changing it."""
    with connect_state(args) as state:
        snapshot = state.refresh()
        expected = snapshot if args.revision is None else replace(snapshot, revision=args.revision)
        if args.drain and not snapshot.enabled and expected == snapshot:
            raise ConfigurationError("--drain waits for requests that maintenance refuses, and it is off: omit --drain")
        args.drain = args.drain and snapshot.enabled  # if it was switched off, the wait reports that
        _print_flag(snapshot, state, args, now=dt.datetime.now(dt.UTC))
        return _wait(state, expected, args)


def _print_flag(snapshot: Snapshot, state: MaintenanceState, args: argparse.Namespace, *, now: dt.datetime) -> None:
    if args.json:
        event = {"event": "flag"} if args.wait else {}
        text.print_json({**event, **asdict(snapshot), "store": state.store.name})
        return
    print(text.describe_flag(snapshot, state.store.name, now=now), flush=True)
    if args.wait:
        switch = text.format_switch(snapshot)
        print(f"waiting for every process; Ctrl-C stops waiting and leaves maintenance {switch}", flush=True)


def _wait(state: MaintenanceState, snapshot: Snapshot, args: argparse.Namespace) -> int:
    if args.presume_dead is not None and args.presume_dead < 2 * HEARTBEAT:
        text.warn(
            f"A healthy process may go {HEARTBEAT:g} s plus its TTL without reporting. "
            "With this --presume-dead it would be treated as dead."
        )
    standings = Standings(snapshot, drain=args.drain)
    interrupted = False
    try:
        with show_progress(standings, json=args.json) as progress:
            standings.proof = state.prove(
                snapshot,
                drain=args.drain,
                timeout=args.timeout,
                expect=args.expect,
                presume_dead=args.presume_dead,
                progress=progress,
            )
    except KeyboardInterrupt:
        interrupted = True
    return _conclude(standings, args, state.store.name, interrupted=interrupted)


def _conclude(standings: Standings, args: argparse.Namespace, store: str, *, interrupted: bool) -> int:
    """Print the end of a wait, and return the exit status."""
    proof = standings.proof
    proven = bool(proof) and not interrupted
    if args.json:
        text.print_json(standings.build_json(interrupted=interrupted))
    elif proven:
        print(standings.summarize("proven"), flush=True)
    elif not proof.final:
        print("\n".join(_list_steps(standings, args, store)), flush=True)
    if proven:
        if not proof.confirmed and not proof.fenced:
            text.warn(
                "No running process is registered in this database, so there was nothing to wait for. "
                "Is this the database your app uses? (--expect N fails unless N processes are registered.)"
            )
        return 0
    text.print_error(standings.summarize("interrupted" if interrupted else "NOT PROVEN"))
    return INTERRUPTED if interrupted else NOT_PROVEN


def _list_steps(standings: Standings, args: argparse.Namespace, store: str) -> Iterator[str]:
    """Yield the processes that are not accounted for, and what the operator can do."""
    # The store's name, not what was typed, because that may hold a password.
    database = "" if args.database is None else f" --database {shlex.quote(store)}"
    yield from (f"  {standings.describe(standing)}" for standing in standings.waiting)
    yield "Next steps:"
    for instance in (standing.instance for standing in standings.waiting):
        if instance.problem:
            yield f"  If no process uses this row, run: maintenance forget {instance.id}{database}"
            continue
        yield f"  If it hangs, restart it: {text.format_process(instance)}"
        yield f"  If you are sure it is dead, run: maintenance forget {text.format_id(instance)}{database}"
    again = "Then check again" if standings.waiting else "Check again"
    yield f"  {again}: maintenance wait{database}{_repeat_options(standings.snapshot, args)}"


def _repeat_options(snapshot: Snapshot, args: argparse.Namespace) -> str:
    """Return the options of a `wait` for the same."""
    values = {
        "revision": snapshot.revision,
        "expect": args.expect,
        "timeout": None if args.timeout is None else f"{args.timeout:.15g}",
        "presume-dead": None if args.presume_dead is None else f"{args.presume_dead:.15g}s",
    }
    options = [f" --{name} {value}" for name, value in values.items() if value is not None]
    return "".join(options) + (" --drain" if args.drain else "")

"""``maintenance on``, ``off`` and ``wait``: the flip, and the wait for the fleet."""

import argparse
import contextlib
import datetime as dt
import getpass
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from maintenance.base.languages import parse_language
from maintenance.base.secret import choose_token, hash_token
from maintenance.base.values import Change, Details, Snapshot
from maintenance.cli import text
from maintenance.cli.display import show_progress
from maintenance.cli.options import INTERRUPTED, NOT_PROVEN
from maintenance.cli.standings import Standings
from maintenance.cli.steps import list_steps, repeat_database
from maintenance.cli.store import connect_state, is_missing, read_flag
from maintenance.errors import ConfigurationError, ConflictError, MaintenanceError
from maintenance.http.secret_link import NAME
from maintenance.process.state import MaintenanceState
from maintenance.proof.membership import HEARTBEAT, hostname

DETAILS: Final = ("message", "retry_after", "mode", "reason")
"""The options that are details as they stand."""


def flip(args: argparse.Namespace) -> int:
    """Write the flag; with ``--wait``, wait until every process follows."""
    # No process can follow a file that does not exist yet, so a wait never creates one.
    with connect_state(args, create=args.command == "on" and not args.wait) as state:
        is_new = is_missing(state.store)
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        token = _choose_token(args)
        change = _make_change(args, state, now=now, token=token)
        snapshot, before = _write(state, change)
        _print_flag(snapshot.with_token(token), state, args, now=now, before=before)
        if is_new:
            text.warn(f"{state.store.name} did not exist and was created, so no server uses it yet")
        return _wait(state, snapshot, args) if args.wait else 0


def edit(args: argparse.Namespace) -> int:
    """Change what is named of a flag that is on or planned, and nothing else."""
    with connect_state(args) as state, _converted():
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        state.refresh()
        flag = state.lease.flags.get(args.scope)
        details = {name: value for name in DETAILS if (value := getattr(args, name, None)) is not None}
        details |= _edit_messages(flag, args)
        until = _extend(flag, args.by, now=now) if args.command == "extend" else _find_end(args, flag.starts or now)
        details |= {} if args.updated_by is None else {"updated_by": args.updated_by}
        details |= {} if until is None else {"until": _check_future("the end", until, now=now)}
        # The new end may depend on what was read above.
        expected = flag.revision if args.if_revision is None else args.if_revision
        snapshot = state.update(scope=args.scope, if_revision=expected, actor=_name_actor(args), **details)
        _print_flag(snapshot, state, args, now=now)
    return 0


def _edit_messages(flag: Snapshot, args: argparse.Namespace) -> dict[str, Any]:
    """Return the new messages by language, if any is given. A new message without a language replaces all of them."""
    if not getattr(args, "messages", None):
        return {}
    kept = {} if args.message is not None else flag.messages or {}
    return {"messages": {**kept, **read_messages(args)}}


def read_messages(args: argparse.Namespace) -> dict[str, str]:
    """Return the messages by language.

    Raises:
        ValueError: A language is not one, or is given twice.
    """
    found: dict[str, str] = {}
    for tag, message in getattr(args, "messages", None) or ():
        language = parse_language(tag)
        if language is None:
            raise ValueError(
                "--message-for needs a language and a text: use for example --message-for de 'Bald zurück'"
            )
        if language in found:
            raise ValueError(f"--message-for {language} is given twice: use one text for each language")
        found[language] = message
    return found


def _extend(flag: Snapshot, span: dt.timedelta, *, now: dt.datetime) -> dt.datetime:
    """Return the new end: later than the present one or, if that has passed or is unknown, than now."""
    return max(flag.until or now, now) + span


def _choose_token(args: argparse.Namespace) -> str | None:
    with _converted():
        if getattr(args, "secret_stdin", False):
            return choose_token(sys.stdin.readline().strip())
        return choose_token(getattr(args, "secret", False))


def _make_change(args: argparse.Namespace, state: MaintenanceState, *, now: dt.datetime, token: str | None) -> Change:
    with _converted():
        details = {name: getattr(args, name, None) for name in DETAILS} | {"mode": getattr(args, "mode", "full")}
        details["messages"] = read_messages(args)
        if args.command == "on":
            details |= _make_schedule(args, now=now)
        expected = args.if_revision
        if getattr(args, "if_off", False):
            expected = _check_off(state, args.scope)
        return Change(
            enabled=args.command == "on",
            details=Details(actor=_name_actor(args), secret=token and hash_token(token), **details),
            scope=args.scope,
            updated_by=args.updated_by,
            drain=args.drain,
            if_revision=expected,
        )


def _check_off(state: MaintenanceState, scope: str | None) -> int:
    """Return the revision of a flag that is off; 0 if it has no row."""
    flag = read_flag(state, scope)
    if flag.in_force:
        present = text.describe_replaced(flag)
        raise ConflictError(f"{state.store.name}: maintenance is on or planned already ({present})")
    return flag.revision


def _make_schedule(args: argparse.Namespace, *, now: dt.datetime) -> dict[str, Any]:
    starts = now + args.begins_in if args.begins_in else args.starts
    if starts is not None:
        _check_future("the start", starts, now=now)
    until = _find_end(args, starts or now)
    if until is not None:
        _check_future("the end", until, now=now)
    return {"starts": starts, "until": until, "auto_off": args.auto_off}


def _find_end(args: argparse.Namespace, start: dt.datetime) -> dt.datetime | None:
    end: dt.datetime | None = start + args.lasts if getattr(args, "lasts", None) else getattr(args, "until", None)
    return end


def _check_future(name: str, when: dt.datetime, *, now: dt.datetime) -> dt.datetime:
    if when <= now:
        raise ConfigurationError(f"{name} is {text.format_time(when)}, which has passed: use a later time")
    return when


@contextlib.contextmanager
def _converted() -> Iterator[None]:
    """Report a wrong value as wrong usage."""
    try:
        yield
    except (TypeError, ValueError) as exc:
        if isinstance(exc, MaintenanceError):
            raise
        raise ConfigurationError(str(exc)) from exc
    except OverflowError:
        raise ConfigurationError("the end is after the year 9999: use an earlier one") from None


def _write(state: MaintenanceState, change: Change) -> tuple[Snapshot, Snapshot | None]:
    try:
        # Asking for the drain in the same statement wakes every process once, not twice.
        with _converted():
            return state.write(change)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted during the write: run `maintenance status` to see whether the flag was changed"
        ) from None


def _name_actor(args: argparse.Namespace) -> str:
    return name_user() if args.actor is None else args.actor


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
        snapshot = read_flag(state, args.scope)
        if args.scope is not None and not snapshot.revision:
            raise MaintenanceError(f"{state.store.name} has no flag of the scope {args.scope!r}: check its name")
        expected = snapshot if args.revision is None else replace(snapshot, revision=args.revision)
        refuses = snapshot.in_force
        if args.drain and not refuses and expected == snapshot:
            raise ConfigurationError("--drain waits for requests that maintenance refuses, and it is off: omit --drain")
        args.drain = args.drain and refuses  # if it was switched off, the wait reports that
        _print_flag(snapshot, state, args, now=dt.datetime.now(dt.UTC))
        return _wait(state, expected, args)


def _print_flag(
    snapshot: Snapshot,
    state: MaintenanceState,
    args: argparse.Namespace,
    *,
    now: dt.datetime,
    before: Snapshot | None = None,
) -> None:
    waits = getattr(args, "wait", False)
    # A token from stdin is known to its owner, and is not repeated.
    link = f"?{NAME}={snapshot.token}" if getattr(args, "secret", False) else None
    if args.json:
        event = {"event": "flag"} if waits else {}
        replaced = {"replaced": before and text.build_flag_json(before)} if args.command in ("on", "off") else {}
        shown = {**event, **text.build_flag_json(snapshot), "store": state.store.name, **replaced}
        text.print_json(shown | ({"link": link} if link else {}))
        return
    print(text.describe_flag(snapshot, state.store.name, now=now), flush=True)
    if link:
        print(f"the secret link, shown only now; add it to any address of the site: {link}", flush=True)
    if before is not None and before.in_force:
        print(f"replaced: {text.describe_replaced(before)}", flush=True)
    if waits:
        kept = text.format_kept(snapshot)
        print(f"waiting for every process; Ctrl-C stops waiting and leaves {kept}", flush=True)


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
                expect=None if args.expect is None else dict(args.expect),
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
        print(standings.summarize(text.paint("proven", "green")), flush=True)
    else:
        for standing in standings.waiting if not proof.final else ():
            print(f"  {standings.describe(standing)}", flush=True)
    if proven:
        if not proof.confirmed and not proof.fenced:
            text.warn(
                "No running process is registered in this database, so there was nothing to wait for. "
                "Is this the database your app uses? (--expect N fails unless N processes are registered.)"
            )
        return 0
    text.print_error(standings.summarize("interrupted" if interrupted else "NOT PROVEN"))
    if not args.json and not proof.final:
        database = repeat_database(args, store)
        again = f"Check again: maintenance wait{database}{_repeat_options(standings.snapshot, args)}"
        waiting = [standing.instance for standing in standings.waiting]
        print("\n".join(list_steps(waiting, database, last=again)), flush=True)
    return INTERRUPTED if interrupted else NOT_PROVEN


def _repeat_options(snapshot: Snapshot, args: argparse.Namespace) -> str:
    """Return the options of a `wait` for the same."""
    values = {
        "revision": snapshot.revision,
        "timeout": None if args.timeout is None else f"{args.timeout:.15g}",
        "presume-dead": None if args.presume_dead is None else f"{args.presume_dead:.15g}s",
    }
    expect = [("expect", f"{service}={number}" if service else number) for service, number in args.expect or ()]
    named = [("scope", args.scope), *values.items(), *expect]
    options = [f" --{name} {value}" for name, value in named if value is not None]
    return "".join(options) + (" --drain" if args.drain else "")

"""``maintenance status`` and ``watch``: the flag, now and as it changes."""

import argparse
import datetime as dt
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Final

from maintenance.base.flags import Flags
from maintenance.base.instances import Fleet, Instance
from maintenance.base.values import Snapshot
from maintenance.cli import text
from maintenance.cli.commands.fleet import follows, is_ahead, sort_scopes
from maintenance.cli.hook import Hook
from maintenance.cli.options import IS_ON
from maintenance.cli.steps import list_steps, repeat_database
from maintenance.cli.store import open_state, read_flag
from maintenance.errors import FlagError, StoreError
from maintenance.process.state import MaintenanceState
from maintenance.process.status import TAKEN_BACK
from maintenance.proof.judge import lease_end

NAMED: Final = 3
"""How many processes that do not follow the verdict names."""

OVERDUE: Final = dt.timedelta(seconds=5)
"""How long after a start or an end its value is written at the latest, if a process may write."""

LOOK: Final = 0.2
"""Seconds between two checks of whether the database answers."""

TROUBLES: Final = {
    "store": ("cannot reach the database: ", "the database answers again"),
    "taken_back": ("", "the older state of the database is settled: processes follow it again"),
}
"""The kinds of trouble: what is shown before an error, and when it is over."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that an operator has to know besides the flags.

    Attributes:
        kind: Of `TROUBLES`.
        error: None when it is over.
    """

    kind: str
    error: str | None


Event = Snapshot | Trouble


def status(args: argparse.Namespace) -> int:
    """Show which flags are on or planned, and which processes follow them."""
    state = open_state(args)
    state.refresh()
    shown = _choose_flags(state, args.scope)
    problem, taken_back = state.status().last_error, state.lease.known.taken_back
    fleet, unknown = _read_fleet(state)
    overdue = [flag for flag in shown if _is_overdue(flag, state)]
    if args.json:
        text.print_json(
            {
                **text.build_flag_json(shown.site),
                "scopes": [text.build_flag_json(flag) for flag in shown.scopes.values()],
                "taken_back": taken_back,
                "unwritten": [flag.scope for flag in overdue],
                "processes": fleet and len(fleet.instances),
                "following": fleet and sum(follows(one, fleet.reading) for one in fleet.instances),
                "store": state.store.name,
                "problem": problem,
            }
        )
    else:
        print(f"how many processes follow is unknown: {unknown}" if fleet is None else judge_fleet(fleet, shown))
        for flag in shown:
            print(text.describe_flag(flag, state.store.name, now=dt.datetime.now(dt.UTC)))
        for line in list_steps(_list_named(fleet), repeat_database(args, state.store.name)):
            print(line)
        for warning in filter(None, [problem, TAKEN_BACK if taken_back else None, *map(_describe_overdue, overdue)]):
            text.warn(warning)
        if args.scope is not None and not shown.get(args.scope).revision:
            text.warn(f"The scope {args.scope!r} has no flag yet. Is this its name?")
    return IS_ON if any(flag.enabled for flag in (shown.site, shown.get(args.scope))) else 0


def _choose_flags(state: MaintenanceState, scope: str | None) -> Flags:
    """Return the flags as they hold now: all, or the site's and that of one scope."""
    flags = state.status().flags
    return sort_scopes(flags) if scope is None else replace(flags, scopes={scope: read_flag(state, scope)})


def _read_fleet(state: MaintenanceState) -> tuple[Fleet | None, str]:
    """Return the fleet, or why it is not known. A role may be allowed to read the flags only."""
    try:
        return state.fleet(), ""
    except StoreError as exc:
        return None, text.escape(str(exc))


def judge_fleet(fleet: Fleet, flags: Flags) -> str:
    """Say in one line how many processes follow every flag, and which do not."""
    if not fleet.instances:
        return "no process is registered"
    behind = _list_behind(fleet)
    total = len(fleet.instances)
    parts = [f"{total - len(behind)} of {text.format_count(total, 'process')} follow{'s' if total == 1 else ''}"]
    parts += [_describe_straggler(one, fleet, flags) for one in behind[:NAMED]]
    if len(behind) > NAMED:
        parts.append(f"{len(behind) - NAMED} more do not follow either: run `maintenance fleet`")
    return "; ".join(parts)


def _list_behind(fleet: Fleet) -> list[Instance]:
    """Return the processes that do not follow. Those that have been silent for longest come first."""
    behind = [one for one in fleet.instances if not follows(one, fleet.reading)]
    return sorted(behind, key=lambda one: one.silent_for, reverse=True)


def _list_named(fleet: Fleet | None) -> list[Instance]:
    """Return the processes that the verdict names, and that do not follow by themselves in a moment."""
    named = [] if fleet is None else _list_behind(fleet)[:NAMED]
    return [one for one in named if text.is_silent(one)]


def _describe_straggler(one: Instance, fleet: Fleet, flags: Flags) -> str:
    serves = " and may still serve" if _may_serve(one, fleet, flags) else ""
    return text.escape(f"{one.host} pid {one.pid} {_describe_lag(one, fleet)}{serves}")


def _describe_lag(one: Instance, fleet: Fleet) -> str:
    if one.problem:
        return "has a row that cannot be trusted"
    if text.is_silent(one):
        return f"has not reported for {text.format_span(one.silent_for)}"
    if one.revision is None:
        return "follows no revision yet"
    if is_ahead(one, fleet.reading):
        return f"follows revision {one.revision}, which the database does not have"
    return f"follows only revision {one.revision}"


def _may_serve(one: Instance, fleet: Fleet, flags: Flags) -> bool:
    """Return whether a process may serve what a flag refuses."""
    on = [flag for flag in flags if flag.enabled]
    if one.problem:
        return bool(on)
    unseen = [flag for flag in on if one.revision is None or one.revision < flag.revision]
    if one.when_stale == "serve":
        return bool(unseen)
    now, lease = fleet.reading.now, dt.timedelta(seconds=lease_end(one.ttl))
    return any(now is None or flag.updated_at is None or now < flag.updated_at + lease for flag in unseen)


def _is_overdue(flag: Snapshot, state: MaintenanceState) -> bool:
    """Return whether a schedule has reached a value that no process has written."""
    stored = state.lease.known.get(flag.scope)
    due = flag.starts if flag.enabled else flag.until
    is_written = (stored.enabled, stored.starts) == (flag.enabled, flag.starts)
    return not is_written and due is not None and due < state.lease.store_now - OVERDUE


def _describe_overdue(flag: Snapshot) -> str:
    event, command = ("start", "on") if flag.enabled else ("end", "off")
    return (
        f"the {event} of maintenance{text.format_where(flag)} has passed, and no process has written it. Processes "
        f"follow it all the same. Other readers of platform_settings see it once you run `maintenance {command}`."
    )


def watch(args: argparse.Namespace) -> int:
    """Show the flag, then each change as it arrives, until Ctrl-C."""
    hook = Hook(args.hook) if args.hook else None
    state = open_state(args)
    store = state.store.name
    if not args.json:
        print(f"watching {store}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        events = follow(state)
        try:
            while True:
                (event, is_change), now = next(events), dt.datetime.now(dt.UTC)
                if args.json:
                    text.print_json(build_event_json(event, store, now=now))
                else:
                    print(f"{text.format_time(now)}  {_describe_event(event, store, now=now)}\n", end="", flush=True)
                if hook and is_change and isinstance(event, Snapshot):
                    hook.run(event, build_event_json(event, store, now=now))
        finally:
            state.close()
    return 0


def follow(state: MaintenanceState) -> Iterator[tuple[Event, bool]]:
    """Yield the flags, then each change, for ever. A slow caller loses none: they wait for it in their order.

    Yields:
        (what is or has come, whether it is a change)

    Raises:
        StoreError: The first read failed.
    """
    arrived: SimpleQueue[Snapshot] = SimpleQueue()
    state.on_change(arrived.put)
    state.refresh()
    for _ in range(arrived.qsize()):
        yield arrived.get(), False
    state.start()
    known = {Trouble(kind, None) for kind in TROUBLES}
    while True:
        with suppress(Empty):
            yield _complete(arrived.get(timeout=LOOK), state), True
        found = _find_troubles(state)
        yield from ((it, True) for it in sorted(found - known, key=lambda it: it.kind))
        known = found


def _complete(flag: Snapshot, state: MaintenanceState) -> Snapshot:
    """Return a flag with who switched it off. A read leaves out each scope that is off, so its row is read."""
    if flag.scope is None or flag.in_force or flag.updated_at is not None:
        return flag
    with suppress(StoreError, FlagError):
        found = read_flag(state, flag.scope)
        # By now it may be on again, which comes as a change of its own.
        return flag if found.in_force or found.updated_at is None else found
    return flag


def _find_troubles(state: MaintenanceState) -> set[Trouble]:
    status = state.status()
    taken_back = TAKEN_BACK if status.flags.taken_back else None
    return {Trouble("store", status.last_error), Trouble("taken_back", taken_back)}


def _describe_event(event: Event, store: str, *, now: dt.datetime) -> str:
    if isinstance(event, Trouble):
        prefix, over = TROUBLES[event.kind]
        return (
            text.paint(over, "green") if event.error is None else text.paint(prefix + text.escape(event.error), "red")
        )
    details = (f"; {label}: {text}" for label, text in text.list_details(event, now=now).items())
    return f"{text.format_headline(event, store)}{''.join(details)}"


def build_event_json(event: Event, store: str, *, now: dt.datetime) -> dict[str, Any]:
    """Return what `watch` shows, for machines."""
    if isinstance(event, Snapshot):
        return {"event": "flag", "at": now, **text.build_flag_json(event), "store": store}
    return {"event": event.kind, "at": now, "error": event.error, "store": store}

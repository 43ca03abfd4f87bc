"""``maintenance status`` and ``watch``: the flag, now and as it changes."""

import argparse
import datetime as dt
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import Any, Final

from maintenance.base.values import Snapshot
from maintenance.cli import text
from maintenance.cli.options import IS_ON
from maintenance.cli.store import open_state
from maintenance.process.state import MaintenanceState

LOOK: Final = 0.2
"""Seconds between two checks of whether the database answers."""

Event = Snapshot | str | None
"""A new flag, why the database does not answer, or None when it answers again."""


def status(args: argparse.Namespace) -> int:
    """Show whether maintenance is on."""
    state = open_state(args)
    snapshot = state.refresh()
    problem = state.status().last_error
    if args.json:
        text.print_json({**asdict(snapshot), "store": state.store.name, "problem": problem})
    else:
        print(text.describe_flag(snapshot, state.store.name, now=dt.datetime.now(dt.UTC)))
        if problem:
            text.warn(problem)
    return IS_ON if snapshot.enabled else 0


def watch(args: argparse.Namespace) -> int:
    """Show the flag, then each change as it arrives, until Ctrl-C."""
    state = open_state(args)
    store = state.store.name
    if not args.json:
        print(f"watching {store}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        events = follow(state)
        try:
            while True:
                event, now = next(events), dt.datetime.now(dt.UTC)
                if args.json:
                    text.print_json(build_event_json(event, store, now=now))
                else:
                    print(f"{text.format_time(now)}  {_describe_event(event, store, now=now)}\n", end="", flush=True)
        finally:
            state.close()
    return 0


def follow(state: MaintenanceState) -> Iterator[Event]:
    """Yield the flag, then each change, for ever.

    Raises:
        StoreError: The first read failed.
    """
    arrived: SimpleQueue[Snapshot] = SimpleQueue()
    state.on_change(arrived.put)
    state.refresh()
    state.start()
    error: str | None = None
    while True:
        with suppress(Empty):
            yield arrived.get(timeout=LOOK)
        if error != (error := state.status().last_error):
            yield error


def _describe_event(event: Event, store: str, *, now: dt.datetime) -> str:
    if not isinstance(event, Snapshot):
        return f"cannot reach the database: {text.escape(event)}" if event else "the database answers again"
    details = (f"; {label}: {text}" for label, text in text.list_details(event, now=now).items())
    return f"{text.format_headline(event, store)}{''.join(details)}"


def build_event_json(event: Event, store: str, *, now: dt.datetime) -> dict[str, Any]:
    """Return what `watch` shows, for machines."""
    if isinstance(event, Snapshot):
        return {"event": "flag", "at": now, **asdict(event), "store": store}
    return {"event": "store", "at": now, "error": event, "store": store}

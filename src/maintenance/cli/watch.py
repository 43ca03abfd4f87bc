"""``maintenance watch``: the flag as it changes."""

import argparse
import datetime as dt
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from maintenance.base.values import Snapshot
from maintenance.cli.store import watching
from maintenance.cli.text import change, flag_json, local, printable, to_json
from maintenance.process.state import MaintenanceState

LOOK: Final = 0.2
"""Seconds between two looks at whether the store answers."""

Event = Snapshot | str | None
"""A new flag, why the store does not answer, or None where it answers again."""


def watch(args: argparse.Namespace) -> int:
    """Show the flag, then each change as it arrives, until Ctrl-C."""
    state = watching(args)
    if not args.json:
        print(f"watching {state.store.name}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        told = events(state)
        try:
            while True:
                print(f"{_line(next(told), state.store.name, json=args.json)}\n", end="", flush=True)
        finally:
            state.close()
    return 0


def events(state: MaintenanceState) -> Iterator[Event]:
    """What is known, then whatever changes, for ever.

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


def _line(event: Event, store: str, *, json: bool) -> str:
    now = dt.datetime.now(dt.UTC)
    if json:
        said = flag_json(event, store) if isinstance(event, Snapshot) else {"error": event, "store": store}
        name = "flag" if isinstance(event, Snapshot) else "store"
        return to_json({"event": name, "at": now, **said})
    if isinstance(event, Snapshot):
        return f"{local(now)}  {change(event)}"
    return f"{local(now)}  {f'the store is away: {printable(event)}' if event else 'the store is back'}"

"""``maintenance log``: who changed which flag, and when."""

import argparse
from dataclasses import asdict

from maintenance.base.history import Entry
from maintenance.cli import text
from maintenance.cli.store import open_state


def log(args: argparse.Namespace) -> int:
    """Show the last changes, the newest first."""
    state = open_state(args)
    entries = state.history(scope=args.scope, limit=args.limit)
    if args.json:
        for entry in entries:
            text.print_json({**asdict(entry), "store": state.store.name})
        return 0
    print("\n".join(map(_describe, entries)) or "no change is recorded")
    return 0


def _describe(entry: Entry) -> str:
    """Return one line. What the database has seen comes first, because the other texts may look like it."""
    origin = f"by role {entry.role}" if entry.role else None
    client = f"from {entry.client_address}" if entry.client_address else None
    flag = "the site" if entry.scope is None else f"scope {entry.scope}"
    seen = [text.format_time(entry.at), f"revision {entry.revision}", origin, client, f"{flag} {_name_change(entry)}"]
    shown = {**entry.details, **({"secret": "a link"} if "secret" in entry.details else {})}
    details = (f"{name}: {value}" for name, value in sorted(shown.items()) if value not in (None, ""))
    program = f"with {entry.application_name}" if entry.application_name else None
    return text.escape("; ".join(filter(None, [*seen, *details, program])))


def _name_change(entry: Entry) -> str:
    if entry.after is None:
        return "deleted"
    if not entry.after and "starts" in entry.details:
        return "planned"
    if not entry.after and "starts" in entry.details_before and not entry.before:
        return "cancelled"
    if entry.before is entry.after:
        return f"edited, {'on' if entry.after else 'off'}"
    return "on" if entry.after else "off"

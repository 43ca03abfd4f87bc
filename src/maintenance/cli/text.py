"""How values look: text for people, JSON for machines."""

import contextlib
import datetime as dt
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from maintenance.base.values import Instance, Mode, Snapshot
from maintenance.proof.membership import HEARTBEAT

_JOINERS: Final = "\u200c\u200d"
"""Parts of Persian words and of emoji. They are not printable, but harmless in a terminal."""

_MODES: Final[dict[Mode, str]] = {"full": "all requests are refused", "read_only": "GET, HEAD and OPTIONS pass"}


def escape(text: str) -> str:
    """Escape control characters: paths come from visitors and could contain terminal control sequences."""
    return "".join(sign if sign.isprintable() or sign in _JOINERS else ascii(sign)[1:-1] for sign in text)


def print_error(text: object, *, label: str = "maintenance") -> None:
    """Print one line to stderr, after everything that stdout has."""
    sys.stdout.flush()
    print(f"{label}: {escape(str(text))}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning for people. Machines do not need it, so it goes to stderr with ``--json`` too."""
    print_error(text, label="warning")


def format_time(when: dt.datetime) -> str:
    """Format an aware time in this machine's time zone, or in its own if this one has no such year."""
    with contextlib.suppress(OverflowError):
        when = when.astimezone()
    return f"{when.replace(tzinfo=None).isoformat(' ', 'seconds')} {when.tzname()}"


def format_span(seconds: float) -> str:
    """Format seconds in the unit that reads best."""
    if seconds < 0.995:
        return f"{max(seconds, 0.0):.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def format_count(count: int, noun: str) -> str:
    """Format a number and its noun."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Align the cells of rows under their headings, which every row has alike."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def print_json(value: object) -> None:
    """Print one line of JSON in one write: if the command is ended, no reader sees half a line."""
    print(f"{json.dumps(value, default=_convert_to_text)}\n", end="", flush=True)


def _convert_to_text(value: object) -> str:
    if not isinstance(value, dt.datetime):
        return str(value)
    with contextlib.suppress(OverflowError):
        value = value.astimezone(dt.UTC)
    return value.isoformat()


# The flag.


def format_switch(snapshot: Snapshot) -> str:
    """Return ON or OFF, in capitals, so that it stands out."""
    return "ON" if snapshot.enabled else "OFF"


def describe_flag(snapshot: Snapshot, store: str, *, now: dt.datetime) -> str:
    """Return a headline, and a line for each detail."""
    lines = (f"\n  {label:<12}{value}" for label, value in list_details(snapshot, now=now).items())
    return f"{format_headline(snapshot, store)}{''.join(lines)}"


def format_headline(snapshot: Snapshot, store: str) -> str:
    """Say in one line whether maintenance is on."""
    return f"maintenance is {format_switch(snapshot)} in {store} (revision {snapshot.revision})"


def list_details(snapshot: Snapshot, *, now: dt.datetime) -> dict[str, str]:
    """Return each detail that is set, as a label and a text for a terminal."""
    until, changed = snapshot.until, snapshot.updated_at
    details = {
        "mode": f"{snapshot.mode} ({_MODES[snapshot.mode]})" if snapshot.enabled else None,
        "message": snapshot.message,
        "until": until and f"{format_time(until)} ({_describe_end(snapshot, until - now)})",
        "retry after": None if snapshot.retry_after is None else f"{snapshot.retry_after} s",
        "actor": snapshot.actor,
        "updated by": snapshot.updated_by,
        "reason": snapshot.reason,
        "problems": "; ".join(snapshot.problems),
        "changed": changed and f"{format_time(changed)} ({format_span((now - changed).total_seconds())} ago)",
    }
    return {label: escape(str(value)) for label, value in details.items() if value}


def _describe_end(snapshot: Snapshot, left: dt.timedelta) -> str:
    if left > dt.timedelta():
        return f"in {format_span(left.total_seconds())}"
    return "passed; maintenance stays on until you run `maintenance off`" if snapshot.enabled else "passed"


# A process.


def format_id(instance: Instance) -> str:
    """Return the beginning of an ID, which is enough for `maintenance forget`."""
    return instance.id[:8]


def format_process(instance: Instance) -> str:
    """Return the host, pid, program and ID of a process."""
    return escape(f"{instance.host} pid {instance.pid} ({instance.program}, id {format_id(instance)})")


def format_seen(instance: Instance) -> str:
    """Say how long ago a process last reported."""
    if instance.problem and not instance.silent_for:
        return "at an unknown time"
    return f"{format_span(instance.silent_for)} ago"


def is_silent(instance: Instance) -> bool:
    """Return whether a process has missed a heartbeat. It may write one up to one lease late.

    A row that cannot be trusted shows no heartbeat.
    """
    return bool(instance.problem) or instance.silent_for > HEARTBEAT + instance.ttl


def compute_answer_age(instance: Instance) -> float | None:
    """Return how many seconds old a process's copy of the flag can be; None if it has acknowledged none.

    The copy was at most one lease old when the process last reported. A process that blocks never uses an older one.
    """
    if instance.revision is None or instance.problem:
        return None
    return instance.ttl if instance.when_stale == "block" else instance.ttl + max(instance.silent_for, 0.0)


def describe_report(instance: Instance, *, work: bool = True) -> str:
    """Say when a process last reported and, with `work`, what it was doing then."""
    seen = f"last seen {format_seen(instance)}"
    if not work:
        return seen
    revision = "no revision yet" if instance.revision is None else f"revision {instance.revision}"
    parts = [f"{seen} with {revision}", "requests in flight unknown"]
    if instance.in_flight is not None:
        parts[1] = f"{format_count(instance.in_flight, 'request')} in flight"
    if instance.in_flight and instance.oldest:
        parts[1] += f" (oldest: {instance.oldest}, running for {format_span(instance.oldest_for)} if it has not ended)"
    if instance.websockets:
        parts.append(f"{format_count(instance.websockets, 'WebSocket')} open")
    return ", ".join(parts)

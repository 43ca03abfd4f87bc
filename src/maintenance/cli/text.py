"""How values look: text for people, JSON for machines."""

import contextlib
import datetime as dt
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal, TextIO

from maintenance.base.flags import SEEDED
from maintenance.base.instances import Instance
from maintenance.base.values import Mode, Snapshot
from maintenance.proof.membership import HEARTBEAT

_JOINERS: Final = "\u200c\u200d"
"""Parts of Persian words and of emoji. They are not printable, but harmless in a terminal."""

_BLANKS: Final = "\u115f\u1160\u2800\u3164\uffa0"
"""They are printable, and a terminal shows nothing."""

_MODES: Final[dict[Mode, str]] = {"full": "all requests are refused", "read_only": "GET, HEAD and OPTIONS pass"}


Color = Literal["red", "green", "yellow", "cyan", "magenta", ""]

_CODES: Final[dict[Color, int]] = {"red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}

MAX_HOST: Final = 20
"""The longest host name that a person is shown. The names of pods differ at both ends."""


def has_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at a stream."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def paint(text: str, color: Color, stream: TextIO | None = None) -> str:
    """Color a text for a terminal, unless NO_COLOR is set (no-color.org). The text has been escaped."""
    if not color or os.environ.get("NO_COLOR") or not has_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[color]}m{text}\x1b[0m"


def escape(text: str) -> str:
    """Escape control characters: paths come from visitors and could contain terminal control sequences."""
    return "".join(sign if _is_shown(sign) else ascii(sign)[1:-1] for sign in text)


def _is_shown(sign: str) -> bool:
    return (sign.isprintable() and sign not in _BLANKS) or sign in _JOINERS


def print_error(text: object, *, label: str = "maintenance", color: Color = "red") -> None:
    """Print one line to stderr, after everything that stdout has."""
    sys.stdout.flush()
    print(f"{paint(label, color, sys.stderr)}: {escape(str(text))}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning for people. Machines do not need it, so it goes to stderr with ``--json`` too."""
    print_error(text, label="warning", color="yellow")


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


def format_table(rows: Sequence[Mapping[str, str]], *, dispensable: Sequence[str] = ()) -> list[str]:
    """Align the cells of rows under their headings, which every row has alike.

    Args:
        rows: The cells of each row by their headings.
        dispensable: The headings of columns that a narrow terminal leaves out, the first one first.
    """
    for count in range(len(dispensable) + 1):
        headings = [heading for heading in rows[0] if heading not in dispensable[:count]]
        # Two blanks separate columns, so no cell may have them.
        cells = [headings, *([row[heading].replace("  ", " \\x20") for heading in headings] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        if not has_terminal(sys.stdout) or sum(widths) + 2 * len(widths) - 2 <= shutil.get_terminal_size().columns:
            break
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def print_json(value: object) -> None:
    """Print one line of JSON in one write: if the command is ended, no reader sees half a line."""
    print(f"{format_json(value)}\n", end="", flush=True)


def format_json(value: object) -> str:
    """Return one line of JSON."""
    return json.dumps(value, default=convert_to_text)


def convert_to_text(value: object) -> str:
    """Return a value that JSON has no type for as text, and a time in UTC."""
    if not isinstance(value, dt.datetime):
        return str(value)
    with contextlib.suppress(OverflowError):
        value = value.astimezone(dt.UTC)
    return value.isoformat()


# The flag.


def format_switch(snapshot: Snapshot) -> str:
    """Return ON or OFF, in capitals, so that it stands out."""
    return "ON" if snapshot.enabled else "OFF"


def choose_color(snapshot: Snapshot) -> Color:
    """Return the color of a flag."""
    return "yellow" if snapshot.enabled else "cyan" if is_planned(snapshot) else "green"


def is_planned(snapshot: Snapshot) -> bool:
    """Return whether maintenance is to begin."""
    return not snapshot.enabled and snapshot.starts is not None


def format_kept(snapshot: Snapshot) -> str:
    """Return what stays as it is when a wait ends early."""
    return "the schedule" if is_planned(snapshot) else f"maintenance {format_switch(snapshot)}"


def describe_flag(snapshot: Snapshot, store: str, *, now: dt.datetime) -> str:
    """Return a headline, and a line for each detail."""
    lines = (f"\n  {label:<11} {value}" for label, value in list_details(snapshot, now=now).items())
    return f"{format_headline(snapshot, store)}{''.join(lines)}"


def format_headline(snapshot: Snapshot, store: str) -> str:
    """Say in one line whether maintenance is on."""
    planned = ", and planned," if is_planned(snapshot) else ""
    switch = paint(format_switch(snapshot), choose_color(snapshot))
    flag = f"maintenance{format_where(snapshot)} is {switch}{planned}"
    return f"{flag} in {store} (revision {snapshot.revision})"


def format_where(snapshot: Snapshot) -> str:
    """Name the scope of a flag; empty for the site."""
    return "" if snapshot.scope is None else f" for {snapshot.scope}"


def describe_replaced(before: Snapshot) -> str:
    """Say in one line what a flip replaced."""
    since = before.updated_at and f"since {format_time(before.updated_at)}"
    state = f"on, {before.mode}" if before.enabled else "planned"
    who = before.actor or str(before.updated_by or "")
    parts = [state, since or "", who and f"by {who}", f"because: {before.reason}" if before.reason else ""]
    return escape(", ".join(filter(None, parts)))


def build_flag_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a flag for machines. Of a secret link, only whether there is one."""
    return asdict(snapshot) | {"secret": snapshot.secret is not None}


def list_details(snapshot: Snapshot, *, now: dt.datetime) -> dict[str, str]:
    """Return each detail that is set, as a label and a text for a terminal."""
    until, changed = snapshot.until, None if snapshot.updated_at == SEEDED else snapshot.updated_at
    details = {
        "mode": f"{snapshot.mode} ({_MODES[snapshot.mode]})" if snapshot.enabled else None,
        "message": snapshot.message,
        **{f"in {language}": text for language, text in (snapshot.messages or {}).items()},
        "starts": snapshot.starts and f"{format_time(snapshot.starts)} ({_describe_start(snapshot.starts - now)})",
        "until": until and f"{format_time(until)} ({_describe_end(snapshot, until - now)})",
        "retry after": None if snapshot.retry_after is None else f"{snapshot.retry_after} s",
        "secret link": snapshot.secret and "admits whoever has it, until maintenance is switched off",
        "actor": snapshot.actor,
        "updated by": snapshot.updated_by,
        "reason": snapshot.reason,
        "problems": "; ".join(snapshot.problems),
        "changed": changed and f"{format_time(changed)} ({format_span((now - changed).total_seconds())} ago)",
    }
    return {label: escape(str(value)) for label, value in details.items() if value}


def _describe_start(left: dt.timedelta) -> str:
    return f"in {format_span(left.total_seconds())}" if left > dt.timedelta() else "begun"


def _describe_end(snapshot: Snapshot, left: dt.timedelta) -> str:
    if left > dt.timedelta():
        effect = "; it ends then" if snapshot.auto_off else ""
        return f"in {format_span(left.total_seconds())}{effect}"
    return "passed; maintenance stays on until you run `maintenance off`" if snapshot.enabled else "passed"


# A process.


def format_id(instance: Instance) -> str:
    """Return the beginning of an ID, which is enough for `maintenance forget`."""
    return instance.id[:8]


def format_process(instance: Instance) -> str:
    """Return the host, pid, program and ID of a process."""
    return escape(f"{instance.host} pid {instance.pid} ({instance.program}, id {format_id(instance)})")


def shorten_host(instance: Instance) -> str:
    """Return the host of a process. A long name is cut in its middle if a person looks at it."""
    host, half = instance.host, (MAX_HOST - 1) // 2
    is_short = len(host) <= MAX_HOST or not has_terminal(sys.stdout)
    return escape(host if is_short else f"{host[:half]}…{host[-half:]}")


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

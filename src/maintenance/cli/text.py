"""Words and numbers for people, and JSON for machines."""

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from maintenance.base.values import Instance, Snapshot
from maintenance.proof.membership import HEARTBEAT

_PASSWORDS: Final = re.compile(r":(?!//)\S*@|(password=)(?:'[^']*'|[^\s&]+)", re.IGNORECASE)

_JOINERS: Final = "\u200c\u200d"
"""Parts of Persian words and of emoji, which no terminal obeys."""


def scrub(text: str) -> str:
    """The text without the passwords of the URLs in it."""
    return _PASSWORDS.sub(lambda found: f"{found[1]}***" if found[1] else ":***@", text)


def printable(text: str) -> str:
    """The text with each control character escaped: a visitor chooses his path, and a terminal obeys what it reads."""
    return "".join(sign if sign.isprintable() or sign in _JOINERS else ascii(sign)[1:-1] for sign in text)


def local(when: dt.datetime) -> str:
    """An aware time in the time zone of this machine; as it is where that has no such year."""
    with contextlib.suppress(OverflowError):
        when = when.astimezone()
    return f"{when.replace(tzinfo=None).isoformat(' ', 'seconds')} {when.tzname()}"


def span(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 0.995:
        return f"{max(seconds, 0.0):.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def number(count: int, noun: str) -> str:
    """A count and its noun."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"


def to_json(value: object) -> str:
    """One line of JSON; times in UTC."""
    return json.dumps(value, default=_plain)


def emit(value: object) -> None:
    """Print one line of JSON at once: whatever ends the command, no reader sees half of it."""
    print(f"{to_json(value)}\n", end="", flush=True)


def _plain(value: object) -> str:
    if not isinstance(value, dt.datetime):
        return str(value)
    with contextlib.suppress(OverflowError):
        value = value.astimezone(dt.UTC)
    return value.isoformat()


def flag_json(snapshot: Snapshot, store: str) -> dict[str, Any]:
    """Every field of a snapshot, and the store that it is from."""
    return {**asdict(snapshot), "store": store}


def word(snapshot: Snapshot) -> str:
    """On or off, so that it is seen."""
    return "ON" if snapshot.enabled else "OFF"


def flag(snapshot: Snapshot, store: str, *, now: dt.datetime) -> list[str]:
    """What is known of the flag, a line each."""
    said: list[tuple[str, str | None]] = [
        ("store", store),
        *_for_visitors(snapshot, now=now),
        ("actor", snapshot.actor),
        ("updated by", str(snapshot.updated_by) if snapshot.updated_by else None),
        ("reason", snapshot.reason),
        ("revision", str(snapshot.revision)),
        ("changed", f"{local(when)} ({_ago(when, now=now)})" if (when := snapshot.updated_at) else None),
    ]
    return [f"maintenance is {word(snapshot)}", *_listed(said)]


def flipped(snapshot: Snapshot, store: str, *, now: dt.datetime) -> list[str]:
    """What was written, and what visitors get by it, a line each: where a typo is seen at once."""
    first = f"maintenance is {word(snapshot)} in {store} (revision {snapshot.revision})"
    return [first, *_listed(_for_visitors(snapshot, now=now))]


def _for_visitors(snapshot: Snapshot, *, now: dt.datetime) -> list[tuple[str, str | None]]:
    return [
        ("mode", _mode(snapshot) if snapshot.enabled else None),
        ("message", snapshot.message),
        ("until", f"{local(snapshot.until)} ({_left(snapshot, now=now)})" if snapshot.until else None),
        ("retry after", None if snapshot.retry_after is None else f"{snapshot.retry_after} s"),
    ]


def _listed(said: Iterable[tuple[str, str | None]]) -> list[str]:
    return [f"  {name:<12}{printable(text)}" for name, text in said if text]


def _mode(snapshot: Snapshot) -> str:
    meaning = "everything is refused" if snapshot.mode == "full" else "GET, HEAD and OPTIONS pass"
    return f"{snapshot.mode} ({meaning})"


def _left(snapshot: Snapshot, *, now: dt.datetime) -> str:
    if not ended(snapshot, now=now):
        return f"in {span((snapshot.until - now).total_seconds())}" if snapshot.until else ""
    return "the expected end has passed; it stays on until somebody switches it off" if snapshot.enabled else "passed"


def ended(snapshot: Snapshot, *, now: dt.datetime) -> bool:
    """Whether the expected end has passed."""
    return snapshot.until is not None and snapshot.until <= now


def _ago(when: dt.datetime, *, now: dt.datetime) -> str:
    return f"{span((now - when).total_seconds())} ago"


def change(snapshot: Snapshot) -> str:
    """One line for a flag that has changed."""
    parts = [
        f"maintenance is {word(snapshot):<3}",
        f"revision {snapshot.revision}",
        snapshot.mode if snapshot.enabled and snapshot.mode != "full" else None,
        snapshot.actor and f"by {snapshot.actor}",
        snapshot.until and f"until {local(snapshot.until)}",
        snapshot.message and f"message: {snapshot.message}",
        snapshot.reason and f"reason: {snapshot.reason}",
    ]
    return printable("  ".join(part for part in parts if part))


def short(instance: Instance) -> str:
    """Enough of an id to tell it from others, and to forget it by."""
    return instance.id[:8]


def name(instance: Instance) -> str:
    """Where a process is, and which."""
    return printable(f"{instance.host} pid {instance.pid} ({instance.program}, id {short(instance)})")


def is_silent(instance: Instance) -> bool:
    """Whether an instance has missed a heartbeat, which a process can write one lease late."""
    return instance.silent_for > HEARTBEAT + instance.ttl


def answer_age(instance: Instance) -> float | None:
    """Seconds that the answer which an instance admits by can be old at most; None where it has acknowledged none.

    When it last wrote, its answer was at most one lease old; one that blocks enforces that on itself.
    """
    if instance.revision is None:
        return None
    return instance.ttl if instance.when_stale == "block" else instance.ttl + max(instance.silent_for, 0.0)


def last_known(instance: Instance) -> str:
    """What an instance was doing when it last wrote, and when that was."""
    held = "it had read nothing yet" if instance.revision is None else f"it held revision {instance.revision}"
    return printable(f"{last_seen(instance)}: {held}, {_work(instance)}")


def last_seen(instance: Instance) -> str:
    """How long an instance has been silent."""
    return f"last seen {span(instance.silent_for)} ago"


def _work(instance: Instance) -> str:
    if instance.in_flight is None:
        flying = "requests in flight unknown"
    else:
        flying = f"{number(instance.in_flight, 'request')} in flight"
    if instance.in_flight and instance.oldest:
        flying += f" (the oldest {instance.oldest} for {span(instance.oldest_for)}, if it still runs)"
    return flying + (f", {number(instance.websockets, 'WebSocket')} open" if instance.websockets else "")


def instance_json(instance: Instance) -> dict[str, Any]:
    """Every field of an instance, and what follows from them."""
    return {**asdict(instance), "answer_age_at_most": answer_age(instance), "silent": is_silent(instance)}


HEADINGS: Final = (
    "ID", "HOST", "PID", "PROGRAM", "VERSION", "POLICY", "LEASE", "REVISION", "ANSWER AGE", "IN FLIGHT", "LAST SEEN",
)  # fmt: skip


def row(instance: Instance, *, revision: object) -> tuple[str, ...]:
    """One line of the fleet.

    Args:
        instance: Whose.
        revision: Of the flag.
    """
    age = answer_age(instance)
    behind = "" if instance.revision == revision else " behind"
    silent = " SILENT" if is_silent(instance) else ""
    return (
        short(instance), printable(instance.host), str(instance.pid), printable(instance.program),
        printable(instance.version), instance.when_stale, span(instance.ttl),
        f"{'none' if instance.revision is None else instance.revision}{behind}",
        "none" if age is None else f"at most {span(age)}", _load(instance), f"{span(instance.silent_for)} ago{silent}",
    )  # fmt: skip


def _load(instance: Instance) -> str:
    flying = "unknown" if instance.in_flight is None else str(instance.in_flight)
    return flying + (f" + {number(instance.websockets, 'WebSocket')}" if instance.websockets else "")


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines with aligned columns."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]

"""Requests in flight without a server."""

from typing import Any

from maintenance.process.in_flight import InFlight
from maintenance.process.lease import Answer


def enter(flight: InFlight, *facts: Any) -> list[Any]:
    """Enter (method, path, root, raw, start) as an adapter does; it leaves when it is cleared."""
    method, path, root, raw, start = facts
    entry = [method, path, root, start, raw]
    flight.table.append(entry)
    if len(flight.table) > flight.room:
        flight.sweep()
    return entry


def is_open(answer: Answer) -> bool:
    """Whether an answer admits everything."""
    return not answer.snapshot.enabled

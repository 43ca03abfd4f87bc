"""The processes of a fleet, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from maintenance.base.flags import Reading
from maintenance.base.values import WhenStale

MAX_NAME: Final = 1000
"""The longest host, program or other text in the row of an instance, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process that serves with a state, as it reports itself.

    Attributes:
        id: A UUID in hexadecimal, new for each process and each fork.
        host: The machine's name.
        boot: Identifies one boot and one process namespace of that machine.
        pid: The process id, in that namespace.
        program: Which program runs, for people.
        version: Of this library.
        when_stale: ``block`` enforces its lease on itself; ``serve`` does not.
        ttl: The lease, in seconds.
        revision: The revision that it has installed and acknowledged; None before the first.
        in_flight, websockets, oldest, oldest_age, drains: See `Load`; `in_flight` is None if requests are not tracked.
        service: Which kind of process it is, such as ``web``.
        silent_for: Seconds since it last wrote, by the store's clock; 0 in a report.
        problem: Why its row cannot be trusted; None if it can. Each wrong value is replaced by a harmless one.
    """

    id: str
    host: str
    boot: str
    pid: int
    program: str
    version: str
    when_stale: WhenStale
    ttl: float
    revision: int | None = None
    in_flight: int | None = None
    websockets: int = 0
    oldest: str | None = None
    oldest_age: float | None = None
    drains: Mapping[str, int] = field(default_factory=dict)
    service: str = ""
    silent_for: float = 0.0
    problem: str | None = None

    @property
    def oldest_for(self) -> float:
        """Seconds that the oldest request has run by now, if it still runs."""
        return (self.oldest_age or 0.0) + max(self.silent_for, 0.0)


class Load(NamedTuple):
    """What a process has in flight.

    Attributes:
        in_flight: Requests that the site's flag refuses: their mode refuses them, and neither a rule nor a bypass lets
            them pass. While that flag is off, all requests.
        websockets: Open WebSockets, whether refused or not.
        oldest: The oldest of `in_flight`, as ``"GET /path"``.
        oldest_age: Its age in seconds.
        drains: For each scope whose drain an operator waits for: the requests in flight that its flag refuses.
    """

    in_flight: int = 0
    websockets: int = 0
    oldest: str | None = None
    oldest_age: float | None = None
    drains: Mapping[str, int] = {}


SENTINEL: Final = Instance(
    id="0" * 32, host="", boot="", pid=0, program="the table is whole", version="", when_stale="block", ttl=1.0
)
"""A row that is created with the table and is not an instance. If it is missing, the table was emptied since."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Every registered instance, and the flags, as **one** statement found them.

    Attributes:
        reading: The flags.
        instances: The registered instances.
        intact: False if `SENTINEL` is missing: other instances may have been deleted with it.
    """

    reading: Reading
    instances: tuple[Instance, ...]
    intact: bool

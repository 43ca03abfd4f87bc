"""The values that travel through the package. Frozen, plain, and ignorant of every store and framework."""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, NamedTuple, Self, get_args
from uuid import UUID

from maintenance.errors import FlagError

KEY: Final = "maintenance_mode"
"""The key of the flag's row in ``platform_settings``."""

CHANNEL: Final = "platform_settings"
"""The channel that PostgreSQL notifies; the payload is the key of the row that changed."""

Mode = Literal["full", "read_only"]
Source = Literal["store", "environment", "default"]
WhenStale = Literal["serve", "block"]

WEBSOCKET: Final = "WEBSOCKET"
"""The method of a WebSocket, which has none of its own."""

MAX_TEXT: Final = 10_000
"""The longest message, actor or reason, in characters: a page and an audit line, not a document."""

MAX_RETRY_AFTER: Final = 2**31 - 1
"""The largest ``retry_after``, in seconds: what RFC 9111, section 1.2.2 asks every recipient to understand."""

MAX_SHOWN: Final = 100
"""The longest piece of a wrong value that an error quotes, in characters: it goes into a log, again and again."""

_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is said about a maintenance, beside whether it is on.

    Attributes:
        mode: ``full`` refuses everything, ``read_only`` lets GET, HEAD and OPTIONS pass.
        message: What visitors are told.
        until: When it is expected to end; aware.
        retry_after: Seconds, sent as ``Retry-After``.
        actor: Who flipped it, as text.
        reason: Why, for the record; never shown to visitors.
    """

    mode: Mode = "full"
    message: str | None = None
    until: dt.datetime | None = None
    retry_after: int | None = None
    actor: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no store could hold or no request could be answered with.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value of the right type is out of range.
        """
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {_shown(self.mode)}: write 'full' or 'read_only'")
        for name in ("message", "actor", "reason"):
            _check_text(name, getattr(self, name))
        _check_until(self.until)
        _check_retry_after(self.retry_after)

    def to_json(self) -> dict[str, Any]:
        """The details as the store keeps them: only what differs from the default, times in ISO 8601."""
        usual = asdict(type(self)())
        said = {name: value for name, value in asdict(self).items() if value != usual[name]}
        if self.until is not None:
            said["until"] = self.until.astimezone(dt.UTC).isoformat()
        return said

    @classmethod
    def from_json(cls, stored: object) -> Self:
        """Parse what a store holds. Unknown names are left for newer versions.

        Raises:
            TypeError, ValueError: It is not what `to_json` writes.
        """
        if not isinstance(stored, Mapping):
            raise TypeError(f"details is {_shown(stored)}: write a JSON object, such as {{}}")
        said = {field.name: stored[field.name] for field in fields(cls) if stored.get(field.name) is not None}
        if "until" in said:
            said["until"] = _stored_time(said["until"])
        return cls(**said)


def _shown(value: object) -> str:
    """A wrong value, as an error quotes it."""
    said = repr(value)
    return said if len(said) <= MAX_SHOWN else f"{said[:MAX_SHOWN]}..."


def _stored_time(stored: Any) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(stored)
    except (TypeError, ValueError):
        raise ValueError(
            f"until is {_shown(stored)}: write an ISO 8601 time, such as '2031-05-01T12:30:00+00:00'"
        ) from None


def _check_text(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}: write a str or None")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{name} has {len(value)} characters: write at most {MAX_TEXT}")
    if _UNWRITABLE.search(value):
        raise ValueError(f"{name} holds a NUL or half of a surrogate pair, which no store can keep: leave it out")


def _check_until(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, dt.datetime):
        raise TypeError(f"until is a {type(value).__name__}: write an aware datetime or None")
    if value.utcoffset() is None:
        raise ValueError(f"until is {value}, which names no time zone: write it with one, such as tzinfo=UTC")
    try:
        value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError(f"until is {value}, which is outside the years 1 to 9999 in UTC: write another") from None


def _check_retry_after(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"retry_after is a {type(value).__name__}: write whole seconds as an int, or None")
    if not 0 <= value <= MAX_RETRY_AFTER:
        raise ValueError(f"retry_after is {_shown(value)}: write seconds between 0 and {MAX_RETRY_AFTER}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A flip that is asked for: checked, and ready to be written in one statement."""

    enabled: bool
    details: Details
    updated_by: UUID | None = None
    drain: bool = False

    def __post_init__(self) -> None:
        """Refuse anything but a bool and a UUID.

        Raises:
            TypeError: `enabled` is not a bool, or `updated_by` is not a UUID.
        """
        if not isinstance(self.enabled, bool):
            raise TypeError(f"enabled is {_shown(self.enabled)}: write True or False")
        if self.updated_by is not None and not isinstance(self.updated_by, UUID):
            raise TypeError(f"updated_by is a {type(self.updated_by).__name__}: write a uuid.UUID or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a process knows of the flag: one immutable value, swapped whole.

    Attributes:
        enabled: Whether maintenance is on.
        mode: ``full`` or ``read_only``.
        message: What visitors are told.
        until: When it is expected to end; aware.
        retry_after: Seconds, sent as ``Retry-After``.
        actor: Who flipped it, as text.
        reason: Why, for the record.
        revision: Grows with each change of the flag or a detail; 0 where no store was read.
        updated_at: When the row was last written, by the store's clock; aware.
        updated_by: Who flipped it, as the platform's own key.
        source: ``store``; ``environment`` or ``default`` before the first read; ``default`` too where a process blocks.
        read_at: The clock (seconds, of this machine only) **before** the read was sent; 0 where no store was read.
    """

    enabled: bool
    mode: Mode = "full"
    message: str | None = None
    until: dt.datetime | None = None
    retry_after: int | None = None
    actor: str | None = None
    reason: str | None = None
    revision: int = 0
    updated_at: dt.datetime | None = None
    updated_by: UUID | None = None
    source: Source = "store"
    read_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """The flag's row as a store returned it, unchecked: anybody may have written it."""

    value_bool: object
    details: object
    revision: object
    updated_at: dt.datetime | None = None
    updated_by: UUID | None = None

    def snapshot(self, *, read_at: float, written: Details | None = None) -> Snapshot:
        """Check the row and make it what a process can rest on.

        Raises:
            FlagError: The row is wrong; the message names the column.
        """
        if not isinstance(self.value_bool, bool):
            raise FlagError(
                f"platform_settings.value_bool of {KEY!r} is {_shown(self.value_bool)}: set it to true or false, "
                "or flip it once with set_maintenance() or `maintenance off`"
            )
        if not isinstance(self.revision, int):
            raise FlagError(
                f"platform_settings.revision of {KEY!r} is {_shown(self.revision)}: run `maintenance migrate`"
            )
        try:
            reuse = written is not None and self.details == written.to_json()
            details = written if written is not None and reuse else Details.from_json(self.details)
        except (TypeError, ValueError) as exc:
            raise FlagError(f"platform_settings.details of {KEY!r} is wrong: {exc}") from exc
        return Snapshot(
            enabled=self.value_bool,
            revision=self.revision,
            updated_at=self.updated_at,
            updated_by=self.updated_by,
            read_at=read_at,
            **asdict(details),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read brought: the row, and what the same statement saw beside it.

    Attributes:
        row: The flag's row; None where it is missing.
        primary: False where a standby answered: its answer may lag.
        registered: Whether the asking instance's own row is there.
        drain: Whether an operator waits for requests in flight at this very revision.
        store: The name of the store, for an error.
    """

    row: Row | None
    primary: bool = True
    registered: bool = False
    drain: bool = False
    store: str = "the store"

    def snapshot(self, *, read_at: float) -> Snapshot:
        """The row as a snapshot.

        Raises:
            FlagError: The row is missing or wrong.
        """
        if self.row is None:
            raise FlagError(
                f"{self.store}: platform_settings has no row {KEY!r}: run `maintenance migrate`, "
                "or flip it once with set_maintenance() or `maintenance off`"
            )
        try:
            return self.row.snapshot(read_at=read_at)
        except FlagError as exc:
            raise FlagError(f"{self.store}: {exc}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process that serves with a state, as it reports itself.

    Attributes:
        id: A UUID in hexadecimal, new for each process and each fork.
        host: The machine's name.
        boot: What tells one boot and one process namespace of that machine from another.
        pid: The process id, in that namespace.
        program: What runs, for people.
        version: Of this library.
        when_stale: ``block`` enforces its lease on itself; ``serve`` does not.
        ttl: The lease, in seconds.
        revision: The revision that it has installed and acknowledged; None before the first.
        in_flight: Requests in flight that the acknowledged flag refuses; None where they are not tracked.
        websockets: WebSockets open.
        oldest: The oldest of `in_flight`, as ``"GET /path"``.
        oldest_age: Its age in seconds when it was reported.
        silent_for: Seconds since it last wrote, by the store's clock; 0 in a report.
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
    silent_for: float = 0.0

    @property
    def oldest_for(self) -> float:
        """Seconds that the oldest has run by now, if it still does."""
        return (self.oldest_age or 0.0) + max(self.silent_for, 0.0)


class Load(NamedTuple):
    """What is in flight, in the words of an `Instance`.

    Attributes:
        in_flight: Requests that the flag refuses: of a mode that refuses them, let pass by no rule and no bypass.
            While the flag is off, all of them.
        websockets: WebSockets, whether refused or not.
        oldest: The oldest of `in_flight`, as ``"GET /path"``.
        oldest_age: Its age in seconds.
    """

    in_flight: int = 0
    websockets: int = 0
    oldest: str | None = None
    oldest_age: float | None = None


SENTINEL: Final = Instance(
    id="0" * 32, host="", boot="", pid=0, program="the table is whole", version="", when_stale="block", ttl=1.0
)
"""The row that is no instance, and is made with the table: where it is gone, the table was emptied since."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Every registered instance, and the flag, as **one** statement saw them.

    Attributes:
        reading: The flag.
        instances: The registered ones.
        intact: False where the table of instances was emptied behind the library's back, and `SENTINEL` with it: who
            was in it is unknown.
    """

    reading: Reading
    instances: tuple[Instance, ...]
    intact: bool

"""The values that travel through the package: frozen, plain, and independent of every store and framework."""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, NamedTuple, Self, TypeGuard, get_args
from uuid import UUID

from maintenance.base.quoting import quote
from maintenance.errors import FlagError

KEY: Final = "maintenance_mode"
"""The key of the flag's row in ``platform_settings``."""

Mode = Literal["full", "read_only"]
Source = Literal["store", "environment", "default"]
WhenStale = Literal["serve", "block"]

WEBSOCKET: Final = "WEBSOCKET"
"""The method of a WebSocket, which has none of its own."""

MAX_TEXT: Final = 10_000
"""The longest message, actor or reason, in characters: a page and an audit line, not a document."""

MAX_RETRY_AFTER: Final = 2**31 - 1
"""The largest ``retry_after``, in seconds, that RFC 9111, section 1.2.2 asks every recipient to understand."""

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """The details of a maintenance, which are written together with the flag.

    Attributes:
        mode: ``full`` refuses everything, ``read_only`` lets GET, HEAD and OPTIONS pass.
        message: Shown to visitors.
        until: The expected end, in UTC.
        retry_after: Seconds, sent as ``Retry-After``.
        actor: Who flipped the flag, as text.
        reason: Why, for the record; never shown to visitors.
    """

    mode: Mode = "full"
    message: str | None = None
    until: dt.datetime | None = None
    retry_after: int | None = None
    actor: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no store could hold or no request could be answered with; keep `until` in UTC.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value of the right type is out of range.
        """
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {quote(self.mode)}: use 'full' or 'read_only'")
        for name in ("message", "actor", "reason"):
            if (text := getattr(self, name)) is not None:
                _check_text(name, text)
        if self.until is not None:
            object.__setattr__(self, "until", _in_utc(self.until))
        if self.retry_after is not None:
            _check_retry_after(self.retry_after)

    def to_json(self) -> dict[str, Any]:
        """The details as a store keeps them: without defaults, times in ISO 8601."""
        values = {it.name: value for it in fields(self) if (value := getattr(self, it.name)) != it.default}
        return values | ({"until": self.until.isoformat()} if self.until else {})

    @classmethod
    def from_json(cls, stored: object) -> tuple[Self, tuple[str, ...]]:
        """Parse what a store holds. People may write it by hand, in an emergency, so nothing is refused.

        Returns:
            The details, and what is wrong. A wrong detail counts as absent. Names that this version does not know are
            ignored, because another version may have written them.
        """
        if not isinstance(stored, Mapping):
            return cls(), (f"details is {quote(stored)}: use a JSON object, such as {{}}",)
        values: dict[str, Any] = {}
        problems: list[str] = []
        for name in (it.name for it in fields(cls) if stored.get(it.name) is not None):
            try:
                one: dict[str, Any] = {name: _parse_time(stored[name]) if name == "until" else stored[name]}
                values[name] = getattr(cls(**one), name)
            except (TypeError, ValueError) as exc:
                problems.append(str(exc))
        return cls(**values), tuple(problems)


def _parse_time(stored: Any) -> dt.datetime:
    with suppress(TypeError, ValueError):
        when = dt.datetime.fromisoformat(stored)
        if when.utcoffset() is not None:
            return when
    raise ValueError(
        f"until is {quote(stored)}: use an ISO 8601 time with a time zone, such as '2031-05-01T12:30:00+00:00'"
    )


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}: use a str or None")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{name} has {len(value)} characters: use at most {MAX_TEXT}")
    if _UNSTORABLE.search(value):
        raise ValueError(f"{name} has a NUL or half of a surrogate pair, which no store can keep: remove it")


def _in_utc(value: object) -> dt.datetime:
    if not isinstance(value, dt.datetime):
        raise TypeError(f"until is a {type(value).__name__}: use an aware datetime or None")
    if value.utcoffset() is None:
        raise ValueError(f"until is {value}, which names no time zone: add one, such as tzinfo=UTC")
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError(f"until is {value}, which is outside the years 1 to 9999 in UTC: use another time") from None


def _check_retry_after(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"retry_after is a {type(value).__name__}: use whole seconds as an int, or None")
    if not 0 <= value <= MAX_RETRY_AFTER:
        raise ValueError(f"retry_after is {quote(value)}: use seconds between 0 and {MAX_RETRY_AFTER}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A flip to write in one statement.

    Attributes:
        enabled: Whether maintenance is on.
        details: All of them; a detail that is not given is emptied.
        updated_by: Who flips it, as the platform's own key.
        drain: Whether to ask for a drain at the revision of this very change; see `Session.ask_drain`.
    """

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
            raise TypeError(f"enabled is {quote(self.enabled)}: use True or False")
        if self.updated_by is not None and not isinstance(self.updated_by, UUID):
            raise TypeError(f"updated_by is a {type(self.updated_by).__name__}: use a uuid.UUID or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The flag as a process holds it: one immutable value, replaced as a whole.

    Attributes:
        enabled: Whether maintenance is on.
        mode, message, until, retry_after, actor, reason: See `Details`.
        revision: Grows with each change of the flag or a detail; 0 if no store was read.
        updated_at: When the row was last written, by the store's clock; aware.
        updated_by: Who flipped it, as the platform's own key.
        source: ``store``; ``environment`` or ``default`` before the first read; ``default`` too if a process blocks.
        read_at: The clock (seconds, of this machine only) **before** the read was sent; 0 if no store was read.
        problems: What is wrong in the row besides the flag. Each wrong value counts as absent.
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
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """The flag's row as a store returned it. Unchecked, because people may write it by hand."""

    value_bool: object
    details: object
    revision: object
    updated_at: object = None
    updated_by: object = None

    def snapshot(self, *, read_at: float, written: Details | None = None) -> Snapshot:
        """Check the row. If the flag is right, it is followed, whatever else is wrong.

        Args:
            read_at: The clock before the read was sent; see `Snapshot`.
            written: The details that this process has just written. If the row has them, they are not parsed again.

        Raises:
            FlagError: The flag or its revision is wrong; the message names the column.
        """
        if not isinstance(self.value_bool, bool):
            raise FlagError(
                f"platform_settings.value_bool of {KEY!r} is {quote(self.value_bool)}: set it to true or false, "
                "or flip it once with set_maintenance() or `maintenance off`"
            )
        if not isinstance(self.revision, int):
            raise FlagError(
                f"platform_settings.revision of {KEY!r} is {quote(self.revision)}: run `maintenance migrate`"
            )
        details, problems = self._parse_details(written)
        return Snapshot(
            enabled=self.value_bool,
            revision=self.revision,
            updated_at=self.updated_at if _is_time(self.updated_at) else None,
            updated_by=self.updated_by if isinstance(self.updated_by, UUID) else None,
            read_at=read_at,
            problems=(*problems, *self._list_problems()),
            **asdict(details),
        )

    def _parse_details(self, written: Details | None) -> tuple[Details, tuple[str, ...]]:
        if written is not None and self.details == written.to_json():
            return written, ()
        return Details.from_json(self.details)

    def _list_problems(self) -> Iterator[str]:
        """What is wrong in the other columns."""
        if self.updated_at is not None and not _is_time(self.updated_at):
            yield f"updated_at is {quote(self.updated_at)}: set it to the current time"
        if self.updated_by is not None and not isinstance(self.updated_by, UUID):
            yield f"updated_by is {quote(self.updated_by)}: set it to a UUID, or to NULL"


def _is_time(value: object) -> TypeGuard[dt.datetime]:
    return isinstance(value, dt.datetime) and value.utcoffset() is not None


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of one read: the row, and what the same statement found besides.

    Attributes:
        row: The flag's row; None if it is missing.
        primary: False if a standby answered, whose answer may lag.
        registered: Whether the row of the instance that reads exists.
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
        in_flight, websockets, oldest, oldest_age: See `Load`; `in_flight` is None if requests are not tracked.
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
    silent_for: float = 0.0
    problem: str | None = None

    @property
    def oldest_for(self) -> float:
        """Seconds that the oldest request has run by now, if it still runs."""
        return (self.oldest_age or 0.0) + max(self.silent_for, 0.0)


class Load(NamedTuple):
    """What a process has in flight.

    Attributes:
        in_flight: Requests that the flag refuses: their mode refuses them, and neither a rule nor a bypass lets them
            pass. While the flag is off, all requests.
        websockets: Open WebSockets, whether refused or not.
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
"""A row that is created with the table and is not an instance. If it is missing, the table was emptied since."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Every registered instance, and the flag, as **one** statement found them.

    Attributes:
        reading: The flag.
        instances: The registered instances.
        intact: False if `SENTINEL` is missing: other instances may have been deleted with it.
    """

    reading: Reading
    instances: tuple[Instance, ...]
    intact: bool

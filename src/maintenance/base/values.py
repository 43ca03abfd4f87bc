"""The values that travel through the package: frozen, plain, and independent of every store and framework."""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, Self, TypeGuard, get_args
from uuid import UUID

from maintenance.base.languages import parse_language
from maintenance.base.quoting import quote
from maintenance.base.scopes import check_scope, scope_key
from maintenance.base.secret import check_hash
from maintenance.errors import FlagError

Mode = Literal["full", "read_only"]
Source = Literal["store", "environment", "default"]
WhenStale = Literal["serve", "block"]

WEBSOCKET: Final = "WEBSOCKET"
"""The method of a WebSocket, which has none of its own."""

MAX_TEXT: Final = 10_000
"""The longest message, actor or reason, in characters: a page and an audit line, not a document."""

MAX_LANGUAGES: Final = 50
"""The most languages of one message."""

MAX_MESSAGES: Final = 20_000
"""The most characters of one message in all of its languages, so that the details of a flag fit into its row."""

MAX_RETRY_AFTER: Final = 2**31 - 1
"""The largest ``retry_after``, in seconds, that RFC 9111, section 1.2.2 asks every recipient to understand."""

_TIMES: Final = ("starts", "until")

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """The details of a maintenance, which are written together with the flag.

    Attributes:
        mode: ``full`` refuses everything, ``read_only`` lets GET, HEAD and OPTIONS pass.
        message: Shown to visitors.
        messages: The same by language, for the visitors who read that; None if there is only one.
        starts: When it begins, in UTC; None if it begins with the write.
        until: The expected end, in UTC.
        auto_off: Whether it ends at `until`.
        retry_after: Seconds, sent as ``Retry-After``.
        actor: Who flipped the flag, as text.
        reason: Why, for the record; never shown to visitors.
        secret: The hash of the token that admits whoever holds it.
    """

    mode: Mode = "full"
    message: str | None = None
    messages: Mapping[str, str] | None = field(default=None, hash=False)
    starts: dt.datetime | None = None
    until: dt.datetime | None = None
    auto_off: bool = False
    retry_after: int | None = None
    actor: str | None = None
    reason: str | None = None
    secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what no store could hold or no request could be answered with; keep times in UTC.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value of the right type is out of range.
        """
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {quote(self.mode)}: use 'full' or 'read_only'")
        for name in ("message", "actor", "reason"):
            if (text := getattr(self, name)) is not None:
                _check_text(name, text)
        if self.messages is not None:
            object.__setattr__(self, "messages", _read_messages(self.messages))
        for name in _TIMES:
            if (when := getattr(self, name)) is not None:
                object.__setattr__(self, name, _in_utc(name, when))
        if not isinstance(self.auto_off, bool):
            raise TypeError(f"auto_off is {quote(self.auto_off)}: use True or False")
        if self.retry_after is not None:
            _check_retry_after(self.retry_after)
        if self.secret is not None:
            check_hash(self.secret)

    def to_json(self) -> dict[str, Any]:
        """The details as a store keeps them: without defaults, times in ISO 8601."""
        values = {it.name: value for it in fields(self) if (value := getattr(self, it.name)) != it.default}
        return values | {name: values[name].isoformat() for name in _TIMES if name in values}

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
        for name in (it for it in _DETAILS if stored.get(it) is not None):
            try:
                one: dict[str, Any] = {name: _parse_time(name, stored[name]) if name in _TIMES else stored[name]}
                values[name] = getattr(cls(**one), name)
            except (TypeError, ValueError) as exc:
                problems.append(str(exc))
        return cls(**values), tuple(problems)


_DETAILS: Final = tuple(it.name for it in fields(Details))


def _parse_time(name: str, stored: Any) -> dt.datetime:
    with suppress(TypeError, ValueError):
        when = dt.datetime.fromisoformat(stored)
        if when.utcoffset() is not None:
            return when
    raise ValueError(
        f"{name} is {quote(stored)}: use an ISO 8601 time with a time zone, such as '2031-05-01T12:30:00+00:00'"
    )


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}: use a str or None")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{name} has {len(value)} characters: use at most {MAX_TEXT}")
    if _UNSTORABLE.search(value):
        raise ValueError(f"{name} has a NUL or half of a surrogate pair, which no store can keep: remove it")


def _read_messages(given: object) -> dict[str, str] | None:
    if not isinstance(given, Mapping):
        raise TypeError(f"messages is a {type(given).__name__}: use a mapping from language to text, or None")
    if len(given) > MAX_LANGUAGES:
        raise ValueError(f"messages has {len(given)} languages: use at most {MAX_LANGUAGES}")
    found: dict[str, str] = {}
    for tag, text in given.items():
        language = parse_language(tag)
        if language is None:
            raise ValueError(f"messages has the language {quote(tag)}: use a tag such as 'de' or 'pt-BR'")
        _check_text(f"the message in {language}", text)
        found[language] = text
    if (length := sum(map(len, found.values()))) > MAX_MESSAGES:
        raise ValueError(f"messages has {length} characters in all languages: use at most {MAX_MESSAGES}")
    return found or None


def split_message(message: str | Mapping[str, str] | None) -> dict[str, Any]:
    """Return the details `message` and `messages` of one text, or of a mapping from language to text.

    The first text of a mapping is also the one for visitors who read none of its languages.
    """
    if not isinstance(message, Mapping):
        return {"message": message, "messages": None}
    return {"message": next(iter(message.values()), None), "messages": message or None}


def _in_utc(name: str, value: object) -> dt.datetime:
    if not isinstance(value, dt.datetime):
        raise TypeError(f"{name} is a {type(value).__name__}: use an aware datetime or None")
    if value.utcoffset() is None:
        raise ValueError(f"{name} is {value}, which names no time zone: add one, such as tzinfo=UTC")
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError(f"{name} is {value}, which is outside the years 1 to 9999 in UTC: use another time") from None


def _check_retry_after(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"retry_after is a {type(value).__name__}: use whole seconds as an int, or None")
    if not 0 <= value <= MAX_RETRY_AFTER:
        raise ValueError(f"retry_after is {quote(value)}: use seconds between 0 and {MAX_RETRY_AFTER}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A flip to write in one step.

    Attributes:
        enabled: Whether maintenance is on, or is to begin at `Details.starts`.
        details: All of them; a detail that is not given is emptied.
        scope: Which flag; None for the site's.
        updated_by: Who flips it, as the platform's own key.
        drain: Whether to ask for a drain at the revision of this very change; see `Session.ask_drain`.
        if_revision: Write only if the flag is at this revision; 0 stands for a flag without a row.
    """

    enabled: bool
    details: Details
    scope: str | None = None
    updated_by: UUID | None = None
    drain: bool = False
    if_revision: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense together.

        Raises:
            TypeError, ValueError: A value is of the wrong type, or does not fit the others.
        """
        if not isinstance(self.enabled, bool):
            raise TypeError(f"enabled is {quote(self.enabled)}: use True or False")
        check_scope(self.scope)
        if self.updated_by is not None and not isinstance(self.updated_by, UUID):
            raise TypeError(f"updated_by is a {type(self.updated_by).__name__}: use a uuid.UUID or None")
        if isinstance(self.if_revision, bool) or not isinstance(self.if_revision, int | None):
            raise TypeError(f"if_revision is {quote(self.if_revision)}: use the revision of a Snapshot, or None")
        self._check_schedule()

    def _check_schedule(self) -> None:
        starts, until, auto_off = self.details.starts, self.details.until, self.details.auto_off
        if self.details.secret is not None and not self.enabled:
            raise ValueError("secret is given and enabled is False: leave secret out: a link ends with its flag")
        if starts is not None and not self.enabled:
            raise ValueError("starts is given and enabled is False: leave starts out, which also cancels a schedule")
        if auto_off and until is None:
            raise ValueError("auto_off is True and until is None: say when it ends, or use auto_off=False")
        if starts is not None and until is not None and until <= starts:
            raise ValueError(f"until is {until}, which is not after starts, {starts}: use a later until")

    def check_times(self, now: dt.datetime) -> None:
        """Refuse a schedule in the past. A store calls this with its own clock, before it writes.

        Raises:
            ValueError: It begins or ends before `now`.
        """
        starts, until = self.details.starts, self.details.until
        if starts is not None and starts <= now:
            raise ValueError(f"starts is {starts}, and the database's clock shows {now}: use a later time")
        if self.enabled and self.details.auto_off and until is not None and until <= now:
            raise ValueError(f"until is {until}, and the database's clock shows {now}: use a later time")

    @property
    def value(self) -> bool:
        """The value to store now: false until a schedule begins."""
        return self.enabled and self.details.starts is None


class _Tokened:
    """A place, beside the fields, for a token: no repr, copy, comparison or `asdict` has it."""

    __slots__ = ("_token",)
    _token: str

    @property
    def token(self) -> str | None:
        """The token of the secret link. Only the value that `set` or `update` returned has it, and only once."""
        return getattr(self, "_token", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(_Tokened):
    """The flag as a process holds it: one immutable value, replaced as a whole.

    Attributes:
        enabled: Whether maintenance is on.
        scope: Which part of the site; None for all of it.
        mode, message, messages, starts, until, auto_off, retry_after, actor, reason, secret: See `Details`.
        revision: Grows with each change of any flag or detail; 0 if no store was read.
        updated_at: When the row was last written, by the store's clock; aware.
        updated_by: Who flipped it, as the platform's own key.
        source: ``store``; ``environment`` or ``default`` before the first read; ``default`` too if a process blocks.
        read_at: The clock (seconds, of this machine only) **before** the read was sent; 0 if no store was read.
        problems: The mistakes in the row besides the flag. Each wrong value counts as absent.
    """

    enabled: bool
    scope: str | None = None
    mode: Mode = "full"
    message: str | None = None
    messages: Mapping[str, str] | None = field(default=None, hash=False)
    starts: dt.datetime | None = None
    until: dt.datetime | None = None
    auto_off: bool = False
    retry_after: int | None = None
    actor: str | None = None
    reason: str | None = None
    secret: str | None = field(default=None, repr=False)
    revision: int = 0
    updated_at: dt.datetime | None = None
    updated_by: UUID | None = None
    source: Source = "store"
    read_at: float = 0.0
    problems: tuple[str, ...] = ()

    @property
    def in_force(self) -> bool:
        """Whether it is on, or has a schedule."""
        return self.enabled or self.starts is not None

    def with_token(self, token: str | None) -> Self:
        """The same, for the caller who may pass the token on."""
        if token is None:
            return self
        copy = replace(self)
        object.__setattr__(copy, "_token", token)
        return copy


@dataclass(frozen=True, slots=True)
class Row:
    """A flag's row as a store returned it. Unchecked, because people may write it by hand."""

    value_bool: object
    details: object
    revision: object
    updated_at: object = None
    updated_by: object = None
    scope: str | None = None
    drain: bool = False

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
                f"platform_settings.value_bool of {scope_key(self.scope)!r} is {quote(self.value_bool)}: "
                "set it to true or false, or flip it once with set_maintenance() or `maintenance off`"
            )
        if not isinstance(self.revision, int):
            raise FlagError(
                f"platform_settings.revision of {scope_key(self.scope)!r} is {quote(self.revision)}: "
                "run `maintenance migrate`"
            )
        details, problems = self._parse_details(written)
        return Snapshot(
            enabled=self.value_bool,
            scope=self.scope,
            revision=self.revision,
            updated_at=self.updated_at if _is_time(self.updated_at) else None,
            updated_by=self.updated_by if isinstance(self.updated_by, UUID) else None,
            read_at=read_at,
            problems=(*problems, *self._list_problems()),
            # Not `asdict`, which copies each value in depth. With a thousand scopes on, that was most of a read.
            **{name: getattr(details, name) for name in _DETAILS},
        )

    def _parse_details(self, written: Details | None) -> tuple[Details, tuple[str, ...]]:
        if written is not None and self.details == written.to_json():
            return written, ()
        return Details.from_json(self.details)

    def _list_problems(self) -> Iterator[str]:
        """The mistakes in the other columns."""
        if self.updated_at is not None and not _is_time(self.updated_at):
            yield f"updated_at is {quote(self.updated_at)}: set it to the current time"
        if self.updated_by is not None and not isinstance(self.updated_by, UUID):
            yield f"updated_by is {quote(self.updated_by)}: set it to a UUID, or to NULL"


def _is_time(value: object) -> TypeGuard[dt.datetime]:
    return isinstance(value, dt.datetime) and value.utcoffset() is not None


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write.

    Attributes:
        row: The flag's row.
        before: The same before the write; None if it is new.
        last: The newest revision of any flag. No other change can have come between this write and `last`.
        now: The store's clock.
    """

    row: Row
    before: Row | None
    last: int
    now: dt.datetime

    @property
    def follows(self) -> int:
        """The newest revision before the write."""
        changed = self.before is None or self.row.revision != self.before.revision
        return self.last - 1 if changed else self.last

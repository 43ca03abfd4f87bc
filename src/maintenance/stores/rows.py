"""What the two SQL stores share: their named statements, and the values made of the columns that these return."""

import contextlib
import datetime as dt
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID

from maintenance.base.flags import Flags, Reading
from maintenance.base.history import Entry
from maintenance.base.instances import MAX_NAME, SENTINEL, Fleet, Instance
from maintenance.base.options import LONGEST
from maintenance.base.scopes import parse_key, read_key, scope_key
from maintenance.base.values import Change, Row, WhenStale
from maintenance.errors import ConflictError

MAX_REVISION: Final = 2**62
"""The highest revision that an instance can have acknowledged. So no row can use up the numbers of later flips."""

MAX_AGE: Final = 1e10
"""The longest silence and the highest age of a request, in seconds (317 years)."""

AHEAD: Final = 60.0
"""Seconds by which a time may be newer than the clock that it is compared with."""

_COLUMNS: Final = tuple(field.name for field in fields(Instance) if field.name != "problem")


def load_statements(package: str) -> dict[str, str]:
    """Read the `queries.sql` of a package: `-- name: read` begins the statement `read`. Comments are dropped.

    A statement may contain an earlier one, as `{name}`.
    """
    text = (files(package) / "queries.sql").read_text(encoding="utf-8")
    _, *parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    bare = [re.sub(r"^--.*\n", "", part, flags=re.MULTILINE).strip() for part in parts]
    found: dict[str, str] = {}
    for name, sql in zip(bare[::2], bare[1::2], strict=True):
        found[name] = re.sub(r"\{(\w+)\}", lambda part: found[part[1]], sql)
    return found


def make_row(columns: Sequence[Any]) -> Row:
    """A flag's row, of its columns. A value that Python cannot parse stays as it is, and `Row.snapshot` names it.

    Raises:
        ValueError: The key is not that of a flag.
    """
    key, value_bool, details, revision, updated_at, updated_by, drain = columns
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        details = json.loads(details, parse_int=_read_number)
    with contextlib.suppress(TypeError, ValueError):
        updated_at = dt.datetime.fromisoformat(updated_at)
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        updated_by = UUID(updated_by)
    # SQLite has no booleans, only 0 and 1.
    value = {0: False, 1: True}.get(value_bool, value_bool) if isinstance(value_bool, int) else value_bool
    return Row(value, details, revision, updated_at, updated_by, parse_key(key), bool(drain))


def _read_number(digits: str) -> int | float:
    """A whole number. `int` refuses thousands of digits, and the other details must not be lost with it."""
    return int(digits) if len(digits) < 20 else float(digits)


def make_rows(rows: Iterable[Sequence[Any]]) -> tuple[Row, ...]:
    """The rows of scopes. No process can belong to a scope whose name is none, so such a row is left out."""
    found = []
    for columns in rows:
        with contextlib.suppress(ValueError):
            found.append(make_row(columns))
    return tuple(found)


def make_reading(
    site: Sequence[Any] | None, scopes: Iterable[Sequence[Any]] | None, facts: Sequence[Any], *, store: str
) -> Reading:
    """A reading.

    Args:
        site: The columns of the site's row; None if it is missing.
        scopes: Those of the scopes; None if the caller's token is still the present one.
        facts: The last revision, the token, the clock in seconds since 1970, and whether a standby answered, whether
            the instance is registered, and whether an instance is ahead.
        store: The name of the store.
    """
    last, token, now, standby, registered, ahead = facts
    return Reading(
        None if site is None else make_row(site),
        None if scopes is None else make_rows(scopes),
        last=last,
        token=token,
        now=dt.datetime.fromtimestamp(float(now), dt.UTC),
        primary=not standby,
        registered=bool(registered),
        ahead=bool(ahead),
        store=store,
    )


def describe_caller(known: Flags | None) -> dict[str, Any]:
    """What a read needs of what the caller knows."""
    if known is None:
        return {"token": None, "keys": [], "doubtful": True}
    keys = [scope_key(scope) for scope in known.scopes] if known.taken_back else []
    return {"token": known.token, "keys": keys, "doubtful": known.taken_back or known.site.source != "store"}


def is_in_force(row: Row) -> bool:
    """Whether a flag is on or scheduled."""
    return row.value_bool is True or (isinstance(row.details, Mapping) and "starts" in row.details)


def check_revision(change: Change, before: Row | None, *, store: str) -> None:
    """Refuse a change of a flag that another caller has changed.

    Raises:
        ConflictError: The flag is not at the expected revision.
    """
    revision = 0 if before is None else before.revision
    if change.if_revision is not None and change.if_revision != revision:
        raise ConflictError(
            f"{store}: the flag is at revision {revision}, not {change.if_revision}: look at `maintenance log`, "
            "and try again"
        )


def make_entry(columns: Sequence[Any]) -> Entry:
    """A change, of the columns of the statement `history`."""
    at, key, revision, before, after, details_before, details, updated_by, role, application, address = columns
    return Entry(
        at=dt.datetime.fromisoformat(at),
        # Anyone who may flip may also write a key that names no scope. It must not hide the other changes.
        scope=read_key(key),
        revision=revision,
        before=None if before is None else bool(before),
        after=None if after is None else bool(after),
        details_before=_parse_object(details_before),
        details=_parse_object(details),
        updated_by=UUID(updated_by) if updated_by else None,
        role=role,
        application_name=application,
        client_address=address,
    )


def _parse_object(text: str | None) -> dict[str, Any]:
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        if isinstance(value := json.loads(text or "{}"), dict):
            return value
    return {}


def make_fleet(reading: Reading, rows: Sequence[Sequence[Any]]) -> Fleet:
    """A fleet, of the columns of each instance."""
    return Fleet(reading, make_instances(rows), intact=any(columns[0] == SENTINEL.id for columns in rows))


def make_instances(rows: Sequence[Sequence[Any]]) -> tuple[Instance, ...]:
    """The result of the statement `instances`, without the sentinel."""
    found = [_make_instance(*columns) for columns in rows if columns[0] != SENTINEL.id]
    return tuple(sorted(found, key=lambda one: (one.host, one.pid, one.id)))


def instance_values(instance: Instance) -> dict[str, Any]:
    """The parameters of the statements `report` and `acknowledge`. `dataclasses.asdict` takes five times as long."""
    return {name: getattr(instance, name) for name in _COLUMNS} | {"drains": json.dumps(dict(instance.drains))}


_NUMBERS: Final = (int, float, Decimal)
"""A tuple, because a union takes three times as long to check."""


_SURROGATES: Final = re.compile("[\ud800-\udfff]")
"""They stand for bytes that are no text."""


class _Rule(NamedTuple):
    """What a column must hold, and what stands for it if it holds something else."""

    holds: Callable[[Any], bool]
    need: str
    harmless: Any = None


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME and (value.isascii() or not _SURROGATES.search(value))


def _between(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, _NUMBERS) and least <= value <= most


def _whole(most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and 0 <= value <= most


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _counts(value: Any) -> bool:
    return isinstance(value, str) and value[:1] == "{" and all(map(_whole(2**31 - 1), _parse_object(value).values()))


_NAME: Final = _Rule(_text, f"a text of at most {MAX_NAME} characters", "")
_COUNT: Final = "a whole number from 0 to {}"
_RULES: Final = {
    "host": _NAME,
    "boot": _NAME,
    "pid": _Rule(_whole(2**31 - 1), _COUNT.format("2^31"), 0),
    "program": _NAME,
    "version": _NAME,
    "when_stale": _Rule(get_args(WhenStale).__contains__, "'serve' or 'block'", "serve"),
    "ttl": _Rule(_between(sys.float_info.min, LONGEST), f"above 0 and at most {LONGEST:.0f}", 0.0),
    "revision": _Rule(_or_none(_whole(MAX_REVISION)), _COUNT.format("2^62")),
    "in_flight": _Rule(_or_none(_whole(2**31 - 1)), _COUNT.format("2^31")),
    "websockets": _Rule(_whole(2**31 - 1), _COUNT.format("2^31"), 0),
    "oldest": _Rule(_or_none(_text), _NAME.need),
    "oldest_age": _Rule(_or_none(_between(-AHEAD, MAX_AGE)), "a number of seconds"),
    "drains": _Rule(_counts, "a JSON object of whole numbers", "{}"),
    "service": _NAME,
    "seen_at": _Rule(_between(-AHEAD, MAX_AGE), "a time in the past", 0.0),
}


_HOLDS: Final = tuple(rule.holds for rule in _RULES.values())


def _make_instance(key: str, *columns: Any) -> Instance:
    """An instance of its columns. They are unchecked, because people and other programs may write them.

    A wrong value never looks like a process that follows: `Instance.problem` names it.
    """
    values = dict(zip(_RULES, columns, strict=True))
    wrong = [name for (name, value), holds in zip(values.items(), _HOLDS, strict=True) if not holds(value)]
    values.update((name, _RULES[name].harmless) for name in wrong)
    problem = "; ".join(f"{name} is not {_RULES[name].need}" for name in wrong) or None
    values |= {"ttl": float(values["ttl"]), "drains": _parse_object(values["drains"])}
    return Instance(id=key, silent_for=max(float(values.pop("seen_at")), 0.0), problem=problem, **values)

"""What the two SQL stores share: their named statements, and the values made of the columns that these return."""

import contextlib
import datetime as dt
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID

from maintenance.base.options import LONGEST
from maintenance.base.values import MAX_NAME, SENTINEL, Fleet, Instance, Reading, Row, WhenStale

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


def make_row(value_bool: Any, details: Any, revision: object, updated_at: Any, updated_by: Any) -> Row:
    """The flag's row, of its columns. A value that Python cannot parse stays as it is, and `Row.snapshot` names it."""
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        details = json.loads(details, parse_int=_read_number)
    with contextlib.suppress(TypeError, ValueError):
        updated_at = dt.datetime.fromisoformat(updated_at)
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        updated_by = UUID(updated_by)
    # SQLite has no booleans, only 0 and 1.
    return Row({0: False, 1: True}.get(value_bool, value_bool), details, revision, updated_at, updated_by)


def _read_number(digits: str) -> int | float:
    """A whole number. `int` refuses thousands of digits, and the other details must not be lost with it."""
    return int(digits) if len(digits) < 20 else float(digits)


def make_reading(columns: Sequence[Any], *, store: str) -> Reading:
    """The result of the statement `read` or `read_flag`."""
    exists, *row, drain, standby, registered = columns
    return Reading(
        make_row(*row) if exists else None,
        primary=not standby,
        registered=bool(registered),
        drain=bool(exists and drain),
        store=store,
    )


def make_fleet(rows: Sequence[Sequence[Any]], *, store: str) -> Fleet:
    """The result of the statement `fleet`: in each row the columns of `read`, then those of one instance, or NULLs."""
    width = len(_COLUMNS)
    found = [row[-width:] for row in rows if row[-width] is not None]
    return Fleet(
        make_reading(rows[0][:-width], store=store),
        make_instances(found),
        intact=any(columns[0] == SENTINEL.id for columns in found),
    )


def make_instances(rows: Sequence[Sequence[Any]]) -> tuple[Instance, ...]:
    """The result of the statement `instances`, without the sentinel."""
    found = [_make_instance(*columns) for columns in rows if columns[0] != SENTINEL.id]
    return tuple(sorted(found, key=lambda one: (one.host, one.pid, one.id)))


def instance_values(instance: Instance) -> dict[str, Any]:
    """The parameters of the statements `report` and `acknowledge`. `dataclasses.asdict` takes five times as long."""
    return {name: getattr(instance, name) for name in _COLUMNS}


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
    values["ttl"] = float(values["ttl"])
    return Instance(id=key, silent_for=max(float(values.pop("seen_at")), 0.0), problem=problem, **values)

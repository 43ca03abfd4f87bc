"""What the two SQL stores share: their named statements, and the values made of the columns that these return."""

import contextlib
import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.resources import files
from typing import Any, Final
from uuid import UUID

from maintenance.base.values import SENTINEL, Fleet, Instance, Reading, Row

_FIELDS: Final = tuple(field.name for field in fields(Instance))


def load_statements(package: str) -> dict[str, str]:
    """Read the `queries.sql` of a package: `-- name: read` begins the statement `read`. Comments are dropped."""
    text = (files(package) / "queries.sql").read_text(encoding="utf-8")
    _, *parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    bare = [re.sub(r"^--.*\n", "", part, flags=re.MULTILINE).strip() for part in parts]
    return dict(zip(bare[::2], bare[1::2], strict=True))


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
    width = len(_FIELDS)
    found = [dict(zip(_FIELDS, row[-width:], strict=True)) for row in rows]
    return Fleet(
        make_reading(rows[0][:-width], store=store),
        tuple(_make_instance(one) for one in found if one["id"] not in (None, SENTINEL.id)),
        intact=any(one["id"] == SENTINEL.id for one in found),
    )


def instance_values(instance: Instance) -> dict[str, Any]:
    """The parameters of the statements `report` and `acknowledge`. `dataclasses.asdict` takes five times as long."""
    return {name: getattr(instance, name) for name in _FIELDS}


def _make_instance(values: dict[str, Any]) -> Instance:
    return Instance(**values | {name: float(values[name]) for name in ("ttl", "silent_for")})

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

from maintenance.base.values import KEY, SENTINEL, Fleet, Instance, Reading, Row
from maintenance.errors import StoreError

_FIELDS: Final = tuple(field.name for field in fields(Instance))


def load_statements(package: str) -> dict[str, str]:
    """Read the `queries.sql` of a package: `-- name: read` begins the statement `read`. Comments are dropped."""
    text = (files(package) / "queries.sql").read_text(encoding="utf-8")
    _, *parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    bare = [re.sub(r"^--.*\n", "", part, flags=re.MULTILINE).strip() for part in parts]
    return dict(zip(bare[::2], bare[1::2], strict=True))


def make_row(value_bool: Any, details: str, revision: object, updated_at: str | None, updated_by: str | None) -> Row:
    """The flag's row, of its columns. `details` that Python cannot parse stay text, which `Row.snapshot` refuses.

    Raises:
        StoreError: Python has no such time or user.
    """
    with contextlib.suppress(ValueError, RecursionError, TypeError):
        details = json.loads(details)
    try:
        when = None if updated_at is None else dt.datetime.fromisoformat(updated_at)
        who = None if updated_by is None else UUID(updated_by)
    except (TypeError, ValueError, AttributeError) as exc:
        raise StoreError(
            f"platform_settings.updated_at or updated_by of {KEY!r} is wrong: {exc}: "
            "set updated_at to the current time, and updated_by to NULL"
        ) from exc
    # SQLite has no booleans, only 0 and 1.
    return Row({0: False, 1: True}.get(value_bool, value_bool), details, revision, when, who)


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

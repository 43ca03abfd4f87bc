"""The record of a change, as a plain value."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change of a flag.

    Attributes:
        at: When, by the store's clock; aware.
        scope: Which flag; None for the site's.
        revision: The revision that the change made.
        before: The old value; None if the flag was new.
        after: The new value; None if the flag was deleted.
        details_before, details: As stored, old and new.
        updated_by: Who, as the platform's own key.
        role: Of the database; empty if the store has none.
        application_name: Of the connection; empty if the store has none.
        client_address: Of the connection; None if it is local.
    """

    at: dt.datetime
    scope: str | None
    revision: int
    before: bool | None
    after: bool | None
    details_before: Mapping[str, Any]
    details: Mapping[str, Any]
    updated_by: UUID | None = None
    role: str = ""
    application_name: str = ""
    client_address: str | None = None

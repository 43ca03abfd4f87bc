"""What a fault is, and the place where it happens."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

from maintenance import MaintenanceState
from maintenance.stores import SQLiteStore
from tests.faults.member import MESSAGE
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.sql import run_sql

ON: Final = f"""value_bool = true, details = '{{"message": "{MESSAGE}"}}'"""
OFF: Final = "value_bool = false, details = '{}'"


class Effect(Enum):
    """What a fault does to the processes."""

    FOLLOWS = "they go on reading"
    SHORT = "they may miss a read"
    LEARNS = "they read, and no lease is renewed"
    CUT = "they cannot read"


@dataclass(slots=True)
class Case:
    """A database whose flag is off, or on, when the fault begins.

    Attributes:
        on: Which.
        url: The processes' own address of it.
        admin: The address of an operator, whom no fault concerns.
    """

    on: bool
    url: str
    admin: str

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        return run_sql(self.admin, *statements)


@dataclass(slots=True)
class Place:
    """Where a fault happens.

    Attributes:
        cases: One database with the flag off, and one with the flag on.
        stack: What is undone at the end of the fault, or of the place.
        server: The server of the databases.
        relay: What the processes connect through.
        tools: More that belongs to the place.
        environment: Of the processes.
        user: The account of the processes; None for the present one.
        pids: The processes.
        tell: Sends a word to each process.
    """

    cases: tuple[Case, ...]
    stack: ExitStack
    server: Any = None
    relay: Relay | None = None
    tools: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    user: int | None = None
    pids: list[int] = field(default_factory=list)
    tell: Callable[[str], object] = lambda _: None

    def sql(self, *statements: str) -> None:
        for case in self.cases:
            case.sql(*(statement.replace("{name}", case.admin.rpartition("/")[2]) for statement in statements))


@dataclass(slots=True)
class Lab:
    """What several places share."""

    server: Server
    folder: Path


def update_flag(case: Case, *, on: bool) -> None:
    """Flip as psql does."""
    case.sql(f"UPDATE platform_settings SET {ON if on else OFF} WHERE key = 'maintenance_mode'")


def set_flag(case: Case, *, on: bool) -> None:
    """Flip as `maintenance on` does, which creates a row that is missing."""
    store: Any = SQLiteStore(case.admin, create=False) if case.admin.startswith("sqlite") else case.admin
    with closing(MaintenanceState(store, register=False)) as operator:
        operator.set(on, message=MESSAGE if on else None)


Flip = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One line of the table.

    Attributes:
        group: Under which heading.
        name: What happens.
        place: Where.
        begin: Breaks it.
        end: Mends it.
        effect: What it does to the processes.
        when: Whether the flag can be flipped during the fault, or only after it.
        flip: How.
        prepare: Called before the processes start.
        values: The values of the flag when it begins.
        quick: Whether the ordinary tests include it.
    """

    group: str
    name: str
    place: Callable[[Lab], AbstractContextManager[Place]]
    begin: Callable[[Place], object]
    end: Callable[[Place], object] = lambda place: place.stack.close()
    effect: Effect = Effect.CUT
    when: Literal["during", "after"] = "during"
    flip: Flip = update_flag
    prepare: Callable[[Place], object] = lambda _: None
    values: tuple[bool, ...] = (False, True)
    quick: bool = False

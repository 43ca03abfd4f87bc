"""The commands that ask or keep house: ``status``, ``fleet``, ``forget``, ``migrate`` and ``sql``."""

import argparse
import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from maintenance.base.values import Fleet, Instance, Snapshot
from maintenance.cli.store import named, warn, watching
from maintenance.cli.text import (
    HEADINGS,
    columns,
    emit,
    flag,
    flag_json,
    instance_json,
    is_silent,
    last_known,
    name,
    number,
    row,
    short,
    span,
    word,
)
from maintenance.errors import ConfigurationError, MaintenanceError
from maintenance.process.lease import LAGGING
from maintenance.stores import PostgresStore
from maintenance.stores.migrations import migrations

IS_ON: Final = 3

EMPTIED: Final = (
    "the table of instances was emptied behind the library's back, so there may be more than these; they come back "
    "within their lease, and `maintenance wait --expect N` makes it whole again"
)


def status(args: argparse.Namespace) -> int:
    """Tell whether maintenance is on."""
    state = watching(args)
    snapshot = state.refresh()
    problem = state.status().last_error
    if args.json:
        emit({**flag_json(snapshot, state.store.name), "problem": problem})
    else:
        print("\n".join(flag(snapshot, state.store.name, now=dt.datetime.now(dt.UTC))))
        _warn_of(problem)
    return IS_ON if snapshot.enabled else 0


def fleet(args: argparse.Namespace) -> int:
    """Show each process that serves."""
    state = watching(args)
    found = state.fleet()
    snapshot = found.reading.snapshot(read_at=state.clock())
    problem = None if found.reading.primary else LAGGING
    if args.json:
        instances = [instance_json(instance) for instance in found.instances]
        said = {"flag": asdict(snapshot), "intact": found.intact, "instances": instances, "store": state.store.name}
        emit({**said, "problem": problem})
        return 0
    print(f"maintenance is {word(snapshot)} in {state.store.name} (revision {snapshot.revision})")
    if found.instances:
        print("\n".join(columns([HEADINGS, *(row(it, revision=snapshot.revision) for it in found.instances)])))
        print(_counted(found, snapshot))
    _warn(found)
    _warn_of(problem)
    return 0


def _counted(found: Fleet, snapshot: Snapshot) -> str:
    behind = sum(instance.revision != snapshot.revision for instance in found.instances)
    silent = sum(is_silent(instance) for instance in found.instances)
    flying = sum(instance.in_flight or 0 for instance in found.instances)
    refused = " that it refuses" if snapshot.enabled else ""
    return (
        f"{number(len(found.instances), 'process')}: {behind} behind, {silent} silent, "
        f"{number(flying, 'request')} in flight{refused}, as last reported"
    )


def _warn(found: Fleet) -> None:
    if not found.intact:
        warn(EMPTIED)
    elif not found.instances:
        warn("no process is registered in this database. Is it the one that the app uses?")


def _warn_of(problem: str | None) -> None:
    if problem:
        warn(problem)


def forget(args: argparse.Namespace) -> int:
    """Remove processes from the fleet, on the operator's word."""
    state = watching(args)
    instances = state.fleet().instances
    chosen = matched(args.ids, instances) if args.ids else [it for it in instances if it.silent_for >= args.silent]
    forgotten = [instance for instance in chosen if state.forget(instance.id)]
    if args.json:
        emit({"forgotten": [instance_json(it) for it in forgotten], "store": state.store.name})
    else:
        said = [f"forgotten, on your word: {name(it)}, {last_known(it)}" for it in forgotten]
        print("\n".join(said) or f"no process has been silent for {span(args.silent or 0)}: nothing to forget")
    _warn_of_the_living(forgotten)
    return 0


def matched(ids: Sequence[str], instances: Sequence[Instance]) -> list[Instance]:
    """The instances that ids, or their beginnings, name; each once.

    Raises:
        MaintenanceError: One names none.
        ConfigurationError: One names several.
    """
    chosen: dict[str, Instance] = {}
    for given in ids:
        found = [it for it in instances if it.id.startswith(given.replace("-", "").lower() or "none")]
        if not found:
            raise MaintenanceError(f"no instance {given!r} is registered: `maintenance fleet` shows who is")
        if len(found) > 1:
            raise ConfigurationError(f"{given!r} begins the ids of {len(found)} instances: write more of it")
        chosen[found[0].id] = found[0]
    return list(chosen.values())


def _warn_of_the_living(forgotten: Sequence[Instance]) -> None:
    for instance in forgotten:
        if not is_silent(instance):
            warn(f"{short(instance)} was heard {span(instance.silent_for)} ago; if it lives, it registers again")


def migrate(args: argparse.Namespace) -> int:
    """Bring the store to the form that this version needs."""
    store = named(args)
    store.migrate()
    files = [file for file, _ in migrations()] if isinstance(store, PostgresStore) else []
    if args.json:
        emit({"migrated": True, "files": files, "store": store.name})
    else:
        print(f"{store.name} is migrated{': ' if files else ''}{', '.join(files)}")
    return 0


def sql(args: argparse.Namespace) -> int:
    """Print what `migrate` applies to PostgreSQL; asks no database."""
    if args.json:
        emit({"files": [{"name": file, "sql": text} for file, text in migrations()]})
        return 0
    print("\n".join(f"-- {file}\n{text.rstrip()}\n" for file, text in migrations()), end="")
    return 0

"""``maintenance fleet`` and ``forget``: the processes that serve."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from maintenance.base.values import Fleet, Instance, Snapshot
from maintenance.cli import text
from maintenance.cli.store import connect_state, open_state
from maintenance.errors import ConfigurationError, MaintenanceError
from maintenance.process.lease import LAGGING
from maintenance.process.state import MaintenanceState

EMPTIED: Final = (
    "The process table was emptied (a restore, or by hand), so this list may be incomplete. Running processes "
    "reappear within their lease. Confirm the list with `maintenance wait --expect N`."
)


def build_instance_json(instance: Instance) -> dict[str, Any]:
    """Return every field of an instance, and what follows from them."""
    return {
        **asdict(instance),
        "answer_age_at_most": text.compute_answer_age(instance),
        "silent": text.is_silent(instance),
    }


def fleet(args: argparse.Namespace) -> int:
    """Show each process that serves."""
    state = open_state(args)
    found = state.fleet()
    snapshot = found.reading.snapshot(read_at=state.clock())
    problem = None if found.reading.primary else LAGGING
    if args.json:
        instances = [build_instance_json(instance) for instance in found.instances]
        shown = {"flag": asdict(snapshot), "intact": found.intact, "instances": instances, "store": state.store.name}
        text.print_json({**shown, "problem": problem})
        return 0
    print(text.format_headline(snapshot, state.store.name))
    if found.instances:
        print(text.format_table([_build_row(instance, snapshot) for instance in found.instances]))
        print(_summarize(found, snapshot))
    for instance in found.instances:
        if instance.problem:
            text.warn(f"The row {instance.id} cannot be trusted ({instance.problem}): maintenance forget {instance.id}")
    if not found.intact:
        text.warn(EMPTIED)
    elif not found.instances:
        text.warn("No process is registered in this database. Is this the database your app uses?")
    if problem:
        text.warn(problem)
    return 0


def _build_row(instance: Instance, snapshot: Snapshot) -> dict[str, str]:
    """Return a process's cells by their headings."""
    age = text.compute_answer_age(instance)
    revision = "none" if instance.revision is None else str(instance.revision)
    return {
        "ID": text.format_id(instance),
        "HOST": text.escape(instance.host),
        "PID": str(instance.pid),
        "PROGRAM": text.escape(instance.program),
        "VERSION": text.escape(instance.version),
        "WHEN STALE": instance.when_stale,
        "TTL": text.format_span(instance.ttl),
        "REVISION": revision + ("" if instance.revision == snapshot.revision else " behind"),
        "ANSWER AGE": "none" if age is None else f"at most {text.format_span(age)}",
        "IN FLIGHT": "unknown" if instance.in_flight is None else str(instance.in_flight),
        "WEBSOCKETS": str(instance.websockets),
        "LAST SEEN": f"{text.format_seen(instance)}{' SILENT' if text.is_silent(instance) else ''}",
    }


def _summarize(found: Fleet, snapshot: Snapshot) -> str:
    behind = sum(instance.revision != snapshot.revision for instance in found.instances)
    silent = sum(text.is_silent(instance) for instance in found.instances)
    work = sum(instance.in_flight or 0 for instance in found.instances)
    return (
        f"{text.format_count(len(found.instances), 'process')}: {behind} behind, {silent} silent, "
        f"{text.format_count(work, 'request')} in flight when last reported"
    )


def forget(args: argparse.Namespace) -> int:
    """Remove processes from the fleet that the operator knows to be dead."""
    with connect_state(args) as state:
        forgotten = _choose_by_id(args.ids, state) if args.ids else _choose_silent(args.silent, state)
        state.forget(*(instance.id for instance in forgotten))
    if args.json:
        text.print_json({"forgotten": [build_instance_json(it) for it in forgotten], "store": state.store.name})
    elif forgotten:
        print(
            "\n".join(
                f"forgotten: {text.format_process(it)}, {text.escape(text.describe_report(it))}" for it in forgotten
            )
        )
    else:
        print("nothing to forget: no process has been silent for that long")
    for instance in forgotten:
        if not text.is_silent(instance):
            text.warn(
                f"{text.format_id(instance)} reported {text.format_seen(instance)}. "
                "If it is still running, it registers again."
            )
    return 0


def _choose_silent(silent: float, state: MaintenanceState) -> list[Instance]:
    return [instance for instance in state.fleet().instances if instance.silent_for >= silent]


def _choose_by_id(ids: Sequence[str], state: MaintenanceState) -> list[Instance]:
    chosen: dict[str, Instance] = {}
    for given in ids:
        by_id = {it.id: it for it in state.find(given)}
        found = [by_id[given]] if given in by_id else list(by_id.values())
        if not found:
            raise MaintenanceError(f"no process has the ID {given!r}: copy one from `maintenance fleet`")
        if len(found) > 1:
            raise ConfigurationError(f"{len(found)} processes have an ID that begins with {given!r}: add more digits")
        chosen[found[0].id] = found[0]
    return list(chosen.values())

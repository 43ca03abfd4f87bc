"""``maintenance fleet`` and ``forget``: the processes that serve."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from maintenance.base.flags import Flags, Reading
from maintenance.base.instances import Fleet, Instance
from maintenance.cli import text
from maintenance.cli.options import NOT_PROVEN
from maintenance.cli.store import connect_state, open_state
from maintenance.errors import ConfigurationError, MaintenanceError
from maintenance.process.lease import LAGGING
from maintenance.process.state import MaintenanceState
from maintenance.process.status import TAKEN_BACK

DISPENSABLE: Final = ("VERSION", "WEBSOCKETS", "TTL", "PROGRAM", "WHEN STALE", "ANSWER AGE", "SERVICE")
"""The columns that a narrow terminal leaves out, the first one first."""

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
    flags = read_flags(found.reading, clock=state.clock())
    problem = None if found.reading.primary else LAGGING
    status = NOT_PROVEN if args.check and not _is_sound(found) else 0
    if args.json:
        instances = [build_instance_json(instance) for instance in found.instances]
        scopes = [text.build_flag_json(flag) for flag in flags.scopes.values()]
        site = text.build_flag_json(flags.site)
        shown = {"flag": site, "scopes": scopes, "intact": found.intact, "instances": instances}
        text.print_json({**shown, "store": state.store.name, "problem": problem})
        return status
    for flag in flags:
        print(text.format_headline(flag, state.store.name))
    if found.instances:
        _print_instances(found)
        print(_summarize(found))
    for instance in found.instances:
        if instance.problem:
            text.warn(f"The row {instance.id} cannot be trusted ({instance.problem}): maintenance forget {instance.id}")
    if not found.intact:
        text.warn(EMPTIED)
    elif not found.instances:
        text.warn("No process is registered in this database. Is this the database your app uses?")
    if any(is_ahead(one, found.reading) and not text.is_silent(one) for one in found.instances):
        text.warn(TAKEN_BACK)
    if problem:
        text.warn(problem)
    return status


def read_flags(reading: Reading, *, clock: float) -> Flags:
    """Return the flags of a reading as they hold now, in the order of their names.

    Raises:
        FlagError: The site's row is missing or wrong.
    """
    before = Flags(site=reading.snapshot(read_at=clock))
    return sort_scopes(reading.flags(before, sent=clock, received=clock).at(clock)[0])


def sort_scopes(flags: Flags) -> Flags:
    """Return the flags in the order of their names, which no store keeps."""
    return replace(flags, scopes=dict(sorted(flags.scopes.items())))


def _is_sound(found: Fleet) -> bool:
    """Return whether the list is complete and each process in it follows."""
    complete = found.intact and found.reading.primary
    return complete and all(follows(one, found.reading) for one in found.instances)


def follows(instance: Instance, reading: Reading) -> bool:
    """Return whether a process has acknowledged every change, and is not silent."""
    return instance.revision == reading.last and not text.is_silent(instance)


def is_ahead(instance: Instance, reading: Reading) -> bool:
    """Return whether a process follows a revision that the database does not have, as after a restore."""
    return instance.revision is not None and isinstance(reading.last, int) and instance.revision > reading.last


def _build_row(instance: Instance, reading: Reading) -> dict[str, str]:
    """Return a process's cells by their headings."""
    age = text.compute_answer_age(instance)
    revision = "none" if instance.revision is None else str(instance.revision)
    return {
        "ID": text.format_id(instance),
        "HOST": text.shorten_host(instance),
        "PID": str(instance.pid),
        "SERVICE": text.escape(instance.service),
        "PROGRAM": text.escape(instance.program),
        "VERSION": text.escape(instance.version),
        "WHEN STALE": instance.when_stale,
        "TTL": text.format_span(instance.ttl),
        "REVISION": revision + _name_lag(instance, reading),
        "ANSWER AGE": "none" if age is None else f"at most {text.format_span(age)}",
        "IN FLIGHT": "unknown" if instance.in_flight is None else str(instance.in_flight),
        "WEBSOCKETS": str(instance.websockets),
        "LAST SEEN": f"{text.format_seen(instance)}{' SILENT' if text.is_silent(instance) else ''}",
    }


def _print_instances(found: Fleet) -> None:
    heading, *rows = text.format_table(
        [_build_row(instance, found.reading) for instance in found.instances], dispensable=DISPENSABLE
    )
    print(heading)
    for instance, row in zip(found.instances, rows, strict=True):
        print(text.paint(row, _choose_color(instance, found.reading)))


def _choose_color(instance: Instance, reading: Reading) -> text.Color:
    if text.is_silent(instance):
        return "red"
    return "" if follows(instance, reading) else "yellow"


def _name_lag(instance: Instance, reading: Reading) -> str:
    if instance.revision == reading.last:
        return ""
    return " ahead" if is_ahead(instance, reading) else " behind"


def _summarize(found: Fleet) -> str:
    behind = sum(instance.revision != found.reading.last for instance in found.instances)
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

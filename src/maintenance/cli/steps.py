"""What an operator does about processes that do not follow, as numbered steps."""

import argparse
import shlex
from collections.abc import Iterable, Iterator

from maintenance.base.instances import Instance
from maintenance.cli import text


def repeat_database(args: argparse.Namespace, store: str) -> str:
    """Return the option that names the same database again."""
    # The store's name, not what was typed, because that may hold a password.
    return "" if args.database is None else f" --database {shlex.quote(store)}"


def list_steps(instances: Iterable[Instance], database: str, *, last: str | None = None) -> Iterator[str]:
    """Yield a heading and the numbered steps, a line each; nothing if there is nothing to do.

    Args:
        instances: The processes that do not follow.
        database: See `repeat_database`.
        last: The step after those.
    """
    steps = [_describe_step(instance, database) for instance in instances] + ([] if last is None else [last])
    if steps:
        yield "Next steps:"
    yield from (f"  {number}. {step}" for number, step in enumerate(steps, 1))


def _describe_step(instance: Instance, database: str) -> str:
    if instance.problem:
        return f"If no process uses this row, run: maintenance forget {instance.id}{database}"
    forget = f"maintenance forget {text.format_id(instance)}{database}"
    place = text.escape(f"{instance.host} pid {instance.pid}")
    return f"Restart {place}. If you are sure that it is dead, run: {forget}"

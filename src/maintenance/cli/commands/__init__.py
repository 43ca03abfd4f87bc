"""The commands: each takes the parsed arguments and returns the exit status."""

import argparse
from collections.abc import Callable
from typing import Final

from maintenance.cli.commands.fleet import fleet, forget
from maintenance.cli.commands.flip import edit, flip, wait
from maintenance.cli.commands.log import log
from maintenance.cli.commands.page import page
from maintenance.cli.commands.run import run
from maintenance.cli.commands.schema import migrate, sql
from maintenance.cli.commands.status import status, watch


def demo(_: argparse.Namespace) -> int:
    """Run two servers to play with."""
    from maintenance.cli import demo  # noqa: PLC0415 - only this command needs its servers and clients

    return demo.run()


def completion(args: argparse.Namespace) -> int:
    """Print the script for a shell."""
    from maintenance.cli.completion import render  # noqa: PLC0415 - no other command needs it

    print(render(args.shell), end="")
    return 0


COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "on": flip,
    "off": flip,
    "extend": edit,
    "edit": edit,
    "wait": wait,
    "log": log,
    "status": status,
    "watch": watch,
    "fleet": fleet,
    "forget": forget,
    "run": run,
    "page": page,
    "migrate": migrate,
    "sql": sql,
    "demo": demo,
    "completion": completion,
}

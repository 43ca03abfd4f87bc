"""``manage.py maintenance``: the command line, over the database of the settings."""

import argparse
import contextlib
import sys
from typing import Any, Final, NoReturn

from django.core.management.base import BaseCommand, CommandError

from maintenance.cli import main
from maintenance.contrib.django.database import find_database

_OF_MANAGE_PY: Final = ("--settings", "--pythonpath")
"""The options that `manage.py` has read before a command runs."""


class Command(BaseCommand):
    """Passes its arguments on. The checks do not run, because an incident may have broken what they check."""

    help = "Put every process of a fleet into maintenance, and wait until all of them follow."

    def run_from_argv(self, argv: list[str]) -> NoReturn:
        """Run as `manage.py` does, and exit with the status of the command line."""
        sys.exit(main(_drop_own(argv[2:]), find_database=find_database))

    def print_help(self, prog_name: str, subcommand: str) -> None:  # noqa: ARG002
        """Print the help of the command line."""
        with contextlib.suppress(SystemExit):
            main(["--help"])

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take everything, for `call_command`."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run for `call_command`.

        Raises:
            CommandError: The exit status is not 0. It is the error's `returncode`.
        """
        out, err = options.get("stdout") or sys.stdout, options.get("stderr") or sys.stderr
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: Any = main(options["arguments"], find_database=find_database)
            except SystemExit as exc:
                status = exc.code
        if status:
            raise CommandError(f"`maintenance` ended with status {status}", returncode=status)


def _drop_own(arguments: list[str]) -> list[str]:
    """Remove the options of `manage.py`. Those after ``--`` belong to another program."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in _OF_MANAGE_PY:
        parser.add_argument(option)
    return [*parser.parse_known_args(arguments[:end])[1], *arguments[end:]]

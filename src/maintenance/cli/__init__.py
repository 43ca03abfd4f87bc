"""The command line, ``maintenance COMMAND``: parse the arguments, run the command, report how it ends."""

import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

from maintenance.cli.commands import COMMANDS
from maintenance.cli.options import BROKEN_PIPE, CONFLICT, FAILED, INTERRUPTED, USAGE, parse_arguments
from maintenance.cli.store import read_environment
from maintenance.cli.text import print_error
from maintenance.errors import ConfigurationError, ConflictError, MaintenanceError
from maintenance.process.leaving import leave_and_end

__all__ = ["main"]

_silence: Final = logging.NullHandler()
"""The commands print what the library would log."""


def main(arguments: list[str] | None = None, *, find_database: Callable[[], tuple[str, str]] = read_environment) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None for those of this process.
        find_database: Returns the place that names the database, and its URL, if the arguments name none.

    Returns:
        The exit status.

    Raises:
        SystemExit: The arguments are wrong, or ask for help.
    """
    logging.getLogger("maintenance").addHandler(_silence)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no message fails because of the terminal's encoding
    try:
        with _convert_signals():
            status = _run(arguments, find_database)
        sys.stdout.flush()
    except OSError as exc:
        # The interpreter flushes stdout again when it exits, and must not fail again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(exc, BrokenPipeError):
            return BROKEN_PIPE
        print_error(f"{exc}: changes made before this error are kept; run `maintenance status` to check")
        return FAILED
    return status


def _open_closed_streams() -> None:
    """Replace streams that the shell has closed: a connection could get their number, and receive the output."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - open for as long as the process runs
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def _convert_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a command as Ctrl-C does: the output is complete, and child processes are ended."""
    here = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if here and hasattr(signal, name)]
    # A signal that is ignored (under nohup) or that another program handles stays as it is.
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] in (signal.SIG_DFL, leave_and_end)]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _run(arguments: list[str] | None, find_database: Callable[[], tuple[str, str]]) -> int:
    try:
        args = parse_arguments(arguments)
        args.find_database = find_database
        try:
            return COMMANDS[args.command](args)
        except ConfigurationError as exc:
            args.parser.report(str(exc))
            return USAGE
    except ConflictError as exc:
        print_error(exc)
        return CONFLICT
    except MaintenanceError as exc:
        print_error(exc)
        return FAILED
    except KeyboardInterrupt as exc:
        print_error(str(exc) or "interrupted")
        return INTERRUPTED

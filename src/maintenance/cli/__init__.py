"""The command line: ``maintenance on|off|wait|status|watch|fleet|forget|migrate|sql|demo``."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

from maintenance.cli import options
from maintenance.cli.ask import fleet, forget, migrate, sql, status
from maintenance.cli.flip import INTERRUPTED, Ended, flip, wait
from maintenance.cli.text import printable, scrub
from maintenance.cli.watch import watch
from maintenance.errors import ConfigurationError, MaintenanceError

__all__ = ["main"]

FAILED: Final = 1
USAGE: Final = 2
BROKEN_PIPE: Final = 141
"""What a shell says of a program that SIGPIPE has ended."""


def _demo(_: argparse.Namespace) -> int:
    from maintenance.cli.demo import run  # noqa: PLC0415 - servers and clients, for this command only

    return run()


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "on": flip,
    "off": flip,
    "wait": wait,
    "status": status,
    "watch": watch,
    "fleet": fleet,
    "forget": forget,
    "migrate": migrate,
    "sql": sql,
    "demo": _demo,
}

# What the library would log, the commands say themselves.
_silence: Final = logging.NullHandler()


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None for those of this process.

    Returns:
        The exit status.

    Raises:
        SystemExit: The arguments are wrong, or ask for help.
    """
    logging.getLogger("maintenance").addHandler(_silence)
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a message is shown whatever the terminal can
    try:
        with _ended_by_signals():
            status = _run(arguments)
        sys.stdout.flush()
    except OSError as exc:
        # The interpreter flushes once more when it ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(exc, BrokenPipeError):
            return BROKEN_PIPE
        return _end(f"{exc}: what was done before stands, as `maintenance status` tells", FAILED)
    return status


def _open_what_is_closed() -> None:
    """Have somewhere to write to, and let no connection take the number of a stream that the shell has closed."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end a command as Ctrl-C does: what it shows is whole, and what it started is ended."""
    here = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if here and hasattr(signal, name)]
    # One that is ignored, as under nohup, or that somebody handles, stays.
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _run(arguments: list[str] | None) -> int:
    try:
        args, unknown = options.parser().parse_known_args(arguments)
        try:
            options.check(args, unknown)
            return _COMMANDS[args.command](args)
        except ConfigurationError as exc:
            options.complain(args.command, str(exc))
            return USAGE
    except Ended as exc:
        return _end(exc, exc.status)
    except MaintenanceError as exc:
        return _end(exc, FAILED)
    except KeyboardInterrupt:
        return _end("interrupted", INTERRUPTED)


def _end(why: object, status: int) -> int:
    sys.stdout.flush()
    print(f"maintenance: {printable(scrub(str(why)))}", file=sys.stderr)
    return status

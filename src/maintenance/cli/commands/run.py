"""``maintenance run``: a command that waits until the flag is off, and that a drain waits for."""

import argparse
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from maintenance.cli import text
from maintenance.cli.hook import restore_sigchld
from maintenance.cli.options import CANNOT_RUN, NOT_FOUND, SKIPPED
from maintenance.cli.store import open_state
from maintenance.errors import MaintenanceActive
from maintenance.process.jobs import job

FORWARDED: Final = ("SIGTERM", "SIGINT", "SIGHUP")
"""The signals that the command gets too. Windows lacks the last one."""

_BY_SIGNAL: Final = 128
"""What a shell adds to the number of the signal that has ended a command."""


def run(args: argparse.Namespace) -> int:
    """Run a command as a job, and return its exit status."""
    state = open_state(args, register=True)
    # If the flag is unknown, nothing runs: whoever starts a command can try again, unlike a visitor.
    state.refresh()
    wait = not args.skip and args.timeout != 0
    try:
        with job(args.name, scope=args.scope, wait=wait, timeout=args.timeout or None, state=state):
            if not (status := state.status()).registered:
                problem = status.registration_error or status.last_error
                text.warn(f"--drain does not wait for this job, because it is not registered: {problem}")
            return _execute(args.argv)
    except MaintenanceActive as exc:
        text.print_error(exc)
        return SKIPPED


def _execute(command: list[str]) -> int:
    restore_sigchld()
    with _forward_signals() as signals:
        try:
            child = subprocess.Popen(command)  # noqa: S603 - the operator's own command
        except OSError as exc:
            text.print_error(f"{command[0]}: {exc.strerror}: check the command after `--`")
            return NOT_FOUND if isinstance(exc, FileNotFoundError) else CANNOT_RUN
        signals.start(child)
        status = child.wait()
    return status if status >= 0 else _BY_SIGNAL - status


class _Signals:
    """Passes signals on to a command, those too that come before it has started."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._taken: list[int] = []

    def take(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        # A terminal sends Ctrl-C to the command itself. A second one could end it before it has cleaned up.
        if number != signal.SIGINT or not _is_in_foreground():
            self._taken.append(number)
            self._pass_on()

    def start(self, child: subprocess.Popen[bytes]) -> None:
        """Pass on what has come so far."""
        self._child = child
        self._pass_on()

    def _pass_on(self) -> None:
        while self._child is not None and self._taken:
            number = self._taken.pop(0)
            try:
                self._child.send_signal(number)
            except PermissionError:  # such as sudo; the job lasts until it ends
                text.warn(f"{signal.Signals(number).name} is not passed on: the command belongs to another user")


@contextlib.contextmanager
def _forward_signals() -> Iterator[_Signals]:
    signals = _Signals()
    here = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in FORWARDED if here and hasattr(signal, name)]
    # A signal that is ignored, as under nohup, stays so for the command too.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, signals.take)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Whether Ctrl-C reaches the command too. Not by stdin, which may be a file."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except (OSError, AttributeError):  # without a terminal, or on Windows
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)

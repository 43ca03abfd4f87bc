"""The command that ``maintenance watch --exec`` runs for each change."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from maintenance.base.values import Snapshot
from maintenance.cli import text
from maintenance.errors import ConfigurationError

LIMIT: Final = 60.0
"""Seconds after which a command that hangs is ended. The next change waits for it."""

GRACE: Final = 2.0
"""Seconds that a command has to end when it is asked to."""

PREFIX: Final = "MAINTENANCE_FLAG_"
"""Not MAINTENANCE_ alone: MAINTENANCE_MODE has another meaning, for the commands of this package too."""

FACTS: Final = (
    "enabled", "scope", "mode", "message", "starts", "until", "auto_off", "retry_after", "actor", "reason", "revision",
    "updated_at", "updated_by",
)  # fmt: skip
"""What a command gets in its environment. The message by language and the rest are in the JSON."""


class Hook:
    """Runs a command to its end for each change, without a shell."""

    def __init__(self, command: Sequence[str], *, limit: float = LIMIT) -> None:
        """Look for the command now. The first change may come in weeks.

        Raises:
            ConfigurationError: The command does not exist, or may not be run.
        """
        if shutil.which(command[0]) is None:
            raise ConfigurationError(f"--exec: {command[0]}: no such command, or it may not be run: check its path")
        self._command, self._limit = command, limit

    def run(self, flag: Snapshot, event: Mapping[str, Any]) -> None:
        """Run it with a flag in its environment, and with the whole event on its stdin. A failure is reported.

        Args:
            flag: As it is now.
            event: The same as `watch --json` prints it.
        """
        try:
            problem = self._execute(flag, f"{text.format_json(event)}\n".encode())
        except (OSError, ValueError) as exc:  # ValueError: the encoding of this machine lacks a sign
            problem = str(exc)
        if problem:
            text.warn(f"--exec: {self._command[0]} failed for revision {flag.revision}: {problem}")

    def _execute(self, flag: Snapshot, event: bytes) -> str | None:
        """Run it, and return what went wrong."""
        # In a session of its own, so that what it has started is ended with it. To stderr, because a machine may read
        # the events from stdout.
        restore_sigchld()
        child = subprocess.Popen(  # noqa: S603 - the operator's own command
            self._command,
            env={**os.environ, **build_environment(flag)},
            stdin=subprocess.PIPE,
            stdout=2,
            start_new_session=True,
        )
        try:
            child.communicate(event, self._limit)
        except subprocess.TimeoutExpired:
            ended = "was ended" if _end(child) else "cannot be ended, because it belongs to another user"
            return f"it took longer than {self._limit:g} s and {ended}"
        except BaseException:  # Ctrl-C
            _end(child)
            raise
        return describe_status(child.returncode)


def describe_status(status: int) -> str | None:
    """Say how a command has failed; None if it has not."""
    if not status:
        return None
    return f"exit status {status}" if status > 0 else f"signal {-status} has ended it"


def build_environment(flag: Snapshot) -> dict[str, str]:
    """Return a flag as environment variables. One without a value is empty, so that `set -u` finds it."""
    return {f"{PREFIX}{name.upper()}": _format(getattr(flag, name)) for name in FACTS}


def _format(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else text.convert_to_text(value)


def _end(child: "subprocess.Popen[bytes]") -> bool:
    """End a command and what it has started; False if it may not be ended. It is not waited for without a limit."""
    _signal(child, "SIGTERM")
    try:
        _wait(child)
    finally:
        # Also if it has ended already, because what it has started may go on. Its group keeps its number until then.
        _signal(child, "SIGKILL")
        _wait(child)
        if child.stdin is not None:  # pragma: no branch - it is a pipe
            with suppress(OSError):  # what it has not read is lost
                child.stdin.close()
    return child.returncode is not None


def _wait(child: "subprocess.Popen[bytes]") -> None:
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)


def _signal(child: "subprocess.Popen[bytes]", name: str) -> None:
    if not hasattr(os, "killpg"):  # Windows
        child.kill()
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, getattr(signal, name))


def restore_sigchld() -> None:
    """Undo that SIGCHLD is ignored, as some supervisors leave it. Each command would seem to end with 0."""
    here = threading.current_thread() is threading.main_thread()
    if here and hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

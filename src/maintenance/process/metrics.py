"""What this process counts, and who is to publish it. Nothing here is on the path of a request that is admitted."""

import itertools
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Final, get_args

from maintenance.base.log import log
from maintenance.base.runtime import REAL
from maintenance.base.values import Mode

_API: Final = "opentelemetry.metrics"
_INTEGRATION: Final = "maintenance.contrib.opentelemetry"

_published = False


class Count:
    """Counts without a lock: `add` is one step of an iterator in C, which no other thread can interrupt."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.clear()

    def clear(self) -> None:
        """Begin again. In the child of a fork, the count is the parent's, and so is the lock."""
        self._steps, self._looks, self._lock = itertools.count(), 0, REAL.lock()

    def add(self) -> None:
        """Count one more. It never waits, whoever reads at the same time."""
        next(self._steps)

    def read(self) -> int:
        """Return the count. The iterator shows it only by a step, so the steps of earlier looks are taken off."""
        with self._lock:
            count = next(self._steps) - self._looks
            self._looks += 1
            return count


REFUSED: Final[dict[Mode, Count]] = {mode: Count() for mode in get_args(Mode)}
"""The requests that this process has refused, by mode."""

FAILURES: Final = Count()
"""How often a state of this process could not renew its lease."""


def _clear_all() -> None:
    for count in (*REFUSED.values(), FAILURES):
        count.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows forks nothing
    os.register_at_fork(after_in_child=_clear_all)


def publish_if_loaded(run: Callable[[Callable[[], None]], None]) -> None:
    """Publish the metrics of this process, once, if it uses OpenTelemetry.

    If nothing in this process has loaded that, nothing can collect from it either, and to load it would take time.

    Args:
        run: Calls a function, or starts a thread that does.
    """
    global _published  # noqa: PLW0603
    if _published or _API not in sys.modules:
        return
    _published = True
    try:
        run(_publish)
    except (RuntimeError, OSError):  # no thread can be started: the next read tries again
        _published = False


def _publish() -> None:
    try:
        # By its name, as Django loads an app: imports point down only.
        import_module(_INTEGRATION).instrument()
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the flag is followed all the same
        log(logging.ERROR, "the metrics are not published", exc=exc)

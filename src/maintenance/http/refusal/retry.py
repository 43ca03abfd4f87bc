"""When a visitor should come back."""

import datetime as dt
import math
from typing import Final

from maintenance.base.values import MAX_RETRY_AFTER, Snapshot

DEFAULT_RETRY_AFTER: Final = 60
"""Seconds, if no end is known or the expected end has passed."""


def retry_after(snapshot: Snapshot, *, now: dt.datetime, spread: float) -> int:
    """Return the seconds for ``Retry-After``, at least 1.

    Args:
        snapshot: Its `retry_after` is used as it is. Without one, its `until` counts if it is in the future.
        now: The time, aware.
        spread: A random number in [0, 1): the share of an extra 10 %, so that visitors do not all return at once.
    """
    if snapshot.retry_after is not None:
        return max(1, snapshot.retry_after)
    until = snapshot.until
    if until is None or until <= now:
        return DEFAULT_RETRY_AFTER + int(DEFAULT_RETRY_AFTER * spread / 10)
    seconds = math.ceil((until - now).total_seconds())
    return min(seconds + int(seconds * spread / 10), MAX_RETRY_AFTER)

"""The library's log."""

import contextlib
import logging
from typing import Final

_logger: Final = logging.getLogger("maintenance")


def log(level: int, message: str, *arguments: object, exc: BaseException | None = None) -> None:
    """Log a line, with the traceback of an exception if one is given.

    A filter or a handler of the app may raise. Requests are answered and the flag is followed all the same.
    """
    with contextlib.suppress(Exception, SystemExit):
        _logger.log(level, "maintenance: " + message, *arguments, exc_info=exc, stacklevel=2)  # noqa: G003 - no value

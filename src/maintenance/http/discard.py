"""How much of the body of a refused request is read and thrown away.

A proxy passes a refusal on only if it could send the whole request. If the server closes a connection on which a part
of the body is still unread, the client may see a reset instead of the refusal.
"""

import sys
from dataclasses import dataclass
from typing import Final

from maintenance.base.options import check_seconds
from maintenance.base.quoting import quote
from maintenance.errors import ConfigurationError

MAX_BYTES: Final = 8 * 2**20
"""The default bound in bytes: eight times the default of nginx for the body of a request."""

MAX_SECONDS: Final = 5.0
"""The default bound in seconds."""

LINGER: Final = 1.0
"""Seconds for which more of a body that exceeds a bound is read once the refusal is sent, so that the client can read
it."""

_BODILESS: Final = frozenset({"GET", "HEAD"})

CHUNK: Final = 65_536
"""Bytes of one read. The clock is looked at between two reads."""


@dataclass(frozen=True, slots=True)
class Discard:
    """The bounds, checked.

    Attributes:
        bytes: How many bytes are read at most; 0 to read nothing.
        seconds: How long that may take.
    """

    bytes: int
    seconds: float

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: One is wrong.
        """
        number: object = self.bytes
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= sys.maxsize:
            raise ConfigurationError(
                f"discard_bytes is {quote(number)}: use a number of bytes, or 0 to leave bodies unread"
            )
        check_seconds("discard_seconds", self.seconds)

    def concerns(self, method: str) -> bool:
        """Return whether the body of a request is read, if it has one."""
        return self.bytes > 0 and method not in _BODILESS

"""The secret of a maintenance: a token that admits whoever holds it. Stores keep only its hash."""

import hashlib
import re
import secrets
from typing import Final

SHORTEST: Final = 32
"""The shortest token that an app may choose, in characters."""

LONGEST_TOKEN: Final = 256
"""The longest one. Longer values from a visitor are not even hashed."""

_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~-]{{{SHORTEST},{LONGEST_TOKEN}}}")
"""These characters need no encoding in an address, a cookie or a header."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")


def choose_token(secret: object) -> str | None:
    """The token that an option asks for.

    Args:
        secret: True for a random token of 256 bits, or the token itself; None or False for none.

    Raises:
        TypeError, ValueError: It is something else. The message never shows it.
    """
    if secret is None or isinstance(secret, bool):
        return secrets.token_urlsafe(32) if secret else None
    if not isinstance(secret, str):
        raise TypeError(f"secret is a {type(secret).__name__}: use True for a random one, a str or None")
    if not _TOKEN.fullmatch(secret):
        raise ValueError(
            f"secret is not {SHORTEST} to {LONGEST_TOKEN} letters, digits and ._~-: use True, which makes a random one"
        )
    return secret


def hash_token(token: str) -> str:
    """The SHA-256 of a token, in hexadecimal. No text raises."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def check_hash(value: object) -> None:
    """Refuse anything but the hash of a token. The message never shows it, because it may be the token itself.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError("secret is not a hash: use the SHA-256 of a random token, as 64 hexadecimal digits")

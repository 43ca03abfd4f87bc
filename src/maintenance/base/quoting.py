"""How an error quotes a wrong value."""

import re
from typing import Final

MAX_QUOTED: Final = 100
"""The longest piece of a wrong value that an error quotes, in characters, because errors are logged again and again."""

_MAY_BE_A_URL: Final = re.compile("[@=]|://|%40|%3A", re.IGNORECASE)
"""A database URL with a password contains one of these, in any form. A value that is nearly right contains none."""


def quote(value: object) -> str:
    """A wrong value: its beginning, or only its type if it may be a misplaced URL, which may hold a password."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a number of too many digits, lists that are nested too deep, an app's own class
        text = ""
    if not text or _MAY_BE_A_URL.search(text):
        return f"a {type(value).__name__}"
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."

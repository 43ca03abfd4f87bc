"""The pages of the documentation, and what is in them."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = [path.relative_to(ROOT).as_posix() for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])]
NAMES.remove("docs/index.md")  # the frame of the site, which includes docs/README.md

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    return _FENCE.sub("", text(name))


def blocks(name: str, language: str) -> list[str]:
    return [textwrap.dedent(code) for kind, code in _FENCE.findall(text(name)) if kind == language]


def sample(name: str, word: str) -> str:
    """The one Python block of a page that contains a word."""
    [found] = [code for code in blocks(name, "python") if word in code]
    return found


def marked(name: str, mark: str) -> str:
    """The SQL block after a mark that only the source of a page shows."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n\n```sql\n(.*?)```", text(name), re.DOTALL)
    assert found, f"{name} has no SQL marked {mark!r}"
    return found[1]

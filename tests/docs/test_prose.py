"""The prose stays plain: phrases that make a reader stop are counted in the documentation and in the source."""

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT

READ = ("*.md", "docs/**/*.md", "src/**/*.py", "src/**/*.html", "src/**/*.sql", "sql/*.sql")

HABITS = {
    "Who has sent a form is told": r"\bWho(?:ever)? (?:has|is|gets|still|may)\b",
    "What takes too long is retried": r"\bWhat (?:is|has|takes|was|may)\b",
    "Where the function raises": r"\b[Ww]here (?:an?|its?|there|the|no|that|several|this)\b",
    "it is no duration": r"\bis no\b",
    "the page loads anew": r"\banew\b",
    "removed on your word": r"\b(?:your|operator's|caller's) word\b",
    "it starts by itself": r"\bby itself\b",
    "a process taken for dead": r"\b(?:takes?|taken) for dead\b",
    "somebody has flipped it": r"\b(?:[Ss]ome|[Nn]o|[Ee]very)body\b",
    "what stands before it": r"\bstands (?:in|before)\b",
    "an answer rests on a read": r"\brests? on\b",
    "a flip meanwhile": r"\b[Mm]eanwhile\b",
}
"""A phrase with the habit, and the pattern that finds it."""

LIMIT = 10
"""The patterns also find a few good sentences: "the place where the app is created" is a true relative clause, and
PostgreSQL's tests run as the user `nobody`. Ten leave room for those. A page that falls back into a habit has more."""


def found() -> Iterator[str]:
    any_habit = re.compile("|".join(HABITS.values()))
    for path in sorted({path for pattern in READ for path in ROOT.glob(pattern)}):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in any_habit.finditer(line):
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r} in {line.strip()!r}"


@pytest.mark.parametrize(("phrase", "pattern"), HABITS.items())
def test_each_pattern_finds_its_habit(phrase: str, pattern: str) -> None:
    assert re.search(pattern, phrase)


def test_few_habits_are_left() -> None:
    left = list(found())
    assert len(left) <= LIMIT, "\n".join(left)

"""The tables and plots of the documentation show the results that are kept."""

import json

import pytest

from benchmarks import results, tables
from tests.docs.pages import ROOT, text

NAMES = sorted(path.stem for path in results.FOLDER.glob("*.json"))


@pytest.mark.parametrize("page", tables.PAGES)
def test_each_table_shows_its_result(page: str) -> None:
    assert tables.render(text(page)) == text(page)


def test_each_table_is_on_a_page() -> None:
    shown = "".join(text(page) for page in tables.PAGES)
    assert [name for name in tables.TABLES if f"<!-- begin: {name} -->" not in shown] == []


@pytest.mark.parametrize("name", tables.plot())
def test_each_plot_shows_its_result(name: str) -> None:
    assert (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8") == tables.plot()[name]


@pytest.mark.parametrize("name", NAMES)
def test_each_result_says_how_where_with_what_and_when_it_was_measured(name: str) -> None:
    found = json.loads((results.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert found.keys() == {"command", "date", "machine", "versions", "note", "data"}
    assert found["machine"].keys() == {"system", "cores", "memory_gib", "load"}
    assert "Python" in found["versions"]
    assert found["command"] in "".join(text(page) for page in PAGES)


PAGES = ("docs/explanation/costs.md", "docs/explanation/sizing.md", "docs/explanation/faults.md")

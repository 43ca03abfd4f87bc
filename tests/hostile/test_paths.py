"""Hostile paths: a sample of what `make hostile` tries, and the looser readings that it must catch."""

import re
from dataclasses import replace

import pytest

from maintenance.http import rules
from maintenance.http.asgi_io import strip_mount
from tests.hostile import paths


@pytest.mark.parametrize("seed", range(4))
def test_what_is_let_through_reaches_no_view_that_is_closed(seed: int) -> None:
    tally = paths.run(seed, 5000)
    assert tally.failures == []
    for question in ("is_exempt", "is_open"):
        assert tally.counts[f"{question}: reached a view"] > 1000, "or the sample proves little"


@pytest.mark.parametrize("looser", ["ambiguous", "mount"])
def test_a_looser_reading_is_caught(looser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if looser == "ambiguous":
        monkeypatch.setattr(rules, "_AMBIGUOUS", re.compile("(?!)"))
    else:
        wire = paths.ASGIMiddleware._wire
        split = lambda path, root: (strip_mount(path, root), path)  # noqa: E731
        monkeypatch.setattr(paths.ASGIMiddleware, "_wire", replace(wire, split_path=split))
    assert paths.run(1, 5000).failures

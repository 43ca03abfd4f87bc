"""The flags as one value: what a read makes of them, and what replaces what."""

import datetime as dt

import pytest

from maintenance.base.flags import SEEDED, Flags, Reading, keep_newer
from maintenance.base.values import Row, Snapshot
from maintenance.errors import FlagError

THEN = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
NOTHING = Flags(site=Snapshot(enabled=False))


def test_without_the_counter_nothing_can_be_followed() -> None:
    with pytest.raises(FlagError, match="platform_settings_revision has no row: run `maintenance migrate`"):
        Reading(Row(False, {}, 1), last=None).flags(NOTHING, sent=0.0, received=0.0)


def test_a_row_that_names_no_scope_is_left_out() -> None:
    site = Row(False, {}, 1)
    read = Reading(site, scopes=(site, Row(True, {}, 2, scope="shop")), last=2).flags(NOTHING, sent=0.0, received=0.0)
    assert read.scopes.keys() == {"shop"}


def test_a_row_that_a_migration_has_written_opens_nothing() -> None:
    known = Flags(site=Snapshot(enabled=True, revision=7, updated_at=THEN, source="store"), revision=7)
    for revision in (1, 8):
        seed = Flags(site=Snapshot(enabled=False, revision=revision, updated_at=SEEDED), revision=revision)
        found = keep_newer(known, seed, now=0.0)
        assert (found.site.enabled, found.taken_back) == (True, True)


@pytest.mark.parametrize(("source", "closed"), [("store", True), ("environment", False)])
def test_only_what_a_store_has_shown_is_kept_against_an_older_value(source: str, *, closed: bool) -> None:
    known = Flags(site=Snapshot(enabled=True, revision=7, updated_at=THEN, source=source), revision=7)  # type: ignore[arg-type]
    before = Snapshot(enabled=False, revision=5, updated_at=THEN - dt.timedelta(days=1), source="store")
    assert keep_newer(known, Flags(site=before, revision=5), now=0.0).site.enabled is closed

"""Several flags: their order, what a read fetches, schedules and the history, over each store."""

import datetime as dt
from contextlib import closing
from typing import Any

import pytest

from maintenance.base.flags import Flags, Reading
from maintenance.base.values import Change, Details
from maintenance.errors import ConflictError
from maintenance.stores import Session, Store, open_store
from tests.stores.helpers import in_thread, instance, run_sql

NOON = dt.datetime(2031, 5, 1, 12, tzinfo=dt.UTC)
PLAN = Details(starts=NOON, until=NOON + dt.timedelta(minutes=30), auto_off=True)

NO_DETAILS = Details()


def change(scope: str | None = None, *, enabled: bool = True, details: Details = NO_DETAILS, **more: Any) -> Change:
    return Change(enabled=enabled, details=details, scope=scope, **more)


def flags(reading: Reading, before: Flags | None = None) -> Flags:
    known = before or Flags(site=reading.snapshot(read_at=0.0))
    return reading.flags(known, sent=1.0, received=1.0)


def test_a_read_fetches_the_scopes_that_are_on_or_scheduled(session: Session, other: Session) -> None:
    last = flags(session.read()).revision
    for scope, made in {"shop": change("shop"), "blog": change("blog", details=PLAN), "old": change("old")}.items():
        assert session.write(made).row.scope == scope
    session.write(change("old", enabled=False))
    found = flags(other.read())
    assert {scope: flag.enabled for scope, flag in found.scopes.items()} == {"shop": True, "blog": False}
    assert (found.site.enabled, found.site.revision, found.revision) == (False, last, last + 4)
    assert (found.scopes["blog"].starts, found.scopes["blog"].auto_off) == (NOON, True)


def test_a_read_leaves_the_scopes_out_while_nothing_has_changed(session: Session, other: Session) -> None:
    session.write(change("shop"))
    known = flags(other.read())
    again = other.read(known=known)
    assert again.scopes is None
    assert flags(again, known).scopes.keys() == {"shop"}
    for step in (
        lambda: session.write(change("blog")),
        lambda: session.ask_drain(session.read().last, "blog"),
        lambda: session.write(change("blog", enabled=False)),
        lambda: session.write(change(details=Details(message="m"))),
    ):
        step()
        known = flags(other.read(known=known), known)
        assert other.read(known=known).scopes is None
    assert (known.scopes.keys(), known.drains) == ({"shop"}, frozenset())


def test_a_drain_is_asked_for_one_flag(session: Session) -> None:
    session.write(change("shop", drain=True))
    session.write(change("blog"))
    session.ask_drain(session.read().last, "blog")
    assert flags(session.read()).drains == {"shop", "blog"}


def test_the_fleet_shows_the_flag_that_is_asked_for_even_if_it_is_off(session: Session) -> None:
    session.write(change("shop"))
    session.write(change("shop", enabled=False))
    session.report(instance(drains={"shop": 3}, service="web"))
    assert session.fleet().reading.scopes == ()
    fleet = session.fleet("shop")
    assert [(row.scope, row.value_bool) for row in fleet.reading.scopes or ()] == [("shop", False)]
    assert [(one.drains, one.service) for one in fleet.instances] == [({"shop": 3}, "web")]


def test_flips_at_once_get_revisions_in_the_order_of_their_commits(store: Store) -> None:
    """A reader that has seen a revision has seen every change before it."""

    def flip(scope: str) -> None:
        with closing(store.connect()) as session:
            for enabled in [True, False] * 20:
                session.write(change(scope, enabled=enabled))

    def watch() -> list[tuple[int, dict[str, int]]]:
        with closing(store.connect()) as session:
            found = (flags(session.read()) for _ in range(60))
            return [(it.revision, {scope: flag.revision for scope, flag in it.scopes.items()}) for it in found]

    with in_thread(lambda: flip("a")), in_thread(lambda: flip("b")), in_thread(watch) as seen:
        pass
    with closing(store.connect()) as session:
        entries = {entry.revision: entry for entry in session.history(None, limit=1000)}
    assert len(entries) == max(entries) - min(entries) + 1
    for revision, shown in seen[0]:  # type: ignore[attr-defined]
        on = {}
        for number in range(min(entries), revision + 1):
            entry = entries[number]
            on[entry.scope] = number if entry.after else None
        assert {scope: number for scope, number in on.items() if number} == shown


# A condition


def test_a_flip_is_refused_if_somebody_was_faster(session: Session, other: Session) -> None:
    mine = session.write(change("shop", if_revision=0)).row.revision
    other.write(change("shop", details=Details(message="faster")))
    with pytest.raises(ConflictError, match=f"at revision {session.read().last}, not {mine}: look at `maintenance log"):
        session.write(change("shop", enabled=False, if_revision=mine))
    assert flags(session.read()).scopes["shop"].message == "faster"
    session.write(change("shop", enabled=False, if_revision=session.read().last))
    assert not flags(session.read()).scopes


def test_a_write_returns_the_flag_as_it_was(session: Session) -> None:
    assert session.write(change("shop", details=Details(actor="Ann"))).before is None
    before = session.write(change("shop", enabled=False)).before
    assert before is not None
    assert (before.value_bool, before.details) == (True, {"actor": "Ann"})


# Schedules


@pytest.mark.parametrize(
    ("details", "message"),
    [
        (Details(starts=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)), "starts is 2020"),
        (Details(until=dt.datetime(2020, 1, 1, tzinfo=dt.UTC), auto_off=True), "until is 2020"),
    ],
)
def test_a_schedule_in_the_past_is_refused_before_anything_is_written(
    session: Session, details: Details, message: str
) -> None:
    before = session.read()
    with pytest.raises(ValueError, match=f"{message}.*the database's clock shows .*use a later time"):
        session.write(change("shop", details=details))
    assert session.read(known=flags(before)).scopes is None


def test_the_value_of_a_schedule_is_written_once(session: Session, other: Session) -> None:
    revision = session.write(change("shop", details=PLAN, drain=True)).row.revision
    assert isinstance(revision, int)
    assert [one.carry_out("shop", revision, enabled=True) for one in (session, other)] == [True, False]
    [row] = session.read().scopes or ()
    assert (row.value_bool, row.revision, row.drain) == (True, revision + 1, True)
    assert not session.carry_out("shop", revision, enabled=False), "the flag is at another revision"
    assert session.carry_out("shop", revision + 1, enabled=False)
    assert session.read().scopes == ()


def test_a_schedule_that_has_passed_unseen_is_removed_once(session: Session) -> None:
    revision = session.write(change("shop", details=PLAN)).row.revision
    assert isinstance(revision, int)
    assert session.carry_out("shop", revision, enabled=False)
    assert session.read().scopes == ()
    assert not session.carry_out("shop", revision + 1, enabled=False)


@pytest.mark.parametrize("value", [True, False])
def test_a_flag_that_is_switched_off_by_hand_has_no_schedule_left(shared_url: str, *, value: bool) -> None:
    with closing(open_store(shared_url).connect()) as session:
        revision = session.write(change(details=PLAN)).row.revision
        session.carry_out(None, revision, enabled=True)  # type: ignore[arg-type]
        run_sql(shared_url, "UPDATE platform_settings SET value_bool = false WHERE key = 'maintenance_mode'")
        found = flags(session.read()).site
        assert (found.enabled, found.starts, found.auto_off) == (False, None, False)
        assert found.until == PLAN.until


# By hand, and the history


def test_every_change_is_recorded_raw_sql_included(shared_url: str) -> None:
    with closing(open_store(shared_url).connect()) as session:
        session.write(change("shop", details=Details(message="m", actor="Ann")))
        for sql in (
            "UPDATE platform_settings SET value_bool = false, details = '{}' WHERE key = 'maintenance_mode:shop'",
            "UPDATE platform_settings SET description = 'no change' WHERE key = 'maintenance_mode:shop'",
            "INSERT INTO platform_settings (key, value_bool) VALUES ('maintenance_mode:blog', true)",
            "DELETE FROM platform_settings WHERE key = 'maintenance_mode:blog'",
            "INSERT INTO platform_settings (key, value_bool) VALUES ('another', true)",
        ):
            run_sql(shared_url, sql)
        entries = session.history(None, limit=4)
        assert [(it.scope, it.before, it.after) for it in entries] == [
            ("blog", True, None),
            ("blog", None, True),
            ("shop", True, False),
            ("shop", None, True),
        ]
        assert [it.revision for it in entries] == list(range(entries[0].revision, entries[0].revision - 4, -1))
        assert (entries[2].details_before, entries[2].details) == ({"message": "m", "actor": "Ann"}, {})
        assert session.read().last == entries[0].revision
        assert [it.scope for it in session.history("shop", limit=10)] == ["shop", "shop"]
        run_sql(shared_url, "UPDATE platform_settings SET details = '[]' WHERE key = 'maintenance_mode:shop'")
        assert session.history("shop", limit=1)[0].details == {}, "details that are none hide no change"


def test_a_row_whose_scope_has_no_name_or_no_value_hides_no_other(shared_url: str) -> None:
    with closing(open_store(shared_url).connect()) as session:
        session.write(change("shop"))
        for key, value in {"maintenance_mode:": "true", "maintenance_mode:a b": "true"}.items():
            run_sql(shared_url, f"INSERT INTO platform_settings (key, value_bool) VALUES ('{key}', {value})")
        run_sql(
            shared_url,
            "INSERT INTO platform_settings (key, value_bool, details) "
            "VALUES ('maintenance_mode:odd', NULL, '{\"starts\": 5}')",
        )
        found = flags(session.read())
        assert found.scopes.keys() == {"shop"}
        assert "'maintenance_mode:odd' is None" in found.site.problems[0]


def test_only_the_last_thousand_changes_of_a_flag_are_kept(session: Session) -> None:
    for number in range(1010):
        session.write(change("shop", enabled=number % 2 == 0))
    assert len(session.history("shop", limit=5000)) in (1000, 1001)

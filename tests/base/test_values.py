"""Wrong values are refused before they are written, and named when they are read."""

import datetime as dt
from dataclasses import FrozenInstanceError, replace
from typing import Any
from uuid import UUID

import pytest

from maintenance.base.flags import Reading
from maintenance.base.values import MAX_RETRY_AFTER, MAX_TEXT, Change, Details, Row, Snapshot, split_message
from maintenance.errors import FlagError

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"mode": "half"}, ValueError, "mode is 'half': use 'full' or 'read_only'"),
        ({"mode": None}, ValueError, "mode is None"),
        ({"mode": ["full"]}, ValueError, "mode is"),
        ({"message": 3}, TypeError, "message is a int: use a str or None"),
        ({"messages": "x"}, TypeError, "messages is a str: use a mapping from language to text"),
        ({"messages": {"deutsch!": "x"}}, ValueError, "messages has the language 'deutsch!': use a tag such as 'de'"),
        ({"messages": {"a" * 40: "x"}}, ValueError, "messages has the language"),
        ({"messages": {"de": 3}}, TypeError, "the message in de is a int: use a str"),
        ({"messages": {f"en-{n:05}": "" for n in range(51)}}, ValueError, "messages has 51 languages: use at most 50"),
        ({"messages": dict.fromkeys(("de", "fr", "it"), "x" * 7000)}, ValueError, "messages has 21000 characters in"),
        ({"actor": b"me"}, TypeError, "actor is a bytes"),
        ({"reason": "x" * (MAX_TEXT + 1)}, ValueError, f"reason has {MAX_TEXT + 1} characters: use at most"),
        ({"message": "a\0b"}, ValueError, "message has a NUL"),
        ({"message": "\ud83d"}, ValueError, "half of a surrogate pair"),
        ({"until": "tomorrow"}, TypeError, "until is a str: use an aware datetime"),
        ({"until": dt.date(2026, 11, 21)}, TypeError, "until is a date"),
        ({"until": dt.datetime(2026, 11, 21)}, ValueError, "names no time zone: add one"),  # noqa: DTZ001
        ({"until": dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=1)))}, ValueError, "until is 9999"),
        ({"retry_after": "60"}, TypeError, "retry_after is a str: use whole seconds"),
        ({"retry_after": 1.5}, TypeError, "retry_after is a float"),
        ({"retry_after": True}, TypeError, "retry_after is a bool"),
        ({"retry_after": -1}, ValueError, "retry_after is -1: use seconds between 0"),
        ({"retry_after": MAX_RETRY_AFTER + 1}, ValueError, "retry_after is 2147483648"),
    ],
)
def test_wrong_details_are_refused_with_what_to_use(wrong: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        Details(**wrong)


def test_the_last_values_that_are_right_are_taken() -> None:
    Details(message="x" * MAX_TEXT, retry_after=MAX_RETRY_AFTER)
    Details(message="", retry_after=0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"enabled": 1}, "enabled is 1: use True or False"),
        ({"enabled": "on"}, "enabled is 'on'"),
        ({"enabled": None}, "enabled is None"),
        ({"enabled": True, "updated_by": 7}, "updated_by is a int: use a uuid.UUID or None"),
    ],
)
def test_a_wrong_change_is_refused_with_what_to_use(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Change(details=Details(), **wrong)


def test_details_are_stored_without_what_is_usual() -> None:
    assert Details().to_json() == {}
    assert Details(mode="read_only", retry_after=0).to_json() == {"mode": "read_only", "retry_after": 0}


def test_times_are_stored_in_utc_and_come_back() -> None:
    until = NOON.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    stored = Details(until=until).to_json()
    assert stored == {"until": "2026-11-21T12:00:00+00:00"}
    assert Details.from_json(stored) == (Details(until=NOON), ())


def test_names_of_newer_versions_are_left_alone() -> None:
    assert Details.from_json({"colour": "red", "message": "hi", "actor": None}) == (Details(message="hi"), ())


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Row(None, {}, 1), "value_bool of 'maintenance_mode' is None: set it to true or false"),
        (Row(1, {}, 1), "value_bool of 'maintenance_mode' is 1"),
        (Row(True, {}, None), "revision of 'maintenance_mode' is None: run `maintenance migrate`"),
    ],
)
def test_a_wrong_flag_is_an_error_that_names_its_column(row: Row, says: str) -> None:
    with pytest.raises(FlagError, match=says):
        row.snapshot(read_at=0.0)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"mode": "half"}, "mode is 'half': use 'full' or 'read_only'"),
        ({"mode": ["full"]}, "mode is ['full']: use"),
        ({"retry_after": 2.5}, "retry_after is a float: use whole seconds"),
        ({"until": "soon"}, "until is 'soon': use an ISO 8601 time with a time zone, such as '2031-05-01T12"),
        ({"until": 5}, "until is 5: use an ISO"),
        ({"until": "2026-11-21T12:00:00"}, "until is '2026-11-21T12:00:00': use an ISO 8601 time with a time zone"),
        ({"until": "9999-12-31T23:59:59-01:00"}, "until is 9999-12-31 23:59:59-01:00, which is outside"),
        ({"message": {"a": 1}}, "message is a dict"),
        ({"message": "x" * (MAX_TEXT + 1)}, f"message has {MAX_TEXT + 1} characters: use at most"),
        ({"actor": 7}, "actor is a int"),
        ({"secret": "a token by mistake"}, "secret is not a hash: use the SHA-256 of a random token"),
        ({"secret": 7}, "secret is not a hash"),
        ({"reason": "\ud83d"}, "reason has a NUL or half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_wrong_detail_counts_as_absent_and_the_right_ones_are_kept(wrong: dict[str, Any], problem: str) -> None:
    right = {
        "mode": "read_only",
        "message": "m",
        "until": NOON.isoformat(),
        "retry_after": 9,
        "actor": "a",
        "reason": "r",
    }
    found = Row(True, right | wrong, 4, NOON, UUID(int=7)).snapshot(read_at=3.5)
    kept = {name: value for name, value in right.items() if name not in wrong}
    assert replace(found, problems=()) == Row(True, kept, 4, NOON, UUID(int=7)).snapshot(read_at=3.5)
    assert (len(found.problems), found.problems[0][: len(problem)]) == (len(wrong), problem)


@pytest.mark.parametrize("details", [None, [], "no JSON", 5])
def test_details_that_are_no_object_are_empty(details: object) -> None:
    found = Row(True, details, 4).snapshot(read_at=0.0)
    assert found == Snapshot(enabled=True, revision=4, problems=found.problems)
    assert [problem.partition(": ")[2] for problem in found.problems] == ["use a JSON object, such as {}"]


def test_a_time_or_a_user_that_is_wrong_counts_as_absent() -> None:
    naive = NOON.replace(tzinfo=None)
    for when, who, problems in (
        ("infinity", None, ("updated_at is 'infinity': set it to the current time",)),
        (naive, "ann", (f"updated_at is {naive!r}: set", "updated_by is 'ann': set it to a UUID, or to NULL")),
    ):
        found = Row(True, {"message": "m"}, 4, when, who).snapshot(read_at=0.0)
        assert (found.message, found.updated_at, found.updated_by) == ("m", None, None)
        assert all(map(str.startswith, found.problems, problems))
        assert len(found.problems) == len(problems)


def test_a_missing_row_is_told_with_what_to_do() -> None:
    with pytest.raises(
        FlagError, match="^x: platform_settings has no row 'maintenance_mode': run `maintenance migrate`"
    ):
        Reading(None, store="x").snapshot(read_at=0.0)


def test_a_wrong_row_is_told_with_where_it_is() -> None:
    with pytest.raises(FlagError, match="^x: platform_settings.value_bool of 'maintenance_mode' is None: set it"):
        Reading(Row(None, {}, 7), store="x").snapshot(read_at=0.0)


def test_a_right_row_is_a_snapshot_with_all_that_it_says() -> None:
    by = UUID(int=7)
    row = Row(True, {"mode": "read_only", "message": "m", "until": NOON.isoformat(), "retry_after": 9}, 4, NOON, by)
    assert Reading(row).snapshot(read_at=3.5) == Snapshot(
        enabled=True, mode="read_only", message="m", until=NOON, retry_after=9, revision=4, updated_at=NOON,
        updated_by=by, source="store", read_at=3.5,
    )  # fmt: skip


def test_details_that_were_just_written_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Details(message="m", until=NOON.astimezone(dt.timezone(dt.timedelta(hours=5))), retry_after=9)
    row = Row(True, written.to_json(), 4)
    parsed = row.snapshot(read_at=1.0)
    monkeypatch.setattr(Details, "from_json", lambda stored: (Details(message=f"parsed {stored}"), ()))
    reused = row.snapshot(read_at=1.0, written=written)
    assert reused == parsed
    assert reused.until is not None
    assert reused.until.tzinfo is dt.UTC
    # Such as a trigger of the platform's own that adds a reason.
    changed = Row(True, {"reason": "r"}, 4).snapshot(read_at=1.0, written=written)
    assert changed.message == "parsed {'reason': 'r'}"


def test_a_snapshot_takes_its_details_without_a_copy() -> None:
    written = Details(message="m", messages={"en": "m", "de": "n"})
    assert Row(True, written.to_json(), 4).snapshot(read_at=1.0, written=written).messages is written.messages


@pytest.mark.parametrize("value", [Snapshot(enabled=True), Details()])
def test_values_cannot_be_changed(value: Any) -> None:
    name = next(iter(type(value).__dataclass_fields__))
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)


LONG = "x" * 1_000_000


def test_a_detail_that_python_cannot_show_counts_as_absent() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    found = Row(True, {"mode": nested, "retry_after": 10**5000, "message": "m"}, 4).snapshot(read_at=0.0)
    assert (found.message, [problem.partition(":")[0] for problem in found.problems]) == (
        "m", ["mode is a list", "retry_after is a int"],
    )  # fmt: skip


def test_a_wrong_row_is_not_quoted_whole() -> None:
    details = {"mode": LONG, "until": LONG, "retry_after": 10**4000, "message": LONG, "actor": LONG, "reason": LONG}
    assert len("; ".join(Row(True, details, 1, LONG, LONG).snapshot(read_at=0.0).problems)) < 1500
    assert len(Row(True, LONG, 1).snapshot(read_at=0.0).problems[0]) < 300
    for row in (Row(LONG, {}, 1), Row(True, {}, LONG)):
        with pytest.raises(FlagError, match=r"\.\.\.: ") as caught:
            row.snapshot(read_at=0.0)
        assert len(str(caught.value)) < 300


def test_a_message_may_be_given_for_each_language() -> None:
    given = {"de": "Bald.", "PT-br": "Já.", "ZH-hant-tw": "很快", "sl-ROZAJ": "Kmalu."}
    details = Details(**split_message(given))
    assert (details.message, list(details.messages or {})) == ("Bald.", ["de", "pt-BR", "zh-Hant-TW", "sl-rozaj"])
    assert details.to_json() == {"message": "Bald.", "messages": details.messages}
    assert Details.from_json(details.to_json()) == (details, ())
    assert hash(details) == hash(Details(message="Bald."))
    assert split_message({}) == split_message(None) == {"message": None, "messages": None}
    assert split_message("Soon.") == {"message": "Soon.", "messages": None}
    assert Details(messages={}) == Details()
    given["de"] = "changed"
    assert (details.messages or {})["de"] == "Bald."


def test_messages_by_hand_that_are_wrong_count_as_absent() -> None:
    stored = {"message": "m", "messages": {"de": "x", "?": "y"}}
    assert Details.from_json(stored) == (
        Details(message="m"),
        ("messages has the language '?': use a tag such as 'de' or 'pt-BR'",),
    )

"""A wrong value is quoted, unless it may hold a password."""

import functools

from maintenance.base.quoting import quote


class Broken:
    """An object of an app's, whose representation fails."""

    def __repr__(self) -> str:
        raise RuntimeError("hunter2")


def test_a_value_is_quoted_unless_it_may_be_a_url() -> None:
    for value, shown in (
        (3, "3"),
        ("soon", "'soon'"),
        ("2026-11-21T12:00:00", "'2026-11-21T12:00:00'"),
        ("x" * 1000, f"'{'x' * 99}..."),
        (10**5000, "a int"),
        (Broken(), "a Broken"),
        ("postgresql://h/d", "a str"),
        (b"u:hunter2@h/d", "a bytes"),
        ("host=h passwd=hunter2", "a str"),
        ("postgresql%3a%2F%2Fu%3Ahunter2%40h%2Fd", "a str"),
        (["sqlite:///hunter2"], "a list"),
        (functools.partial(print, "postgres://u:hunter2@h/d"), "a partial"),
    ):
        assert quote(value) == shown

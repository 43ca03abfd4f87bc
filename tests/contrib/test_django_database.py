"""The database that Django's settings name, and the state over it."""

import logging
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from maintenance import ConfigurationError, init_maintenance, maintenance_enabled, set_maintenance
from maintenance.contrib.django import database
from maintenance.process import api
from maintenance.stores import open_store
from tests.contrib.conftest import Project, describe
from tests.support.command import operator

POSTGRES = "django.db.backends.postgresql"


def test_the_flag_is_in_the_database_of_the_settings(shared_url: str, project: Project) -> None:
    project({"shop": describe(shared_url)}, MAINTENANCE={"DATABASE": "shop", "ttl": 7.0})
    assert api.current_state() is None  # nothing is built or connected when Django starts
    assert not maintenance_enabled()
    set_maintenance(True)
    assert operator(shared_url).refresh().enabled
    assert api.default_state().status().ttl == 7.0


def test_without_the_setting_it_is_the_usual_database(sqlite_url: str, project: Project) -> None:
    project({"default": describe(sqlite_url)})
    assert database.find_database() == ("DATABASES['default']", sqlite_url)


def test_a_state_that_the_app_has_built_stays(project: Project) -> None:
    state = init_maintenance("memory://")
    project({"default": {"ENGINE": POSTGRES, "NAME": "shop"}})
    assert api.default_state() is state


NAMED = {"NAME": "a shop", "USER": "ü@s/e", "PASSWORD": "p@ss:w/o?r#d%&='\" +", "HOST": "/var/run/x,::1", "PORT": 5433}


def test_every_value_arrives_as_it_was_written(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    options = {"sslmode": "require", "service": "x", "pool": True, "isolation_level": 2, "assume_role": "r"}
    project({"default": {"ENGINE": POSTGRES, **NAMED, "OPTIONS": options}})
    caplog.set_level(logging.DEBUG)
    _, url = database.find_database()
    expected = {
        "dbname": "a shop",
        "user": "ü@s/e",
        "password": NAMED["PASSWORD"],
        "host": "/var/run/x,::1",
        "port": "5433",
        "sslmode": "require",
        "service": "x",
    }
    assert conninfo_to_dict(url) == expected
    assert "p%40ss" not in open_store(url).name + caplog.text


def test_a_database_in_memory_has_its_flag_in_memory(project: Project) -> None:
    """As in a test of a project on SQLite."""
    project({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
    set_maintenance(True)
    assert maintenance_enabled()


def test_a_path_may_hold_any_character(tmp_path: Path, project: Project) -> None:
    path = tmp_path / "a?b#c%41 ü.sqlite3"
    project({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}})
    set_maintenance(True)
    assert path.exists()


SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "x.db"}
WRONG: dict[str, tuple[dict[str, Any], object, str]] = {
    "no such alias": ({"shop": SQLITE}, {"DATABASE": "shp"}, r"^MAINTENANCE\['DATABASE'\] is 'shp': use .*'shop'"),
    "no alias": ({}, {"DATABASE": ["default"]}, r"is \['default'\]: use an alias"),
    "another engine": ({}, {}, "is neither PostgreSQL nor SQLite: add one that is"),
    "an engine that is missing": ({"default": {"ENGINE": "shop.db"}}, {}, r"DATABASES\['default'\] cannot be loaded"),
    "no mapping": ({"default": SQLITE}, "default", "MAINTENANCE is 'default': use a dict"),
    "an option in capitals": ({"default": SQLITE}, {"TTL": 5}, "MAINTENANCE holds 'TTL': use 'ttl'$"),
    "an unknown option": ({"default": SQLITE}, {"wait": 5}, "MAINTENANCE holds 'wait': use 'DATABASE', 'ttl', "),
    "a wrong option": ({"default": SQLITE}, {"ttl": 0}, "ttl"),
    "a password in a name": (
        {"default": {"ENGINE": POSTGRES, "NAME": "d", "USER": "u:Hunter2"}},
        {},
        r"^DATABASES\['default'\]: .* in its user",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("databases", "given", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_named(project: Project, databases: Any, given: Any, message: str) -> None:
    project(databases, MAINTENANCE=given)
    with pytest.raises(ConfigurationError, match=message) as raised:
        api.default_state()
    assert "Hunter2" not in str(raised.value)

"""The Flask extension: the database of the app's config, the wrapped app, and ``flask maintenance``."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import URL

from maintenance import ConfigurationError, MaintenanceState, init_maintenance, set_maintenance
from maintenance.contrib.flask import Maintenance
from maintenance.process import api
from tests.support.command import operator


def make(**config: Any) -> Flask:
    app = Flask("shop", instance_path=config.pop("instance_path", None))
    app.config.update(config)

    @app.get("/")
    @app.get("/open")
    def index() -> str:
        return "the app"

    return app


def status(app: Flask, path: str = "/") -> int:
    with app.test_client() as client:
        return client.get(path, buffered=True).status_code


def test_an_app_follows_the_flag_of_its_config(shared_url: str) -> None:
    app = make(
        MAINTENANCE_DATABASE_URL=shared_url, SQLALCHEMY_DATABASE_URI="mysql://x/y", MAINTENANCE_OPTIONS={"ttl": 7.0}
    )
    Maintenance(app, exempt=["/open"])
    assert status(app) == 200
    set_maintenance(True)
    assert (status(app), status(app, "/open")) == (503, 200)
    assert operator(shared_url).refresh().enabled
    assert api.default_state().status().ttl == 7.0


def test_a_factory_may_make_several_apps(sqlite_url: str, tmp_path: Path) -> None:
    extension = Maintenance()
    first, second = (
        make(MAINTENANCE_DATABASE_URL=sqlite_url),
        make(MAINTENANCE_DATABASE_URL=f"sqlite:///{tmp_path}/2.db"),
    )
    extension.init_app(first)
    assert status(first) == 200
    extension.init_app(second)
    set_maintenance(True)
    assert not operator(sqlite_url).refresh().enabled  # the default state is that of the last app
    assert (status(first), status(second)) == (503, 503)


def test_each_app_may_have_a_state_of_its_own() -> None:
    default = init_maintenance("memory://")
    first, second = MaintenanceState("memory://"), MaintenanceState("memory://")
    apps = [make(), make()]
    for app, state in zip(apps, (first, second), strict=True):
        Maintenance(app, state=state)
    second.set(True)
    assert [status(app) for app in apps] == [200, 503]
    assert api.default_state() is default
    assert not default.closed
    first.close()
    second.close()


def test_nothing_is_connected_by_the_extension() -> None:
    """A connection in a process that forks its workers later would be shared by all of them."""
    threads = threading.active_count()
    Maintenance(make(MAINTENANCE_DATABASE_URL="postgresql://127.0.0.1:1/shop"))
    status = api.default_state().status()
    assert (status.condition, status.last_error) == ("never read", None)
    assert threading.active_count() == threads


SQLITE_URIS = {
    "sqlite:///a shop%41#.db": "sqlite:///{}/a%20shop%2541%23.db",
    "sqlite+pysqlite:////srv/shop.db": "sqlite:////srv/shop.db",
    "sqlite://": "memory://",
    "sqlite:///:memory:": "memory://",
}


@pytest.mark.parametrize(("uri", "name"), SQLITE_URIS.items())
def test_a_uri_of_flask_sqlalchemy(uri: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: not str(path).endswith(".db"))
    Maintenance(make(SQLALCHEMY_DATABASE_URI=uri, instance_path=str(tmp_path)))
    assert api.default_state().store.name == name.format(tmp_path)


@pytest.mark.parametrize("as_object", [False, True])
def test_a_uri_with_a_driver_and_a_password(migrated_url: str, as_object: bool) -> None:
    uri: Any = migrated_url.replace("postgresql://", "postgresql+psycopg2://")
    if as_object:
        from sqlalchemy import make_url

        uri = make_url(uri)
        assert isinstance(uri, URL)
    Maintenance(make(SQLALCHEMY_DATABASE_URI=uri))
    set_maintenance(True)
    assert operator(migrated_url).refresh().enabled


def test_without_a_config_it_is_the_database_of_the_environment(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="no database is named"):
        Maintenance(make())
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    Maintenance(make())
    assert api.default_state().store.name == sqlite_url


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a URL": ({"SQLALCHEMY_DATABASE_URI": "mysql://u:Hunter2@h/d"}, {}, r"^config\['SQLALCHEMY_DATABASE_URI'\]: "),
    "an option": ({"MAINTENANCE_OPTIONS": {"tll": 5}}, {}, "MAINTENANCE_OPTIONS holds 'tll': use 'ttl'"),
    "a state": ({}, {"state": "memory://"}, "state is of type str"),
    "an option of the middleware": ({}, {"exempt": "/x"}, "exempt is '/x'"),
}


@pytest.mark.parametrize(("config", "options", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_leaves_the_process_as_it_was(config: Any, options: Any, message: str) -> None:
    state = init_maintenance("memory://")
    app = make(**{"MAINTENANCE_DATABASE_URL": None if "SQLALCHEMY_DATABASE_URI" in config else "memory://", **config})
    with pytest.raises(ConfigurationError, match=message) as raised:
        Maintenance(app, **options)
    assert "Hunter2" not in str(raised.value)
    assert api.default_state() is state
    assert not state.closed


def test_an_app_is_wrapped_once() -> None:
    app = make(MAINTENANCE_DATABASE_URL="memory://")
    extension = Maintenance(app)
    with pytest.raises(ConfigurationError, match="call init_app once"):
        extension.init_app(app)


APP = """
from flask import Flask
from maintenance.contrib.flask import Maintenance

app = Flask(__name__)
app.config["MAINTENANCE_DATABASE_URL"] = {!r}
Maintenance(app)
"""


def test_flask_maintenance_is_the_command_line_with_its_exit_status(shared_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.format(shared_url))

    def flask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flask", "--app", "shop", "maintenance", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = flask("on", "--wait", "--message", "Back at noon.", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["message"] == "Back at noon."
    assert operator(shared_url).refresh().enabled
    assert flask("status").returncode == 3
    assert flask("on", "--wat").returncode == 2
    assert "show who changed which flag" in flask("--help").stdout


def test_the_command_in_this_process(sqlite_url: str) -> None:
    app = make(MAINTENANCE_DATABASE_URL=sqlite_url)
    Maintenance(app)
    run = app.test_cli_runner().invoke
    assert run(args=["maintenance", "migrate"]).exit_code == 0
    assert run(args=["maintenance", "on", "--json"]).exit_code == 0
    assert operator(sqlite_url).refresh().enabled
    assert run(args=["maintenance", "status", "--", "x"]).exit_code == 2  # `--` arrives

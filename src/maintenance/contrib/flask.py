"""The Flask extension."""

import os
import re
from typing import Any, Final
from urllib.parse import quote

import click
from flask import Flask

from maintenance.cli import main
from maintenance.contrib.options import read_options
from maintenance.errors import ConfigurationError
from maintenance.process.api import check_state, database_variable, open_named, replace_default
from maintenance.process.state import MaintenanceState
from maintenance.wsgi import MaintenanceMiddleware

_NAME: Final = "maintenance"
_URL: Final = "MAINTENANCE_DATABASE_URL"
_OPTIONS: Final = "MAINTENANCE_OPTIONS"
_SQLALCHEMY: Final = "SQLALCHEMY_DATABASE_URI"


class Maintenance:
    """Wraps a Flask app, and adds ``flask maintenance``.

    The database is that of ``MAINTENANCE_DATABASE_URL`` in the app's config, else of ``SQLALCHEMY_DATABASE_URI`` there,
    else of the environment. ``MAINTENANCE_OPTIONS`` in the config holds the options of `MaintenanceState`.
    """

    def __init__(self, app: Flask | None = None, *, state: MaintenanceState | None = None, **options: Any) -> None:
        """Take the options, and wrap the app if there is one.

        Args:
            app: The app; None to call `init_app` later.
            state: The state to ask, instead of the default one. The default state then stays as it is.
            **options: The options of `MaintenanceMiddleware`.

        Raises:
            ConfigurationError: An option or the config is wrong, or no database is named.
        """
        check_state(state)
        self._state, self._options = state, options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap an app. Unless a state was given, that of the config becomes the default one. Nothing is connected.

        Raises:
            ConfigurationError: See `__init__`; or this app is wrapped already.
        """
        if _NAME in app.extensions:
            raise ConfigurationError(f"the app {app.name!r} has the extension already: call init_app once")
        wrapped: Any = MaintenanceMiddleware(app.wsgi_app, self._state, **self._options)
        if self._state is None:
            replace_default(_build_state(app))
        app.extensions[_NAME] = self
        app.wsgi_app = wrapped  # type: ignore[method-assign]
        app.cli.add_command(_Command(app))


class _Command(click.Command):
    """``flask maintenance``: the command line, over the database of the app."""

    def __init__(self, app: Flask) -> None:
        super().__init__(
            _NAME, help="Put every process of a fleet into maintenance, and wait until all of them follow."
        )
        self._app = app

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave every argument as it is: click would take ``--help`` and ``--`` away."""
        ctx.args = args
        return []

    def invoke(self, ctx: click.Context) -> None:
        """Run, and exit with the status of the command line."""
        ctx.exit(main(ctx.args, find_database=lambda: _find_database(self._app)))


def _build_state(app: Flask) -> MaintenanceState:
    options = read_options(_OPTIONS, app.config.get(_OPTIONS, {}))
    return MaintenanceState(open_named(*_find_database(app)), **options)


def _find_database(app: Flask) -> tuple[str, str]:
    """Return the place that names the database, and its URL."""
    if url := app.config.get(_URL):
        return f"config[{_URL!r}]", str(url)
    if uri := app.config.get(_SQLALCHEMY):
        # A `sqlalchemy.URL` hides its password, unless it is asked for it.
        render = getattr(uri, "render_as_string", None)
        return f"config[{_SQLALCHEMY!r}]", _convert(app, str(uri) if render is None else render(hide_password=False))
    return database_variable()


def _convert(app: Flask, uri: str) -> str:
    """Return a URI of Flask-SQLAlchemy as a URL of this library: without a driver, and from the instance folder."""
    uri = re.sub(r"^(\w+)\+\w+://", r"\1://", uri)
    scheme, _, path = uri.partition("://")
    if scheme != "sqlite":
        return uri
    if path in ("", "/", "/:memory:"):
        return "memory://"
    # SQLAlchemy decodes no path. Its parameters stay, so that the store refuses them.
    return f"sqlite:///{quote(os.path.join(app.instance_path, path[1:]), safe='/?')}"

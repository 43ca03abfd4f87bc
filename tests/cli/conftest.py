"""What the tests of the command line share: stores that the environment names, and a way to run a command."""

import contextlib
import io
import sys

import pytest

from maintenance.cli import main
from maintenance.stores import open_store
from tests.support.command import Cli, Done


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process. `output` replaces stdout, so that it can act on what it reads."""

    def run(*arguments: str, output: io.StringIO | None = None) -> Done:
        with contextlib.redirect_stdout(output or sys.stdout):
            try:
                status = main(list(arguments))
            except SystemExit as exc:
                status = int(exc.code or 0)
        out, err = capsys.readouterr()
        return Done(status, output.getvalue() if output else out, err)

    return run


@pytest.fixture
def url(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated SQLite store, named by the environment."""
    open_store(sqlite_url).migrate()
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", sqlite_url)
    return sqlite_url


@pytest.fixture
def each_url(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated store of each kind that processes share, named by the environment."""
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", shared_url)
    return shared_url

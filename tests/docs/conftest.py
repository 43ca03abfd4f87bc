"""The fixtures that run what the documentation shows."""

import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from maintenance.process import api


@pytest.fixture
def paste(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Runs a sample as if it were pasted into an empty project; returns its module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", migrated_url)
    monkeypatch.setenv("MAINTENANCE_BYPASS_TOKEN", "a-long-random-text")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    monkeypatch.setattr(api, "_state", None)
    (tmp_path / "maintenance.sql").write_text("SELECT 1")

    def run(code: str) -> Any:
        module = types.ModuleType("pasted")
        module.__file__ = str(tmp_path / "pasted.py")
        monkeypatch.setitem(sys.modules, "pasted", module)
        exec(compile(code, "pasted.py", "exec"), vars(module))
        return module

    yield run
    if (state := api.current_state()) is not None:
        state.close()


@pytest.fixture
def role(migrated_url: str) -> Iterator[Callable[[str], str]]:
    """Creates a login role; returns the URL of this test's database for that role."""
    made: list[str] = []

    def make(name: str) -> str:
        with psycopg.connect(migrated_url) as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        made.append(name)
        return re.sub(r"//[^@]+@", f"//{name}:secret@", migrated_url)

    yield make
    with psycopg.connect(migrated_url) as connection:
        for name in made:
            connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")

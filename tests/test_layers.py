"""Imports point down only, and nobody loads what they do not use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "maintenance"

HEAVY = frozenset({"psycopg", "sqlite3", "asyncio", "anyio", "click", "rich", "django", "flask", "opentelemetry"})

_LOADED = """
import sys
before = set(sys.modules)
{}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""


def loaded(statement: str) -> set[str]:
    """The top-level modules that a statement loads in a fresh interpreter."""
    # -I: no PYTHONPATH and no folder of ours; -S would hide the installation itself.
    command = [sys.executable, "-I", "-c", _LOADED.format(statement)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import maintenance",
        "import maintenance.wsgi",
        "import maintenance.stores",
        "from maintenance import MaintenanceState, init_maintenance, set_maintenance, aset_maintenance",
        "from maintenance.stores import MemoryStore, PostgresStore, SQLiteStore",
        "from maintenance import MaintenanceState; MaintenanceState('memory://').prime()",
    ],
)
def test_nothing_heavy_is_loaded_by(statement: str) -> None:
    assert loaded(statement) & HEAVY == set()


@pytest.mark.parametrize(
    ("statement", "driver"),
    [
        ("from maintenance.stores import PostgresStore; PostgresStore('postgresql://localhost/x')", "psycopg"),
        ("from maintenance.stores import SQLiteStore; SQLiteStore('sqlite:///x.db')", "sqlite3"),
    ],
)
def test_building_a_store_loads_its_driver_and_no_other(statement: str, driver: str) -> None:
    assert loaded(statement) & {"psycopg", "sqlite3"} == {driver}


def test_the_asgi_adapter_loads_no_driver() -> None:
    assert loaded("import maintenance.asgi") & {"psycopg", "sqlite3", "click", "rich"} == set()


def test_imports_point_down_only() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_an_import_that_points_up_is_found(tmp_path: Path) -> None:
    """The rule itself is tested: a store that imports the state, in a copy, is found."""
    copy = tmp_path / "src" / "maintenance"
    for path in SOURCE.rglob("*.py"):
        target = copy / path.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (copy / "stores" / "memory.py").write_text("def late():\n    import maintenance.process.state\n", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'src')!r}); "
        "from importlinter.cli import lint_imports_command as run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, "--no-cache"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "maintenance.stores.memory -> maintenance.process.state" in done.stdout


def test_the_library_does_not_assert() -> None:
    """An assert vanishes under ``python -O``, and says nothing of what to write instead."""
    for path in SOURCE.rglob("*.py"):
        asserts = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
        assert asserts == [], f"{path.name}, lines {asserts}"

"""What users install: the wheel, built from the sdist, in an environment that knows nothing of the checkout."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_FLIP = """
import sys
from maintenance import MaintenanceState
state = MaintenanceState(sys.argv[1])
assert not state.prime().enabled
assert state.set(True, message="installed").enabled
assert state.enabled
state.close()
again = MaintenanceState(sys.argv[1])
assert again.prime().message == "installed"
again.close()
from importlib.resources import files
from maintenance.stores.migrations import migrations
print(*(name for name, _ in migrations()))
print(files("maintenance"))
"""


def run(*command: str | os.PathLike[str], cwd: Path) -> str:
    # Not this environment's: what is imported must be what was installed.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [found] = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of an environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[standard]", cwd=folder)
    return programs


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        f"maintenance/{path.relative_to(ROOT / 'src' / 'maintenance').as_posix()}"
        for path in (ROOT / "src" / "maintenance").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    sql = {f"maintenance/sql/{path.name}" for path in (ROOT / "sql").glob("*.sql")}
    assert {name for name in names if ".dist-info/" not in name} == sources | sql
    page = {f"maintenance/http/refusal/{name}" for name in ("page.html", "texts.json")}
    assert {"maintenance/py.typed", "maintenance/sql/0001_platform_settings.sql"} | page <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "conftest.py"} <= names
    assert {"sql/0001_platform_settings.sql", "tests/acceptance/test_wheel.py", "src/maintenance/py.typed"} <= names
    assert {"SECURITY.md", ".pre-commit-config.yaml", ".github/workflows/ci.yml", "tests/typing/public_api.py"} <= names


def test_pypi_accepts_both_and_can_show_the_readme(built: Path) -> None:
    run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *built.iterdir(), cwd=built)


def test_it_runs_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    printed = run(installed / "python", "-c", _FLIP, f"sqlite:///{tmp_path / 'flag.db'}", cwd=tmp_path)
    migrations, where = printed.splitlines()
    assert migrations.split() == sorted(path.name for path in (ROOT / "sql").glob("*.sql"))
    assert Path(where).is_relative_to(installed.parent)


def test_its_command_line_runs(installed: Path, tmp_path: Path) -> None:
    for command in ([installed / "maintenance"], [installed / "python", "-m", "maintenance"]):
        assert "migrate" in run(*command, "--help", cwd=tmp_path)
        printed = run(*command, "sql", cwd=tmp_path)
        for path in (ROOT / "sql").glob("*.sql"):
            assert path.read_text(encoding="utf-8").strip() in printed


def test_its_demo_needs_no_checkout(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_ONCE", "1")
    assert "503" in run(installed / "maintenance", "demo", cwd=tmp_path)


def test_without_the_extra_the_core_and_sqlite_need_no_libpq(wheel: Path, tmp_path: Path) -> None:
    """psycopg without its binary may find no libpq; that concerns who asks for PostgreSQL, and nobody else."""
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    run(python, "-c", _FLIP, f"sqlite:///{tmp_path / 'flag.db'}", cwd=tmp_path)
    run(python, "-m", "maintenance", "--help", cwd=tmp_path)
    (empty := tmp_path / "empty").mkdir()
    printed = run("env", "DEMO_ONCE=1", f"TMPDIR={empty}", python.with_name("maintenance"), "demo", cwd=empty)
    assert printed.endswith("Every step worked.\n")
    assert list(empty.iterdir()) == []

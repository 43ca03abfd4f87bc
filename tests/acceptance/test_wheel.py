"""What users install: the wheel, built from the sdist, in an environment that knows nothing of the checkout."""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.docs.tutorial import TUTORIAL, follow_tutorial

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT / "src").as_posix()
    for path in (ROOT / "src" / "maintenance").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
MIGRATIONS = sorted(path.name for path in (ROOT / "sql").glob("*.sql"))

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
    # Without this environment's variables, so that Python imports what was installed.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def find_python(version: str) -> str | None:
    """Return an interpreter of a version: on the path, or one that pyenv keeps."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    found = [path for path in (shutil.which(f"python{version}"), *sorted(map(os.fspath, kept))) if path]
    return next((path for path in found if _is_version(path, version)), None)


def _is_version(path: str, version: str) -> bool:
    """Return whether it is what its name says: a shim of pyenv may run nothing."""
    code = "import ensurepip, sys; print(*sys.version_info[:2], sep='.')"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() == version


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [found] = built.glob("*.whl")
    return found


def test_the_wheel_from_the_sdist_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == SOURCES | {
        f"maintenance/sql/{name}" for name in MIGRATIONS
    }
    page = {f"maintenance/http/refusal/{name}" for name in ("page.html", "page.js", "texts.json")}
    assert {"maintenance/py.typed", "maintenance/sql/0001_platform_settings.sql"} | page <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "conftest.py"} <= names
    assert {f"src/{name}" for name in SOURCES} | {f"sql/{name}" for name in MIGRATIONS} <= names
    assert {"SECURITY.md", ".pre-commit-config.yaml", ".github/workflows/ci.yml", "tests/typing/public_api.py"} <= names
    assert {"tests/acceptance/test_wheel.py", "docs/README.md"} <= names


def test_pypi_accepts_both_and_can_show_the_readme(built: Path) -> None:
    run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *built.iterdir(), cwd=built)


def test_it_runs_where_it_is_installed_without_the_extra_and_with_it(wheel: Path, tmp_path: Path) -> None:
    """Without the extra there may be no libpq. Only users of PostgreSQL need it."""
    programs = tmp_path / "installed" / "bin"
    venv.create(programs.parent)
    python = programs / "python"

    def install(what: str) -> None:
        # One pip for both environments: to give an environment its own takes longer than to install all of this.
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile")
        run(*pip, what, cwd=tmp_path)

    def flip(name: str) -> None:
        printed = run(python, "-c", _FLIP, f"sqlite:///{tmp_path / name}", cwd=tmp_path)
        migrations, where = printed.splitlines()
        assert migrations.split() == MIGRATIONS
        assert Path(where).is_relative_to(programs.parent)

    def demo(folder: Path) -> None:
        """Run the demo, which needs no checkout and leaves nothing behind."""
        folder.mkdir()
        printed = run("env", "DEMO_ONCE=1", f"TMPDIR={folder}", programs / "maintenance", "demo", cwd=folder)
        assert "503" in printed
        assert printed.endswith("Every step worked.\n")
        assert list(folder.iterdir()) == []

    install(os.fspath(wheel))
    flip("bare.db")
    run(python, "-m", "maintenance", "--help", cwd=tmp_path)
    demo(tmp_path / "bare")
    install(f"{wheel}[standard]")
    run(python, "-c", "import psycopg, rich", cwd=tmp_path)
    flip("standard.db")
    demo(tmp_path / "standard")
    for command in ([programs / "maintenance"], [python, "-m", "maintenance"]):
        assert "migrate" in run(*command, "--help", cwd=tmp_path)
    printed = run(programs / "maintenance", "sql", cwd=tmp_path)
    for path in (ROOT / "sql").glob("*.sql"):
        assert path.read_text(encoding="utf-8").strip() in printed


@pytest.mark.parametrize("version", VERSIONS)
def test_the_tutorial_works_with_what_is_installed(wheel: Path, tmp_path: Path, version: str) -> None:
    interpreter = find_python(version)
    if interpreter is None:
        pytest.skip(f"there is no Python {version}: install it, or have pyenv install it")
    [line] = [line for block in blocks(TUTORIAL, "sh") for line in block.splitlines() if line.startswith("pip install")]
    _, _, *wanted = shlex.split(line)
    named = [f"{wheel}[standard]" if name == "maintenance[standard]" else name for name in wanted]
    assert named != wanted
    run(interpreter, "-m", "venv", "--without-pip", tmp_path / ".venv", cwd=tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", *named, cwd=tmp_path)
    follow_tutorial(tmp_path, os.fspath(python))

"""The site is built without a warning, is complete, and asks no other host for anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import maintenance
from maintenance import stores, testing
from tests.docs.pages import NAMES, ROOT

NAMES_OF = {
    "maintenance": maintenance.__all__,
    "maintenance.stores": stores.__all__,
    "maintenance.testing": testing.__all__,
    "maintenance.asgi": ["MaintenanceMiddleware"],
    "maintenance.wsgi": ["MaintenanceMiddleware"],
    "maintenance.bypass": ["addresses", "header_token"],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", ROOT / "docs", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_every_page_is_on_the_site_and_in_its_menu(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    pages = {name.removeprefix("docs/").removesuffix(".md") for name in NAMES if name.startswith("docs/")} - {"README"}
    for page in pages | {"reference/api"}:
        assert (site / f"{page}.html").is_file()
        assert re.search(rf'class="toctree-l1"><a class="reference internal" href="{page}.html"', index), page


@pytest.mark.parametrize(("module", "names"), NAMES_OF.items())
def test_every_public_name_has_its_docstring_on_the_site(module: str, names: list[str], site: Path) -> None:
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for name in names:
        assert f'id="{module}.{name}"' in page, f"docs/reference/api.rst leaves out {module}.{name}"


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    loads = re.compile(r"""<(?:link|script|img)\b[^>]*\b(?:href|src)=["'](?:https?:)?//|url\(["']?(?:https?:)?//""")
    read = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert read
    assert [path for path in read if loads.search(path.read_text(encoding="utf-8"))] == []


def test_the_site_has_a_search_and_a_dark_mode(site: Path) -> None:
    assert "drain" in (site / "searchindex.js").read_text(encoding="utf-8")
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'action="search.html"' in index
    assert "theme-toggle" in index

"""Links, in the pages and in the package's metadata, lead to files, headings and tests that exist."""

import ast
import re
import tomllib

import pytest

from tests.docs.pages import NAMES, ROOT, prose, text

HOME = "https://github.com/maintenance-py/maintenance"
"""The one base of every absolute link to this project. PyPI shows the README, so its links have to be absolute."""

DOCS = [name for name in NAMES if name.startswith("docs/")]


def links(name: str) -> list[str]:
    """The targets of the inline links and of the definitions at the end of a page."""
    inline = re.findall(r"\]\(([^)\s]+)\)", prose(name))
    return inline + re.findall(r"^\[[\w-]+\]: (\S+)$", prose(name), re.MULTILINE)


def check(link: str, *, on: str) -> None:
    """Follow one link; links to other sites are not checked."""
    path, _, anchor = link.partition("#")
    if path.startswith(HOME):
        found = re.fullmatch(rf"{HOME}(?:/(?:blob|raw)/main/(.+)|/issues|/security/advisories/new)?", path)
        assert found, f"{on} links to {link}: use {HOME}/blob/main/... or {HOME}/raw/main/..."
        target = ROOT / (found[1] or "README.md")
    elif path.startswith(("http:", "https:")):
        return
    else:
        target = ROOT / on
        target = target.parent / path if path else target
    assert target.is_file(), f"{on} links to {link}"
    if anchor:
        assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), f"{on} links to {link}"


def anchors(name: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for link in links(name):
        check(link, on=name)


def test_every_link_of_the_readme_works_on_pypi() -> None:
    assert [link for link in links("README.md") if not link.startswith("https://")] == []
    used = set(re.findall(r"\]\[([\w-]+)\]", prose("README.md")))
    assert used == set(re.findall(r"^\[([\w-]+)\]: ", prose("README.md"), re.MULTILINE)) != set()


def test_the_urls_of_the_package_lead_somewhere() -> None:
    urls = tomllib.loads(text("pyproject.toml"))["project"]["urls"]
    assert urls.keys() >= {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    for url in urls.values():
        assert url.startswith(HOME)
        check(url, on="pyproject.toml")


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in links("docs/README.md")}
    assert listed == {ROOT / name for name in DOCS} - {ROOT / "docs" / "README.md"}


@pytest.mark.parametrize("name", sorted({"README.md", "CONTRIBUTING.md", *DOCS} - {"docs/glossary.md"}))
def test_every_page_links_to_the_glossary(name: str) -> None:
    assert any(link.endswith("glossary.md") for link in links(name))


def test_each_guarantee_is_proven_by_tests_that_exist() -> None:
    page = text("docs/explanation/guarantees.md")
    guaranteed = re.findall(r"^\| (.+) \| yes \|$", page, re.MULTILINE)
    proofs = re.findall(r"^tests/.+$", page, re.MULTILINE)
    assert len(guaranteed) == len(proofs) > 0
    for line in proofs:
        for proof in line.split():
            path, _, test = proof.partition("::")
            assert test in functions(path), f"the page of guarantees names {proof}"


def test_each_row_about_a_role_is_proven_by_tests_that_exist() -> None:
    page = text("docs/explanation/security.md")
    roles = re.findall(r"^\| (.+ role .+|a role .+|the owner .+) \|.*\|.*\|$", page, re.MULTILINE)
    proofs = re.findall(r"^tests/.+$", page, re.MULTILINE)
    assert len(roles) == len(proofs) > 0
    for proof in " ".join(proofs).split():
        path, _, test = proof.partition("::")
        assert test in functions(path), f"the page of security names {proof}"


def test_each_threat_is_met_by_tests_that_exist() -> None:
    page = text("SECURITY.md")
    threats = re.findall(r"^\| ([A-Z].+) \| ([A-Z].+) \|$", page.partition("## Threat model")[2], re.MULTILINE)
    proofs = re.findall(r"^(?:tests/.+|-)$", page, re.MULTILINE)
    assert len(threats) == len(proofs) > 0
    for (_, protection), line in zip(threats, proofs, strict=True):
        assert line != "-" or protection.startswith("Not covered")
        for proof in () if line == "-" else line.split():
            path, _, test = proof.partition("::")
            assert test in functions(path), f"the security policy names {proof}"


def functions(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(text(path))) if isinstance(node, ast.FunctionDef)}

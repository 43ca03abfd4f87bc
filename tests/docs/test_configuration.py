"""The configuration that the pages show: YAML that means what it looks like, units for systemd, and a playbook."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from maintenance.cli import options
from maintenance.stores import open_store
from tests.docs.pages import NAMES, blocks
from tests.support.command import fleet_of

SYSTEMD = "docs/how-to/systemd.md"


def commands(document: object) -> Iterator[list[str]]:
    """The command lines of a manifest that run this library."""
    if isinstance(document, list) and document[:1] == ["maintenance"]:
        yield document
    elif isinstance(document, dict | list):
        for it in document.values() if isinstance(document, dict) else document:
            yield from commands(it)


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(name, "yaml")])
def test_yaml_is_read_as_it_is_meant(name: str) -> None:
    for block in blocks(name, "yaml"):
        for document in yaml.safe_load_all(block):
            assert isinstance(document, dict | list)
            for command in commands(document):
                options.parse_arguments(command[1:])


def units() -> dict[str, str]:
    """Each file that the page shows, by the name in its first line."""
    shown = [block.partition("\n") for block in blocks(SYSTEMD, "ini")]
    return {first.rpartition("/")[2]: rest for first, _, rest in shown if "/systemd/" in first}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_each_unit(tmp_path: Path) -> None:
    for name, unit in units().items():
        for program in re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE):
            path = Path(program.replace("/srv", str(tmp_path)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o755)
        (tmp_path / name).write_text(unit.replace("/srv", str(tmp_path)))
    names = [tmp_path / name for name in units()]
    assert len(names) == 5
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, timeout=60, check=False
    )
    # It may also complain about units of this machine.
    assert (done.returncode, [line for line in done.stderr.splitlines() if "shop" in line]) == (0, [])


@pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="Ansible is not installed")
@pytest.mark.parametrize(
    ("processes", "migration", "step", "enabled"),
    [
        (2, "true", "", False),
        (2, "false", "Migrate the database", True),
        (1, "true", "Close the site, and wait until every process has stopped", False),
    ],
    ids=["all is well", "the migration fails", "the wait is not proven"],
)
def test_the_playbook_opens_the_site_unless_it_has_migrated(
    processes: int, migration: str, step: str, *, enabled: bool, tmp_path: Path
) -> None:
    [playbook] = blocks("docs/how-to/ansible.md", "yaml")
    smaller = {"--expect 12": "--expect 2", "--for 30m": "--timeout 1", "/srv/shop": str(tmp_path)}
    for old, new in smaller.items():
        assert old in playbook
        playbook = playbook.replace(old, new)
    (tmp_path / "upgrade.yml").write_text(playbook)
    (tmp_path / "migrate-the-database").write_text(f"#!/bin/sh\n{migration}\n")
    (tmp_path / "migrate-the-database").chmod(0o755)
    (tmp_path / "hosts").write_text(
        f"[web]\nweb-1 ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    )
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    open_store(url).migrate()
    with fleet_of(url, processes) as [state, *_]:
        done = subprocess.run(
            ["ansible-playbook", "--inventory=hosts", f"--extra-vars=shop_database_url={url}", "upgrade.yml"],
            cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False,
            env={**os.environ, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        )  # fmt: skip
        assert (done.returncode == 0) is (step == ""), done.stdout
        assert f"This step failed: {step}" in done.stdout or step == "", done.stdout
        assert state.refresh().enabled is enabled

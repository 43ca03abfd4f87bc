"""The tour of the command line shows what the commands really print."""

import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

from maintenance.stores import open_store
from tests.docs.pages import blocks
from tests.support.command import fleet_of

# In this order: what differs from one run to the next, and what stands for it.
_VARYING = (
    (r"sqlite:///\S*shop\.db", "STORE"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+", "TIME"),
    (r"\b\d+(\.\d+)? (s|min|h|d)\b", "SPAN"),
    (r"\S+ pid \d+ \(\S+, id \w{8}\)", "PROCESS"),
    (r"^[0-9a-f]{8} .*", "A PROCESS"),
    (r"\b\w+@[\w.-]+", "WHO"),
    (r" +", " "),
)


def normalize(output: str) -> list[str]:
    """The lines without what varies. A process that has not replied yet may or may not be shown first."""
    lines: list[str] = []
    for line in output.splitlines():
        for pattern, name in _VARYING:
            line = re.sub(pattern, name, line)  # noqa: PLW2901
        if "waiting PROCESS" not in line and lines[-1:] != [line]:
            lines.append(line)
    return lines


def test_the_tour_of_the_command_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    open_store(url).migrate()
    env = {**os.environ, "MAINTENANCE_DATABASE_URL": "sqlite:///shop.db", "TZ": "UTC", "COLUMNS": "200"}
    scripts = sysconfig.get_path("scripts")
    shown = "".join(blocks("docs/tutorial/command-line.md", "console"))
    with fleet_of(url, 2):
        for command, output in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", shown, re.MULTILINE):
            words = [f"{scripts}/maintenance", *shlex.split(command)[1:]]
            done = subprocess.run(
                words, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
            assert normalize(done.stdout) == normalize(output), command

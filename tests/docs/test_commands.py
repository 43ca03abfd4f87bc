"""The commands that the pages show are accepted, and print what the pages show."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from maintenance.cli import options
from tests.docs.pages import NAMES, blocks, sample, text
from tests.support.servers import gunicorn
from tests.support.waiting import eventually

TUTORIAL = "docs/tutorial/first-flip.md"


def shown() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        for block in blocks(name, "sh") + blocks(name, "yaml"):
            for line in block.splitlines():
                for found in re.findall(r"(?<![\w'./\[])maintenance (?:on|off|[a-z]+).*", line):
                    yield name, re.split(r" [|>&]| #|;", found)[0]


def test_every_command_shown_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for name, line in shown():
        try:
            args = options.parse_arguments(shlex.split(line)[1:])
            seen.add(args.command)
        except SystemExit:
            pytest.fail(f"{name} shows {line!r}: {capsys.readouterr().err}")
    assert seen >= {"on", "off", "status", "watch", "fleet", "forget", "migrate", "sql"}


def timeless(output: str) -> str:
    """The output without the times that a wait took."""
    return re.sub(r"\bafter [\d.]+ s\b", "after N s", output)


def outputs(name: str) -> list[str]:
    """The one-line samples of output on a page."""
    return [block.strip() for block in blocks(name, "text") if block.count("\n") == 1]


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(sample(TUTORIAL, "def home"))
    [url] = set(re.findall(r"MAINTENANCE_DATABASE_URL=(sqlite\S+)", text(TUTORIAL)))
    monkeypatch.setenv("MAINTENANCE_DATABASE_URL", url)

    def run(line: str, *more: str, ends: int = 0) -> str:
        assert line in "\n".join(blocks(TUTORIAL, "sh"))
        command = [sys.executable, "-m", *shlex.split(line), *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == ends, done
        return done.stdout + done.stderr

    run("maintenance migrate")
    environment = {"MAINTENANCE_DATABASE_URL": url}
    with gunicorn("shop:app", env=environment, options=[f"--chdir={tmp_path}"]) as running:

        def status(path: str = "/") -> int:
            return httpx.get(f"{running.url}{path}").status_code

        def both_have_served() -> bool:
            assert status() == 200
            return len(json.loads(run("maintenance fleet", "--json"))["instances"]) == 2

        eventually(both_have_served, 20.0)
        run("maintenance on --message 'Back at noon.'")
        eventually(lambda: {status() for _ in range(10)} == {503})
        assert status("/health") == 200
        run("maintenance off")

        proven, not_proven = outputs(TUTORIAL)
        assert outputs("README.md") == [proven]
        assert timeless(proven) in timeless(run("maintenance on --wait --drain"))
        assert {status() for _ in range(10)} == {503}
        run("maintenance off --wait")
        assert {status() for _ in range(10)} == {200}

        frozen = json.loads(run("maintenance fleet", "--json"))["instances"][0]["pid"]
        os.kill(frozen, signal.SIGSTOP)
        try:
            assert timeless(not_proven) in timeless(run("maintenance on --wait --timeout 2", ends=4))
        finally:
            os.kill(frozen, signal.SIGCONT)

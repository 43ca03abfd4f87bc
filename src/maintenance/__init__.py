"""A maintenance mode that a whole fleet follows, for WSGI and ASGI apps, with its flag in PostgreSQL."""

from maintenance._version import __version__
from maintenance.default import aset_maintenance, fleet, init_maintenance, maintenance_enabled, set_maintenance
from maintenance.errors import ConfigurationError, MaintenanceError, StoreError
from maintenance.health import Status
from maintenance.model import Fleet, Instance, Request, Snapshot
from maintenance.proof import Proof
from maintenance.response import Response
from maintenance.state import MaintenanceState

__all__ = [
    "ConfigurationError",
    "Fleet",
    "Instance",
    "MaintenanceError",
    "MaintenanceState",
    "Proof",
    "Request",
    "Response",
    "Snapshot",
    "Status",
    "StoreError",
    "__version__",
    "aset_maintenance",
    "fleet",
    "init_maintenance",
    "maintenance_enabled",
    "set_maintenance",
]

"""A maintenance mode that a whole fleet follows, for WSGI and ASGI apps, with its flag in PostgreSQL."""

from maintenance._version import __version__
from maintenance.base.history import Entry
from maintenance.base.instances import Fleet, Instance
from maintenance.base.values import Snapshot
from maintenance.errors import ConfigurationError, ConflictError, MaintenanceActive, MaintenanceError, StoreError
from maintenance.http.refusal import Page, Response
from maintenance.http.request import Request
from maintenance.process.api import (
    aset_maintenance,
    aupdate_maintenance,
    fleet,
    init_maintenance,
    maintenance_enabled,
    set_maintenance,
    update_maintenance,
)
from maintenance.process.jobs import job
from maintenance.process.state import MaintenanceState
from maintenance.process.status import Status
from maintenance.proof.judge import Proof

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "Entry",
    "Fleet",
    "Instance",
    "MaintenanceActive",
    "MaintenanceError",
    "MaintenanceState",
    "Page",
    "Proof",
    "Request",
    "Response",
    "Snapshot",
    "Status",
    "StoreError",
    "__version__",
    "aset_maintenance",
    "aupdate_maintenance",
    "fleet",
    "init_maintenance",
    "job",
    "maintenance_enabled",
    "set_maintenance",
    "update_maintenance",
]

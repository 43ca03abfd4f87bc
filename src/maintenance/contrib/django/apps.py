"""What happens when Django starts: nothing is connected, and no driver is loaded."""

from django.apps import AppConfig
from django.core.checks import Tags, register

from maintenance.contrib.django import checks
from maintenance.contrib.django.database import build_state
from maintenance.http.lifespan import stand_in
from maintenance.process.api import provide_default


class MaintenanceConfig(AppConfig):
    """Has the default state use a database of `settings.DATABASES`, once it is needed."""

    name = "maintenance.contrib.django"
    label = "maintenance"
    verbose_name = "Maintenance"

    def ready(self) -> None:
        """Register what this app adds."""
        provide_default(build_state)
        # Django raises on the lifespan. Without it, a process under uvicorn would never leave the fleet.
        stand_in()
        register(checks.check_settings)
        register(checks.check_middleware)
        register(checks.check_applications)
        register(checks.check_tables, Tags.database)

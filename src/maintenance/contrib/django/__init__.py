"""The Django app: add ``"maintenance.contrib.django"`` to `INSTALLED_APPS`."""

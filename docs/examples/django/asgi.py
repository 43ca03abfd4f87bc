"""The application for servers of ASGI."""

import os

from django.core.asgi import get_asgi_application

from maintenance.asgi import MaintenanceMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = MaintenanceMiddleware(get_asgi_application(), exempt=["/static"])

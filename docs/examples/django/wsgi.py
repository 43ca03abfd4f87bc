"""The application for servers of WSGI."""

import os

from django.core.wsgi import get_wsgi_application

from maintenance.wsgi import MaintenanceMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = MaintenanceMiddleware(get_wsgi_application(), exempt=["/static"])

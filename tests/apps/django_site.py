"""The `wsgi.py` and `asgi.py` of that project."""

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

from maintenance import asgi as over_asgi
from maintenance import wsgi as over_wsgi

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.apps.django_site_settings")
wsgi = over_wsgi.MaintenanceMiddleware(get_wsgi_application())
asgi = over_asgi.MaintenanceMiddleware(get_asgi_application())

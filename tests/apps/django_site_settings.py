"""A Django project with the app installed. Its database comes from the environment."""

import json
import os

SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.apps.django_urls"
USE_TZ = True
INSTALLED_APPS = ["maintenance.contrib.django"]
DATABASES = json.loads(os.environ["DJANGO_DATABASES"])
WSGI_APPLICATION = "tests.apps.django_site.wsgi"
ASGI_APPLICATION = "tests.apps.django_site.asgi"

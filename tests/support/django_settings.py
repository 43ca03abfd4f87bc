"""The smallest Django project, for the samples."""

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.support.django_settings"
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]  # as in a new project
urlpatterns: list[object] = []

"""The system checks find what would otherwise show only once maintenance is on."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.checks import run_checks
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.stores import open_store
from maintenance.wsgi import MaintenanceMiddleware
from tests.contrib.conftest import Project, describe

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "x.db"}


def found(**options: Any) -> dict[str, str]:
    """What the checks find, without Django's own."""
    messages = run_checks(include_deployment_checks=False, **options)
    return {it.id: f"{it.msg} {it.hint}" for it in messages if it.id and it.id.startswith("maintenance.")}


@pytest.fixture
def check(project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Checks a project by the object that WSGI_APPLICATION or ASGI_APPLICATION names."""
    project({"default": SQLITE}, WSGI_APPLICATION=None)

    def check(application: Any, setting: str = "WSGI_APPLICATION", **settings: Any) -> dict[str, str]:
        module = types.ModuleType("site_under_check")
        module.application = application  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "site_under_check", module)
        project(**{setting: "site_under_check.application"}, **settings)
        return found()

    return check


def test_a_wrapped_application_is_fine(check: Any) -> None:
    assert check(MaintenanceMiddleware(get_wsgi_application())) == {}
    assert check(ASGIMiddleware(get_asgi_application()), "ASGI_APPLICATION") == {}


def test_one_that_is_not_wrapped_is_found(check: Any) -> None:
    wsgi = check(get_wsgi_application())
    assert list(wsgi) == ["maintenance.W003"]
    assert "WSGI_APPLICATION (site_under_check.application) is not wrapped" in wsgi["maintenance.W003"]
    assert (
        "application = MaintenanceMiddleware(get_wsgi_application()), from maintenance.wsgi" in wsgi["maintenance.W003"]
    )
    asgi = check(get_asgi_application(), "ASGI_APPLICATION", WSGI_APPLICATION=None)
    assert "get_asgi_application()" in asgi["maintenance.W003"]


class Outer:
    """A middleware of another package."""

    def __init__(self, application: Any) -> None:
        self.applications = {"http": application}
        self.parent = self

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.applications["http"](environ, start_response)


def test_another_middleware_outside_is_found(check: Any) -> None:
    inner = MaintenanceMiddleware(get_wsgi_application())

    def outer(environ: Any, start_response: Any) -> Any:
        return inner(environ, start_response)

    for application, name in ((Outer(inner), "Outer"), (outer, "function"), (Outer(outer), "Outer")):
        [(id_, message)] = check(application).items()
        assert id_ == "maintenance.W004"
        assert f"{name} is outside of MaintenanceMiddleware" in message
    assert check(MaintenanceMiddleware(Outer(get_wsgi_application()))) == {}


def test_an_empty_variable_of_a_closure_is_no_error(check: Any) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        return later(environ, start_response)

    assert list(check(application)) == ["maintenance.W003"]
    later = application


def test_a_search_ends(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maintenance.contrib.django.checks._MAX_LOOKED_AT", 2)
    assert list(check(Outer(Outer(MaintenanceMiddleware(get_wsgi_application()))))) == ["maintenance.W003"]


def test_one_that_cannot_be_imported_is_not_taken_for_right(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`manage.py migrate` runs the checks too, in a container that may lack what the server has."""
    (tmp_path / "needy.py").write_text("import os\nos.environ['ONLY_IN_PRODUCTION']\n")
    monkeypatch.syspath_prepend(tmp_path)
    for named, error in (("no.such.wsgi", "No module"), ("needy.application", "KeyError: 'ONLY_IN_PRODUCTION'")):
        project({"default": SQLITE}, WSGI_APPLICATION=named)
        message = found()["maintenance.W002"]
        assert "cannot be imported" in message
        assert error in message


def test_the_class_among_django_s_own_middlewares_is_found(project: Project) -> None:
    project({"default": SQLITE}, WSGI_APPLICATION=None, MIDDLEWARE=["maintenance.wsgi.MaintenanceMiddleware"])
    assert "Remove it from MIDDLEWARE" in found()["maintenance.E002"]


def test_a_wrong_setting_is_found(project: Project) -> None:
    project({"default": SQLITE}, WSGI_APPLICATION=None, MAINTENANCE={"DATABASE": "shop"})
    assert "use an alias of DATABASES" in found(databases=["default"])["maintenance.E001"]
    project(MAINTENANCE={})
    project({})
    assert list(found(databases=["default"])) == ["maintenance.E001"]  # once, and not as a missing table too
    project({"default": SQLITE}, MAINTENANCE={"ttl": -1})
    assert "ttl" in found()["maintenance.E001"]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_missing_tables_are_found(kind: str, request: pytest.FixtureRequest, project: Project) -> None:
    url = request.getfixturevalue({"postgresql": "database_url", "sqlite": "sqlite_url"}[kind])
    project({"default": describe(url), "shop": SQLITE}, WSGI_APPLICATION=None)
    assert found() == found(databases=["shop"]) == {}
    assert "Run `manage.py maintenance migrate`" in found(databases=["default"])["maintenance.W001"]
    open_store(url).migrate()
    assert found(databases=["default"]) == {}
    assert MaintenanceState(url, register=False).fleet().instances == ()


ADMIN = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages"]
LOGIN = "/accounts/login"


@pytest.fixture
def check_admin(check: Any, project: Project) -> Any:
    """Checks a project with an admin and a login, by what is exempt."""
    project({"default": SQLITE}, INSTALLED_APPS=ADMIN, STATIC_URL="static/")
    from django.contrib import admin

    def check_exempt(*exempt: str, default_exempt: bool = True, **settings: Any) -> set[str]:
        urls = types.ModuleType("urls")
        urls.urlpatterns = [  # type: ignore[attr-defined]
            path("admin/", admin.site.urls),
            path("accounts/login/", lambda _: HttpResponse(), name="login"),
        ]
        options: Any = {"exempt": exempt, "default_exempt": default_exempt}
        application = MaintenanceMiddleware(get_wsgi_application(), **options)
        return set(check(application, ROOT_URLCONF=urls, **settings))

    return check_exempt


STATIC_ID, LOGIN_ID = "maintenance.W005", "maintenance.W006"


def test_an_admin_without_its_styles_or_its_login_is_found(check_admin: Any) -> None:
    assert check_admin() == {STATIC_ID, LOGIN_ID}
    assert check_admin("/static", f"GET {LOGIN}") == {LOGIN_ID}  # a login is sent by POST
    assert check_admin(LOGIN) == {STATIC_ID}
    assert check_admin("/static", LOGIN) == set()


def test_an_admin_that_is_closed_needs_neither(check_admin: Any) -> None:
    assert check_admin(default_exempt=False) == set()


def test_what_this_site_does_not_serve_is_not_missed(check_admin: Any) -> None:
    elsewhere = {"STATIC_URL": "https://cdn.example/static/", "LOGIN_URL": "https://login.example/"}
    assert check_admin(**elsewhere) == set()
    assert check_admin(STATIC_URL=None, LOGIN_URL="no-such-name") == set()
    assert check_admin("/static", LOGIN_URL="/nowhere/") == set()
    assert check_admin("/static", LOGIN_URL="login") == {LOGIN_ID}

"""A shop in Pyramid. Staff switch maintenance on and off at /admin/maintenance."""

import datetime as dt
import os
import secrets

from pyramid.authentication import extract_http_basic_credentials
from pyramid.config import Configurator
from pyramid.csrf import CookieCSRFStoragePolicy, get_csrf_token
from pyramid.httpexceptions import HTTPSeeOther, HTTPUnauthorized
from pyramid.response import Response
from pyramid.view import forbidden_view_config, view_config

from maintenance import maintenance_enabled, set_maintenance
from maintenance.wsgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"].encode()

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {state}.</p>
<form method="post"><input type="hidden" name="csrf_token" value="{token}">
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""


class BasicLogin:
    def identity(self, request):
        given = extract_http_basic_credentials(request)
        known = given and PASSWORD and secrets.compare_digest(given.password.encode(), PASSWORD)
        return "admin" if known else None

    authenticated_userid = identity

    def permits(self, request, context, permission):
        return permission == self.identity(request)


@forbidden_view_config()
def ask_for_password(request):
    return HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="admin"'})


@view_config(route_name="maintenance", request_method="GET", permission="admin")
def show(request):
    return Response(FORM.format(state="on" if maintenance_enabled() else "off", token=get_csrf_token(request)))


@view_config(route_name="maintenance", request_method="POST", permission="admin")
def switch(request):
    if request.POST["switch"] == "on":
        minutes = int(request.POST.get("minutes") or 0)
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
        set_maintenance(True, message=request.POST.get("message") or None, until=until, actor="admin")
    else:
        set_maintenance(False, actor="admin")
    return HTTPSeeOther(request.route_path("maintenance"))


@view_config(route_name="orders", request_method="GET")
def orders(request):
    return Response("Your orders")


def main(global_config=None, **settings):
    with Configurator(settings=settings) as config:
        config.set_security_policy(BasicLogin())
        config.set_csrf_storage_policy(CookieCSRFStoragePolicy(secure=True, httponly=True, samesite="Lax"))
        config.set_default_csrf_options(require_csrf=True)
        config.add_route("orders", "/orders")
        config.add_route("maintenance", "/admin/maintenance")
        config.scan(__name__)
        return MaintenanceMiddleware(config.make_wsgi_app())


app = main()

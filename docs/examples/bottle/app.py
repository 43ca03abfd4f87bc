"""A shop in Bottle. Staff switch maintenance on and off at /admin/maintenance."""

import datetime as dt
import os
import secrets

from bottle import Bottle, abort, auth_basic, redirect, request, template

from maintenance import maintenance_enabled, set_maintenance
from maintenance.wsgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"].encode()

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {{"on" if enabled else "off"}}.</p>
<form method="post">
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""

shop = Bottle()


def is_admin(user, password):
    return bool(PASSWORD) and secrets.compare_digest(password.encode(), PASSWORD)


@shop.get("/admin/maintenance")
@auth_basic(is_admin)
def show():
    return template(FORM, enabled=maintenance_enabled())


@shop.post("/admin/maintenance")
@auth_basic(is_admin)
def switch():
    if request.get_header("Sec-Fetch-Site") != "same-origin":
        abort(403, "A form of another site")
    if request.forms.switch == "on":
        minutes = request.forms.get("minutes", type=int)
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
        set_maintenance(True, message=request.forms.message or None, until=until, actor="admin")
    else:
        set_maintenance(False, actor="admin")
    redirect("/admin/maintenance", 303)


@shop.get("/orders")
def orders():
    return "Your orders"


app = MaintenanceMiddleware(shop)

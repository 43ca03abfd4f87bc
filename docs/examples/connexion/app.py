"""A shop in Connexion. Staff switch maintenance on and off at /admin/maintenance."""

import datetime as dt
import os
import secrets
from pathlib import Path

from connexion import AsyncApp
from connexion.lifecycle import ConnexionResponse
from connexion.middleware import MiddlewarePosition

from maintenance import aset_maintenance, maintenance_enabled
from maintenance.asgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"].encode()

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {state}.</p>
<form method="post">
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""


def log_in(username, password):
    known = PASSWORD and secrets.compare_digest(password.encode(), PASSWORD)
    return {"sub": "admin"} if known else None


def show():
    return FORM.format(state="on" if maintenance_enabled() else "off")


async def switch(body):
    if body["switch"] == "on":
        minutes = int(body.get("minutes") or 0)
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
        await aset_maintenance(True, message=body.get("message") or None, until=until, actor="admin")
    else:
        await aset_maintenance(False, actor="admin")
    return ConnexionResponse(status_code=303, headers={"Location": "/admin/maintenance"})


def orders():
    return ["Your orders"]


app = AsyncApp(__name__, specification_dir=Path(__file__).parent)
app.add_api("openapi.yaml")
app.add_middleware(MaintenanceMiddleware, MiddlewarePosition.BEFORE_EXCEPTION)  # the default is after routing

"""A shop in Falcon over ASGI. Staff switch maintenance on and off at /admin/maintenance."""

import base64
import datetime as dt
import os
import secrets

import falcon
import falcon.asgi

from maintenance import aset_maintenance, maintenance_enabled
from maintenance.asgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"]

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {state}.</p>
<form method="post">
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""


async def protect(req, resp, resource, params):
    expected = b"Basic " + base64.b64encode(f"admin:{PASSWORD}".encode())
    if not PASSWORD or not secrets.compare_digest((req.auth or "").encode(), expected):
        raise falcon.HTTPUnauthorized(challenges=["Basic"])
    if req.method == "POST" and req.get_header("Sec-Fetch-Site") != "same-origin":
        raise falcon.HTTPForbidden(title="A form of another site")


@falcon.before(protect)
class Maintenance:
    async def on_get(self, req, resp):
        resp.content_type = falcon.MEDIA_HTML
        resp.text = FORM.format(state="on" if maintenance_enabled() else "off")

    async def on_post(self, req, resp):
        form = await req.get_media()
        if form["switch"] == "on":
            minutes = int(form.get("minutes") or 0)
            until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
            await aset_maintenance(True, message=form.get("message") or None, until=until, actor="admin")
        else:
            await aset_maintenance(False, actor="admin")
        raise falcon.HTTPSeeOther(req.relative_uri)


class Orders:
    async def on_get(self, req, resp):
        resp.media = ["Your orders"]


shop = falcon.asgi.App()
shop.add_route("/orders", Orders())
shop.add_route("/admin/maintenance", Maintenance())
app = MaintenanceMiddleware(shop)

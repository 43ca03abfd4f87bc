"""A shop in Quart. Staff switch maintenance on and off at /admin/maintenance."""

import datetime as dt
import os
import secrets

from quart import Blueprint, Quart, abort, redirect, render_template_string, request, session, url_for

from maintenance import aset_maintenance, maintenance_enabled
from maintenance.asgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"].encode()

LOGIN = """<!doctype html><title>Log in</title>
<form method="post"><input type="password" name="password" required> <button>Log in</button></form>"""

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {{ "on" if enabled else "off" }}.</p>
<form method="post">
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""

admin = Blueprint("admin", __name__, url_prefix="/admin")


@admin.before_request
async def protect():
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") != "same-origin":
        abort(403)  # a form of another site
    if request.endpoint != "admin.login" and "admin" not in session:
        return redirect(url_for("admin.login"))
    return None


@admin.route("/login", methods=["GET", "POST"])
async def login():
    given = (await request.form).get("password", "").encode()
    if PASSWORD and secrets.compare_digest(given, PASSWORD):
        session["admin"] = True
        return redirect(url_for("admin.show"))
    return LOGIN


@admin.get("/maintenance")
async def show():
    return await render_template_string(FORM, enabled=maintenance_enabled())


@admin.post("/maintenance")
async def switch():
    form = await request.form
    if form["switch"] == "on":
        minutes = form.get("minutes", type=int)
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
        await aset_maintenance(True, message=form["message"] or None, until=until, actor="admin")
    else:
        await aset_maintenance(False, actor="admin")
    return redirect(url_for("admin.show"), 303)


app = Quart(__name__)
app.config.update(SECRET_KEY=os.environ["SECRET_KEY"], SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Lax")
app.register_blueprint(admin)


@app.get("/orders")
async def orders():
    return "Your orders"


app.asgi_app = MaintenanceMiddleware(app.asgi_app)

"""A shop in Flask. Staff switch maintenance on and off at /admin/maintenance."""

import datetime as dt
import os
import secrets

from flask import Blueprint, Flask, abort, redirect, render_template_string, request, session, url_for

from maintenance import maintenance_enabled, set_maintenance
from maintenance.contrib.flask import Maintenance

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
def protect():
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") != "same-origin":
        abort(403)  # a form of another site
    if request.endpoint != "admin.login" and "admin" not in session:
        return redirect(url_for("admin.login"))
    return None


@admin.route("/login", methods=["GET", "POST"])
def login():
    given = request.form.get("password", "").encode()
    if PASSWORD and secrets.compare_digest(given, PASSWORD):
        session["admin"] = True
        return redirect(url_for("admin.show"))
    return LOGIN


@admin.get("/maintenance")
def show():
    return render_template_string(FORM, enabled=maintenance_enabled())


@admin.post("/maintenance")
def switch():
    if request.form["switch"] == "on":
        minutes = request.form.get("minutes", type=int)
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
        set_maintenance(True, message=request.form["message"] or None, until=until, actor="admin")
    else:
        set_maintenance(False, actor="admin")
    return redirect(url_for("admin.show"), 303)


app = Flask(__name__)
app.config.update(SECRET_KEY=os.environ["SECRET_KEY"], SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Lax")
app.register_blueprint(admin)


@app.get("/orders")
def orders():
    return "Your orders"


Maintenance(app)  # last, so that it is the outermost

"""A shop in Starlette. Staff switch maintenance on and off at /admin/maintenance."""

import datetime as dt
import os
import secrets

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route

from maintenance import aset_maintenance, maintenance_enabled
from maintenance.asgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"].encode()

LOGIN = """<!doctype html><title>Log in</title>
<form method="post"><input type="password" name="password" required> <button>Log in</button></form>"""

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {state}.</p>
<form method="post">
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""


class SessionLogin(AuthenticationBackend):
    async def authenticate(self, conn):
        return (AuthCredentials(["admin"]), SimpleUser("admin")) if "admin" in conn.session else None


async def read_form(request):
    if request.headers.get("sec-fetch-site") != "same-origin":
        raise HTTPException(403)  # a form of another site
    return await request.form()


async def login(request):
    if request.method == "POST":
        given = (await read_form(request)).get("password", "").encode()
        if PASSWORD and secrets.compare_digest(given, PASSWORD):
            request.session["admin"] = True
            return RedirectResponse(request.url_for("show").path, 303)
    return HTMLResponse(LOGIN)


@requires("admin", redirect="login")
def show(request):
    return HTMLResponse(FORM.format(state="on" if maintenance_enabled() else "off"))


@requires("admin", redirect="login")
async def switch(request):
    form = await read_form(request)
    if form["switch"] == "on":
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=int(form["minutes"])) if form["minutes"] else None
        await aset_maintenance(True, message=form["message"] or None, until=until, actor="admin")
    else:
        await aset_maintenance(False, actor="admin")
    return RedirectResponse(request.url_for("show").path, 303)


def orders(request):
    return PlainTextResponse("Your orders")


app = Starlette(
    routes=[
        Route("/orders", orders),
        Route("/admin/login", login, methods=["GET", "POST"]),
        Route("/admin/maintenance", show),
        Route("/admin/maintenance", switch, methods=["POST"]),
    ],
    middleware=[
        Middleware(MaintenanceMiddleware),  # first, so that it is the outermost
        Middleware(SessionMiddleware, secret_key=os.environ["SECRET_KEY"], https_only=True, max_age=8 * 60 * 60),
        Middleware(AuthenticationMiddleware, backend=SessionLogin()),
    ],
)

"""A shop in Litestar. Staff switch maintenance on and off at /admin/maintenance."""

import base64
import datetime as dt
import os
import secrets
from pathlib import Path
from typing import Annotated

from litestar import Controller, Litestar, get, post
from litestar.config.csrf import CSRFConfig
from litestar.connection import ASGIConnection
from litestar.contrib.jinja import JinjaTemplateEngine
from litestar.enums import RequestEncodingType
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.params import Body
from litestar.response import Redirect, Template
from litestar.template import TemplateConfig

from maintenance import aset_maintenance, maintenance_enabled
from maintenance.asgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"]

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {{ "on" if enabled else "off" }}.</p>
<form method="post">{{ csrf_input | safe }}
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""


def log_in(connection: ASGIConnection, _: BaseRouteHandler) -> None:
    expected = b"Basic " + base64.b64encode(f"admin:{PASSWORD}".encode())
    given = connection.headers.get("authorization", "").encode()
    if not PASSWORD or not secrets.compare_digest(given, expected):
        raise NotAuthorizedException(headers={"WWW-Authenticate": "Basic"})


class Admin(Controller):
    path = "/admin/maintenance"
    guards = [log_in]

    @get(sync_to_thread=True)
    def show(self) -> Template:
        return Template(template_str=FORM, context={"enabled": maintenance_enabled()})

    @post()
    async def switch(
        self, data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]
    ) -> Redirect:
        if data["switch"] == "on":
            minutes = int(data.get("minutes") or 0)
            until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
            await aset_maintenance(True, message=data.get("message") or None, until=until, actor="admin")
        else:
            await aset_maintenance(False, actor="admin")
        return Redirect("/admin/maintenance", status_code=303)


@get("/orders")
async def orders() -> list[str]:
    return ["Your orders"]


shop = Litestar(
    [Admin, orders],
    csrf_config=CSRFConfig(os.environ["SECRET_KEY"], cookie_secure=True, cookie_httponly=True),
    template_config=TemplateConfig(directory=Path(__file__).parent, engine=JinjaTemplateEngine),
)
app = MaintenanceMiddleware(shop)  # not in middleware=[...], which runs after routing

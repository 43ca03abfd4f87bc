"""A shop in FastAPI. Staff switch maintenance on and off at /admin/maintenance."""

import datetime as dt
import os
import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Form, Header, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from maintenance import maintenance_enabled, set_maintenance
from maintenance.asgi import MaintenanceMiddleware

PASSWORD = os.environ["ADMIN_PASSWORD"].encode()

FORM = """<!doctype html><title>Maintenance</title>
<p>Maintenance is {state}.</p>
<form method="post">
  <p><label>Message <input name="message" maxlength="10000"></label></p>
  <p><label>Back in <input name="minutes" type="number" min="1" max="1440"> minutes</label></p>
  <button name="switch" value="on">Switch on</button> <button name="switch" value="off">Switch off</button>
</form>"""


def log_in(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    if not PASSWORD or not secrets.compare_digest(given.password.encode(), PASSWORD):
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})


admin = APIRouter(prefix="/admin", dependencies=[Depends(log_in)])


@admin.get("/maintenance", response_class=HTMLResponse)
def show() -> str:
    return FORM.format(state="on" if maintenance_enabled() else "off")


@admin.post("/maintenance", response_class=RedirectResponse, status_code=303)
def switch(
    switch: Annotated[Literal["on", "off"], Form()],
    sec_fetch_site: Annotated[Literal["same-origin"], Header()],  # no form of another site
    message: Annotated[str, Form(max_length=10_000)] = "",
    minutes: Annotated[int | None, Form(ge=1, le=1440)] = None,
) -> str:
    if switch == "on":
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes) if minutes else None
        set_maintenance(True, message=message or None, until=until, actor="admin")
    else:
        set_maintenance(False, actor="admin")
    return "/admin/maintenance"


app = FastAPI()
app.include_router(admin)


@app.get("/orders")
def orders() -> list[str]:
    return ["Your orders"]


app.add_middleware(MaintenanceMiddleware)  # last, so that it is the outermost

"""Each example runs under the server that its page names. Staff switch maintenance on and off, and nobody else does."""

import datetime as dt
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from maintenance import MaintenanceState
from tests.docs.pages import ROOT, blocks, sample
from tests.support.servers import START, Running, gunicorn, uvicorn
from tests.support.waiting import eventually

MINUTE = dt.timedelta(minutes=1)
FOLDER = ROOT / "docs" / "examples"
PASSWORD = "correct horse battery staple"
PAGE = "/admin/maintenance"
FILLED = {"switch": "on", "message": "from others than staff", "minutes": ""}
"""The whole form: one that lacks a field may fail for that reason alone."""

REQUESTS = [("GET", "/orders"), ("GET", "/orders/"), ("GET", "/nowhere"), ("DELETE", "/orders"), ("POST", "/nowhere")]
"""While maintenance is off, frameworks answer some of these with 307, 308, 404 or 405."""


def commands(framework: str) -> list[list[str]]:
    """The commands that a page shows, as words."""
    lines = "".join(blocks(f"docs/examples/{framework}/README.md", "sh")).splitlines()
    return [shlex.split(line) for line in lines if line]


SHOWN = {
    f"{framework}-{words[1]}": (framework, *words[:2])
    for framework in sorted(page.parent.name for page in FOLDER.glob("*/README.md"))
    for words in commands(framework)
    if words[0] in ("gunicorn", "uvicorn")
}
"""The folder, the server and the import path of each example."""


@dataclass(frozen=True)
class Example:
    framework: str
    server: str
    app: str
    env: dict[str, str]

    def serve(self) -> AbstractContextManager[Running]:
        folder = os.fspath(FOLDER / self.framework)
        if self.server == "uvicorn":
            return uvicorn(self.app, env=self.env, options=["--app-dir", folder])
        return gunicorn(self.app, workers=1, env=self.env, options=["--chdir", folder])

    def prepare(self) -> None:
        """Run what the page shows before the server: only Django has tables of its own."""
        for words in commands(self.framework):
            if words[0] == "python":
                where = FOLDER / self.framework
                subprocess.run([sys.executable, *words[1:]], cwd=where, env=os.environ | self.env, check=True)


@pytest.fixture(params=SHOWN.values(), ids=SHOWN)
def example(request: pytest.FixtureRequest, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Example:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)  # another test may have set it
    database = conninfo_to_dict(migrated_url)
    env = {
        "MAINTENANCE_DATABASE_URL": migrated_url,
        "SECRET_KEY": "a long random text that only this test knows",
        "ADMIN_PASSWORD": PASSWORD,
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "PYTHONDONTWRITEBYTECODE": "1",
        **{f"PG{key.upper()}": str(database[key]) for key in ("host", "port", "user", "password") if key in database},
        "PGDATABASE": str(database["dbname"]),
    }
    made = Example(*request.param, env=env)
    made.prepare()
    return made


class Localhost(httpx.HTTPTransport):
    """Takes secure cookies without TLS, as browsers do on localhost. Every cookie has to be one."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        assert response.status_code != 500
        cookies = response.headers.get_list("set-cookie")
        assert all(re.search("(?i); secure", it) and re.search("(?i); samesite=(lax|strict)", it) for it in cookies)
        headers = [(name, re.sub("(?i); secure", "", value)) for name, value in response.headers.multi_items()]
        response.headers = httpx.Headers(headers)
        return response


def browser(url: str) -> httpx.Client:
    """A client as patient as a start: gunicorn accepts connections before it has imported the app."""
    return httpx.Client(base_url=url, transport=Localhost(verify=False), follow_redirects=True, timeout=START)


def submit(client: httpx.Client, **fields: str) -> httpx.Response:
    """Open the page, or the login to which it leads, and send its form."""
    page = client.get(PAGE)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)"', page.text))
    return client.post(page.url, data=hidden | fields, headers={"Sec-Fetch-Site": "same-origin"})


def forge(client: httpx.Client) -> httpx.Response:
    """Send the form of another site: with the cookies and the login of this browser, and without a token."""
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    return client.post(PAGE, data=FILLED, headers=headers)


@contextmanager
def logged_in(url: str, password: str = PASSWORD) -> Iterator[httpx.Client]:
    """Log in as the app asks for it: by HTTP Basic, or in a form."""
    with browser(url) as client:
        if client.get(PAGE).status_code == 401:
            client.auth = ("admin", password)
        else:
            submit(client, username="admin", password=password)
        yield client


def statuses(client: httpx.Client) -> list[int]:
    return [client.request(method, path, follow_redirects=False).status_code for method, path in REQUESTS]


def test_staff_close_the_shop_and_open_it_again(example: Example, migrated_url: str) -> None:
    with (
        closing(MaintenanceState(migrated_url, register=False)) as flag,
        example.serve() as one,
        example.serve() as other,
        browser(one.url) as visitor,
        browser(other.url) as elsewhere,
    ):
        revision = flag.refresh().revision
        assert visitor.get("/orders").status_code == elsewhere.get("/orders").status_code == 200
        assert 503 not in statuses(visitor)

        submit(visitor, **FILLED)
        with logged_in(one.url, "a wrong password") as guesser:
            submit(guesser, **FILLED)
        with logged_in(one.url) as admin:
            assert "Maintenance is off." in admin.get(PAGE).text
            assert 400 <= forge(admin).status_code < 500
            assert flag.refresh().revision == revision, "others could switch too"

            shown = submit(admin, switch="on", message="Back by noon.", minutes="30")
            assert "Maintenance is on." in shown.text
            assert admin.get(PAGE).status_code == 200
        snapshot = flag.refresh()
        assert snapshot.until - snapshot.updated_at == pytest.approx(dt.timedelta(minutes=30), abs=MINUTE)
        for client in (visitor, elsewhere):
            eventually(lambda client=client: client.get("/orders").status_code == 503)
            assert "Back by noon." in client.get("/orders").text
            assert set(statuses(client)) == {503}

        with logged_in(other.url) as admin:
            assert "Maintenance is off." in submit(admin, switch="off").text
        for client in (visitor, elsewhere):
            eventually(lambda client=client: client.get("/orders").status_code == 200)
        assert (flag.refresh().enabled, flag.refresh().actor) == (False, "admin")


def test_pastedeploy_reads_the_filter(tmp_path: Path) -> None:
    index = "docs/examples/README.md"
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("from tests.support.plain_apps import wsgi\nmake = lambda _: wsgi\n")
    (tmp_path / "shop" / "closing.py").write_text(sample(index, "make_filter"))
    (tmp_path / "shop.ini").write_text(f"{blocks(index, 'ini')[0]}\n[app:shop]\npaste.app_factory = shop:make\n")
    load = "from paste.deploy import loadapp; app = loadapp('config:shop.ini', relative_to='.')"
    words = [sys.executable, "-c", f"{load}; print(app.exempts('GET', '/static/x'))"]
    env = os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr

"""Each sample runs as if it were pasted into an empty project, and does what its page says."""

import types
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

import maintenance
from maintenance import MaintenanceState, Snapshot
from maintenance.cli import main
from maintenance.http.refusal import Renderer
from tests.docs.pages import NAMES, blocks, sample

Paste = Callable[[str], Any]


# Pyramid's WebOb and Connexion import what others have deprecated.
@pytest.mark.filterwarnings("ignore:'cgi' is deprecated", "ignore:Using `httpx`", "ignore:jsonschema")
@pytest.mark.parametrize("name", [name for name in NAMES if blocks(name, "python")])
def test_every_sample_stands_paste(name: str, paste: Paste) -> None:
    for code in blocks(name, "python"):
        paste(code)


@pytest.fixture
def printed_sql(tmp_path: Path, paste: Paste, capsys: pytest.CaptureFixture[str]) -> None:
    """`maintenance sql > maintenance.sql`, beside what is pasted."""
    main(["sql"])
    (tmp_path / "maintenance.sql").write_text(capsys.readouterr().out)


MIGRATIONS = "docs/how-to/migrations.md"


@pytest.mark.usefixtures("printed_sql")
def test_alembic_makes_the_tables(paste: Paste, database_url: str) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from sqlalchemy import create_engine

    upgrade = paste(sample(MIGRATIONS, "from alembic import op")).upgrade
    for _ in range(2):
        engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
            upgrade()
        engine.dispose()
    assert not MaintenanceState(database_url).refresh().enabled


@pytest.mark.usefixtures("printed_sql")
# No project is set up here: the database is all that is asked for.
@pytest.mark.filterwarnings("ignore:Accessing the database during app initialization:RuntimeWarning")
def test_django_makes_the_tables(paste: Paste, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [operation] = paste(sample(MIGRATIONS, "class Migration")).Migration.operations
    from django.db import connections
    from django.db.utils import ConnectionHandler

    parts = conninfo_to_dict(database_url)
    named = {name.upper(): str(parts[name]) for name in ("host", "port", "user", "password") if name in parts}
    settings = {"ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"], **named}
    # An alias of its own: under the usual one, another test may have connected.
    monkeypatch.setattr(connections, "settings", ConnectionHandler({"default": {}, "shop": settings}).settings)
    with closing(connections["shop"]) as connection:
        for _ in range(2):
            with connection.schema_editor() as editor:
                operation.database_forwards("shop", editor, None, None)
    del connections["shop"]
    assert not MaintenanceState(database_url).refresh().enabled


def answers(app: Any, *requests: tuple[str, str, Any], headers: dict[str, str] | None = None) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return [await client.request(method, path, json=json) for method, path, json in requests]

    return anyio.run(ask)


ADMIN = "/api/v1/admin/maintenance"
ROUND = [
    ("GET", "/", None),
    ("PUT", ADMIN, {"enabled": True, "message": "Back at noon."}),
    ("GET", "/", None),
    ("PUT", ADMIN, {"enabled": False}),
    ("GET", "/", None),
]
ANSWERED = [404, 200, 503, 200, 404]


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/fastapi.md"])
def test_fastapi_flips_and_is_reached_while_it_is_on(page: str, paste: Paste) -> None:
    told = answers(paste(sample(page, "async def switch")).app, *ROUND)
    assert [answer.status_code for answer in told] == ANSWERED
    assert told[2].json()["detail"] == "Back at noon."


def test_flask_flips_and_is_reached_while_it_is_on(paste: Paste) -> None:
    client = paste(sample("docs/how-to/flask.md", "\ndef switch():")).app.test_client()
    told = [client.open(path, method=method, json=json, buffered=True) for method, path, json in ROUND]
    assert [answer.status_code for answer in told] == ANSWERED
    assert told[2].get_json()["detail"] == "Back at noon."


def test_the_guides_answer_what_is_wrong_with_400_or_422(paste: Paste) -> None:
    flask = paste(sample("docs/how-to/flask.md", "\ndef switch():")).app.test_client()
    assert [flask.put(ADMIN, json=asked).status_code for asked in ({}, {"enabled": "no"})] == [400, 400]
    too_long = ("PUT", ADMIN, {"enabled": True, "message": "a" * 10_001})
    [answer] = answers(paste(sample("docs/how-to/fastapi.md", "async def switch")).app, too_long)
    assert answer.status_code == 422


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_django_flips_and_is_reached_while_it_is_on(kind: str, paste: Paste) -> None:
    urls = types.ModuleType("urls")
    urls.urlpatterns = paste(sample("docs/how-to/django.md", "urlpatterns")).urlpatterns  # type: ignore[attr-defined]
    wrap = sample("docs/how-to/django.md", f"MaintenanceMiddleware(get_{kind}_application()")
    application = paste(wrap).application
    from django.test import override_settings

    with override_settings(ROOT_URLCONF=urls):
        if kind == "asgi":
            told = [answer.status_code for answer in answers(application, *ROUND)]
        else:
            with httpx.Client(transport=httpx.WSGITransport(application), base_url="http://test") as client:
                told = [client.request(method, path, json=json).status_code for method, path, json in ROUND]
    assert told == ANSWERED


def test_a_browser_on_another_origin_can_read_the_503(paste: Paste) -> None:
    app = paste(sample("docs/how-to/fastapi.md", "CORSMiddleware")).app
    maintenance.set_maintenance(True)
    [refused] = answers(app, ("GET", "/", None), headers={"Origin": "https://shop.example"})
    assert refused.status_code == 503
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"


def test_a_response_of_ones_own(paste: Paste) -> None:
    app = paste(sample("docs/how-to/custom-response.md", "envelope")).app
    maintenance.set_maintenance(True, message="Back at noon.")
    [refused] = answers(app, ("GET", "/", None))
    assert refused.json() == {"error": {"code": "maintenance", "message": "Back at noon.", "until": None}}
    assert refused.headers["cache-control"] == "no-store"
    assert int(refused.headers["retry-after"]) >= 60
    page = paste(sample("docs/how-to/custom-response.md", "html.escape")).app.test_client()
    maintenance.set_maintenance(True, message="<script>")
    assert "<h1>&lt;script&gt;</h1>" in page.get("/").text


PAGE = "docs/how-to/page.md"


def test_the_page_of_the_guide(paste: Paste) -> None:
    client = paste(sample(PAGE, "North Shop")).app.test_client()
    maintenance.set_maintenance(True)
    answer = client.get("/", headers={"Accept": "text/html", "Accept-Language": "fr"})
    assert "<title>Maintenance en cours · North Shop</title>" in answer.text
    paste(sample(PAGE, "De retour"))
    assert "De retour" in client.get("/", headers={"Accept": "text/html", "Accept-Language": "fr"}).text
    assert paste(sample(PAGE, "Hned")).page.texts["cs"]["heading"] == "Hned jsme zpět"


def test_the_template_of_the_guide(tmp_path: Path) -> None:
    [html] = blocks(PAGE, "html")
    (tmp_path / "503.html").write_text(html)
    rendered = Renderer(maintenance.Page(template=tmp_path / "503.html")).render_file(Snapshot(enabled=True), "de")
    assert "Wir sind bald zurück" in rendered
    assert "{{" not in rendered.partition("<script>")[0]

"""``maintenance page``: the page as a file, without a database."""

import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from maintenance.http.refusal import Renderer
from tests.support.command import Cli, run

LANGUAGES = Renderer().languages


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAINTENANCE_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to show."""
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: shown.append(url) or True)
    return shown


def test_it_is_one_whole_file_on_stdout():
    done = run(
        *("page", "--language", "de-AT", "--message", "x", "--message-for", "de", "Zurück <b>", "--name", "Shop"),
        *("--until", "2099-01-01T00:00Z", "--accent", "#0b6e4f", "--support", "a@b.example"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('<!doctype html>\n<html lang="de" dir="ltr">\n<head>\n<meta http-equiv="Content-Sec')
    assert done.stdout.endswith("</html>\n")
    assert "frame-ancestors" not in done.stdout  # a meta element cannot have it
    assert "Zurück &lt;b&gt;" in done.stdout
    assert '<time datetime="2099-01-01T00:00:00+00:00"' in done.stdout
    assert "<title>Wartungsarbeiten · Shop</title>" in done.stdout


def test_without_a_language_it_is_english(cli: Cli):
    assert '<html lang="en"' in cli("page").out


def test_a_folder_gets_each_language(tmp_path: Path, cli: Cli):
    folder = tmp_path / "new" / "folder"
    done = cli("page", "--output", str(folder), "--message", "Soon.", "--message-for", "fr", "Bientôt.")
    names = {"503.html", *(f"503.{language}.html" for language in LANGUAGES)}
    assert set(map(str, folder.iterdir())) == set(done.lines) == {str(folder / name) for name in names}
    assert (folder / "503.html").read_text() == (folder / "503.en.html").read_text()
    assert "Bientôt." in (folder / "503.fr.html").read_text()
    assert 'dir="rtl"' in (folder / "503.he.html").read_text()


def test_a_folder_gets_one_language(tmp_path: Path, cli: Cli):
    assert cli("page", "--output", str(tmp_path), "--language", "pl").lines == [str(tmp_path / "503.html")]
    assert '<html lang="pl"' in (tmp_path / "503.html").read_text()


def test_it_opens_a_preview(tmp_path: Path, cli: Cli, opened: list[str]):
    assert cli("page", "--open").out == ""
    cli("page", "--open", "--output", str(tmp_path))
    first, second = (Path(unquote(urlsplit(url).path)) for url in opened)
    assert first.read_text() == second.read_text() == (tmp_path / "503.html").read_text()


def test_without_a_browser_it_says_where_the_page_is(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    done = cli("page", "--open", "--output", str(tmp_path))
    assert done.status == 0
    assert f"warning: No browser was found. The page is {tmp_path / '503.html'}" in done.err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--language", "xx"], "--language: no page is in that language: use one of en, de, fr"),
        (["--language", "deutsch!"], "--language: no page is in that language"),
        (["--accent", "red"], "accent is 'red': use a CSS hex colour"),
        (["--logo", "nowhere.svg"], "logo is 'nowhere.svg', which cannot be read"),
        (["--message-for", "deutsch!", "x"], "--message-for needs a language and a text"),
        (["--message", "x" * 10_001], "message has 10001 characters: use at most"),
    ],
)
def test_what_is_wrong_is_named(cli: Cli, options: list[str], error: str):
    done = cli("page", *options)
    assert done.status == 2
    assert error in done.err


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, cli: Cli):
    (tmp_path / "file").write_text("")
    done = cli("page", "--output", str(tmp_path / "file"))
    assert done.status == 1
    assert "File exists" in done.err

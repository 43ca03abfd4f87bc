"""``maintenance page``: the page that visitors see, as a file for a proxy or a CDN. It needs no database."""

import argparse
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from maintenance.base.languages import parse_language
from maintenance.base.values import Details, Snapshot
from maintenance.cli import text
from maintenance.cli.commands.flip import read_messages
from maintenance.errors import ConfigurationError
from maintenance.http.refusal import Page, Renderer

ENGLISH: Final = "en"


def page(args: argparse.Namespace) -> int:
    """Write the page: to stdout, or to a folder in one language or in all of them."""
    options = ("name", "logo", "accent", "support", "status_url", "template")
    renderer = Renderer(Page(**{name: getattr(args, name) for name in options}))
    snapshot, language = _read_snapshot(args), _read_language(args.language, renderer)
    if args.output is not None:
        folder = Path(args.output)
        written = [_write(path, content) for path, content in _list_files(folder, renderer, snapshot, language)]
        print("\n".join(map(str, written)))
        _open(written[0], args)
        return 0
    content = renderer.render_file(snapshot, language or ENGLISH)
    if args.open:
        _open(_write(Path(tempfile.mkdtemp(prefix="maintenance-")) / "503.html", content), args)
    else:
        # Not `print`: the page is UTF-8, whatever the terminal's encoding is.
        sys.stdout.flush()
        sys.stdout.buffer.write(content.encode(errors="replace"))
    return 0


def _read_snapshot(args: argparse.Namespace) -> Snapshot:
    try:
        details = Details(message=args.message, messages=read_messages(args), until=args.until)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(str(exc)) from exc
    return Snapshot(enabled=True, message=details.message, messages=details.messages, until=details.until)


def _read_language(given: str | None, renderer: Renderer) -> str | None:
    if given is None:
        return None
    language = parse_language(given)
    if language is None or renderer.choose(language, ()).page.partition("-")[0] != language.partition("-")[0]:
        raise ConfigurationError(f"--language: no page is in that language: use one of {', '.join(renderer.languages)}")
    return language


def _list_files(
    folder: Path, renderer: Renderer, snapshot: Snapshot, language: str | None
) -> Iterator[tuple[Path, str]]:
    """Yield each file and its content: ``503.html``, and with all languages one more for each."""
    yield folder / "503.html", renderer.render_file(snapshot, language or ENGLISH)
    for each in renderer.languages if language is None else ():
        yield folder / f"503.{each}.html", renderer.render_file(snapshot, each)


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", errors="replace", newline="\n")
    return path


def _open(path: Path, args: argparse.Namespace) -> None:
    if args.open and not webbrowser.open(path.resolve().as_uri()):
        text.warn(f"No browser was found. The page is {path}")

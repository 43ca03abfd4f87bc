"""A visitor gets the refusal in a language that they read, whatever they send."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance import MaintenanceState
from maintenance.http.refusal import Renderer
from maintenance.http.refusal import texts as texts_module
from maintenance.http.refusal.languages import choose_language, parse_preferences
from tests.http.adapters import Adapter
from tests.support.clients import Answer

STANDARD = Renderer()
TEXTS: dict[str, dict[str, str]] = json.loads((Path(texts_module.__file__).parent / "texts.json").read_text())
MESSAGES = {"en": "Back at noon.", "de": "Mittags zurück.", "pt-BR": "De volta ao meio-dia.", "ar": "نعود ظهرًا."}


def refuse(adapter: Adapter, state: MaintenanceState, language: str | None, **options: object) -> Answer:
    headers = {"Accept": "text/html"} | ({} if language is None else {"Accept-Language": language})
    return adapter.ask(adapter.wrap(state), "/", headers=headers, **options)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("*", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("pt-BR,pt;q=0.9,en;q=0.8", "pt"),
        ("zh-TW", "zh"),
        ("zh-Hant-HK, en;q=0.5", "zh"),
        ("en;q=0.1, fr;q=0.9", "fr"),
        ("xx, nl", "nl"),
        ("de;q=0, it", "it"),
        ("tr ; q=0.5", "tr"),
        ("de;q=2, de;q=, ;, q=1, pl", "pl"),
        ("de-, -de, d, de-123456789, uk", "uk"),
        ("deutsch", "en"),
        ("xx," * 1000 + "de", "en"),  # no more of it is read
        ("ja\x00, \x80\xff", "en"),
    ],
)
def test_the_page_is_in_the_visitors_language(
    adapter: Adapter, state: MaintenanceState, header: str | None, language: str
) -> None:
    state.set(True)
    answer = refuse(adapter, state, header)
    assert answer.headers["content-language"] == language
    assert "Accept-Language" in answer.headers["vary"]
    direction = "rtl" if language in {"ar", "he"} else "ltr"
    assert f'<html lang="{language}" dir="{direction}">'.encode() in answer.body
    assert TEXTS[language]["heading"].encode() in answer.body


@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/plain"])
@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("de-CH", "de"),
        ("pt", "pt-BR"),
        ("pt-PT", "pt-BR"),
        ("ar-EG", "ar"),
        ("en", "en"),
        ("fr, de;q=0.5", "en"),  # the page is French, and no message is
        ("ca, de;q=0.5", "de"),
        ("ja", "en"),
        (None, "en"),
    ],
)
def test_the_message_is_in_the_visitors_language(
    adapter: Adapter, state: MaintenanceState, kind: str, header: str | None, shown: str
) -> None:
    state.set(True, message=MESSAGES)
    headers = {"Accept": kind} | ({} if header is None else {"Accept-Language": header})
    answer = adapter.ask(adapter.wrap(state), "/", headers=headers)
    bodies = {language for language, message in MESSAGES.items() if message in answer.body.decode()}
    assert bodies == {shown}


@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/plain"])
@pytest.mark.parametrize("mode", ["full", "read_only"])
@pytest.mark.parametrize("language", TEXTS)
def test_what_was_not_saved_comes_first_in_each_language(
    adapter: Adapter, state: MaintenanceState, kind: str, mode: str, language: str
) -> None:
    state.set(True, message="MESSAGE", mode=mode)
    headers = {"Accept": kind, "Accept-Language": language}
    answer = adapter.ask(adapter.wrap(state), "/", method="POST", headers=headers).body.decode()
    texts = TEXTS[language]
    loss = texts["form_loss" if mode == "full" else "read_only_loss"]
    heading = texts["heading" if mode == "full" else "read_only_heading"]
    if kind == "application/json":
        assert json.loads(answer)["detail"] == f"{loss} MESSAGE"
    else:
        body = answer.partition("<main>")[2] or answer
        assert 0 <= body.index(loss) < body.index("MESSAGE")
        assert kind == "text/plain" or body.index(loss) < body.index(heading)


def test_each_language_has_every_text() -> None:
    assert len(TEXTS) >= 16
    for language, texts in TEXTS.items():
        assert texts.keys() == TEXTS["en"].keys()
        assert all(texts.values()), language
        same = [name for name in texts if texts[name] == TEXTS["en"][name]]
        assert language == "en" or not same


def test_repeated_headers_count_as_one(state: MaintenanceState) -> None:
    adapter = Adapter("asgi")
    app = adapter.wrap(state)
    scope = {"headers": [(b"accept-language", b"xx"), (b"accept-language", b"fr")]}
    assert app._wire.read_wishes(scope) == (None, "xx, fr")


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_whatever_raises(header: str) -> None:
    assert STANDARD.choose(header, ("de",)).page in TEXTS


@given(st.dictionaries(st.sampled_from(["de", "fr", "pt-BR", "zh-Hant", "en"]), st.integers(0, 1000), min_size=1))
def test_the_order_is_that_of_the_weights(weights: Mapping[str, int]) -> None:
    header = ", ".join(f"{language};q={weight / 1000:.3f}" for language, weight in weights.items())
    wanted = [language for language, weight in weights.items() if weight]
    assert parse_preferences(header) == sorted(wanted, key=lambda language: -weights[language])


@pytest.mark.timeout(5)
@pytest.mark.parametrize("part", [",", "de,", "a-", ";", "de;q=", " ", "0."])
def test_a_hostile_header_costs_no_time(part: str) -> None:
    assert STANDARD.choose(part * 200_000, ()).page in TEXTS


def test_a_language_on_offer_with_a_region_serves_those_who_name_none() -> None:
    assert choose_language(["pt"], ("en", "pt-BR")) == "pt-BR"
    assert choose_language(["pt"], ("en",)) is None


def test_the_cache_is_keyed_by_the_language_that_was_chosen(adapter: Adapter, state: MaintenanceState) -> None:
    state.set(True)
    app = adapter.wrap(state)
    for number in range(2000):
        headers = {"Accept": "text/html", "Accept-Language": f"de;q=0.{number}, x{number}"}
        adapter.ask(app, "/", headers=headers)
    renderer, refusals = app._admission._renderer, app._admission._refusals[None]
    assert {key[1].page for key in refusals._built} <= {"de", "en"}
    assert renderer._render_known.cache_info().currsize <= 2
    assert renderer.choose_known.cache_info().currsize <= 256


def test_a_long_header_is_not_kept_as_a_whole(adapter: Adapter, state: MaintenanceState) -> None:
    state.set(True)
    app = adapter.wrap(state)
    for end in ("a", "b"):
        adapter.ask(app, "/", headers={"Accept-Language": "de" + " " * 2000 + end})
    assert app._admission._renderer.choose_known.cache_info().currsize == 1
    for end in ("a", "b"):
        app._admission._renderer.choose("fr" + " " * 2000 + end, ())
    assert app._admission._renderer.choose_known.cache_info().currsize == 2

"""The texts of a refusal, by language."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DEFAULT_LANGUAGE: Final = "en"
"""For visitors who read none of the languages on offer."""

Texts = Mapping[str, Mapping[str, str]]


@functools.cache
def load_texts() -> Texts:
    """Return the built-in texts. They are read when they are first needed, so that an import stays light."""
    texts: Texts = json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))
    return texts


def merge_texts(own: Texts) -> dict[str, dict[str, str]]:
    """Return the built-in texts with those of a `Page`. A text that a new language lacks is in English."""
    return {language: _merge(language, own) for language in (*load_texts(), *own)}


def _merge(language: str, own: Texts) -> dict[str, str]:
    merged: dict[str, str] = {}
    for name in (DEFAULT_LANGUAGE, language.partition("-")[0], language):
        merged |= {**load_texts().get(name, {}), **own.get(name, {})}
    return merged

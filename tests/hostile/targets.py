"""A grammar of request targets: near what is exempt, and with every trick that makes two readers disagree."""

import random
import unicodedata
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

MOUNTS = ["", "", "", "/app", "/app/", "/adm", "/admin", "/or", "/a/b"]
METHODS = ["GET", "GET", "GET", "HEAD", "POST"]
OPEN = ["admin", "health", "healthz", "readyz", "status", "exact", "é"]
WORDS = [*OPEN, "orders", "Admin", "ADMIN", "administrator", "in", "ers", "app", "x", "a b", "...", "維持", "1"]

DOTS = [
    ".",
    "..",
    "%2e",
    "%2e%2e",
    ".%2E",
    "%252e%252e",
    "%c0%ae%c0%ae",
    "%e0%80%ae.",
    "%EF%BC%8E%EF%BC%8E",
    "..;",
    "%u002e",
]
SLASHES = [
    *["/"] * 30, "//", "///", "\\", "%2f", "%2F", "%5c", "%252f", "%c0%af", "%e0%80%af", "%EF%BC%8F", "%E2%88%95",
    "%E2%81%84", "/./", "/../", "/%2e/", "/%2e%2e/", "/..;/", ";/", "/;x/", "%00/", "%u2215",
]  # fmt: skip
NOISE = [
    "%00", "%0a", "%0d%0a", "%09", "%1b", "%7f", "%80", "%ff", "%c2%85", "%20", "%c2%a0", "%e3%80%80", "%e2%80%8b",
    "%e2%80%ae", "%ef%bb%bf", ";", ";a=b", "%3b", "%3f", "%23", "%", "%%", "%2", "%zz", "+", "*", "~", "|", "@", ":",
    "\\", "%ed%a0%80", "%f4%90%80%80", "%cc%81", "\xe9", "\xff", "%c4%b0", "%c5%bf", "%e2%84%aa",
]  # fmt: skip


class Asked(NamedTuple):
    """A request as a client sends it. The mount point is the server's."""

    method: str
    target: str
    mount: str


def generate(chance: random.Random) -> Asked:
    mount = chance.choice(MOUNTS)
    path = _prefix(chance, mount) + _path(chance)
    if chance.random() < 0.1:
        path = path.removeprefix("/")
    if chance.random() < 0.02:
        path = f"http://host.example{path}"
    end = chance.choice(["", "", "", "", "?", "?a=/admin", "#/admin", "?%2e%2e/", "#"])
    return Asked(chance.choice(METHODS), path + end, mount)


def _prefix(chance: random.Random, mount: str) -> str:
    if not mount or chance.random() < 0.3:
        return ""
    return mount if chance.random() < 0.8 else _mutate(chance, mount)


def _path(chance: random.Random) -> str:
    parts = [_segment(chance) for _ in range(chance.choice([0, 1, 1, 2, 2, 2, 3, 4]))]
    if parts and chance.random() < 0.5:
        parts[0] = chance.choice(OPEN) if chance.random() < 0.5 else _mutate(chance, chance.choice(OPEN))
    written = "".join(chance.choice(SLASHES) + (part if "%" in part else quote(part)) for part in parts)
    return written + chance.choice(["", "", "/", chance.choice(SLASHES), chance.choice(DOTS)])


def _segment(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.12:
        return chance.choice(DOTS)
    if kind < 0.18:
        return chance.choice(NOISE)
    word = chance.choice(WORDS)
    return word if kind < 0.6 else _mutate(chance, word)


def _mutate(chance: random.Random, word: str) -> str:
    return chance.choice(_MUTATIONS)(chance, word)


def _insert(chance: random.Random, word: str) -> str:
    place = chance.choice([0, len(word), chance.randrange(len(word) + 1)])
    return f"{quote(word[:place])}{chance.choice(NOISE)}{quote(word[place:])}"


def _encode_one(chance: random.Random, word: str) -> str:
    place = chance.randrange(len(word))
    raw = "".join(f"%{byte:02x}" for byte in word[place].encode())
    return quote(word[:place]) + (raw if chance.random() < 0.7 else raw.replace("%", "%25")) + quote(word[place + 1 :])


def _overlong(chance: random.Random, word: str) -> str:
    """Write a character in two bytes, although one is enough."""
    place, code = chance.randrange(len(word)), 0
    code = ord(word[place])
    return quote(word[:place]) + f"%{0xC0 | (code >> 6) & 0x1F:02x}%{0x80 | code & 0x3F:02x}" + quote(word[place + 1 :])


def _respell(chance: random.Random, word: str) -> str:
    """Write the same for some readers: in another case, another normal form, or wide letters."""
    wide = "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in word)
    return quote(chance.choice([word.swapcase(), word.title(), unicodedata.normalize("NFD", word), wide]))


def _join(chance: random.Random, word: str) -> str:
    return quote(word) + chance.choice(SLASHES) + chance.choice([*DOTS, *WORDS[:10]])


_MUTATIONS: list[Callable[[random.Random, str], str]] = [_insert, _encode_one, _overlong, _respell, _join]

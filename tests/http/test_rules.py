"""The path rules: how they are written, and what they open over both adapters against a model of ten lines."""

import asyncio
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from maintenance import MaintenanceState
from maintenance.asgi import MaintenanceMiddleware as ASGIMiddleware
from maintenance.base.values import WEBSOCKET
from maintenance.errors import ConfigurationError
from maintenance.http.rules import DEFAULT_EXEMPT, PASSES, PROBES, Rules, strip_mount
from maintenance.wsgi import MaintenanceMiddleware as WSGIMiddleware
from tests.support.clients import acall_asgi, call_wsgi
from tests.support.plain_apps import asgi, wsgi


@pytest.mark.parametrize(
    ("exempt", "message"),
    [
        ("/metrics", r"exempt is '/metrics': use a tuple, such as \('/metrics',\)"),
        (b"/metrics", "use a tuple"),
        (None, "exempt is None: use a tuple"),
        (5, "exempt is 5: use a tuple"),
        ((5,), "exempt holds 5: use str"),
        ((b"/x",), "exempt holds b'/x': use str"),
        (("",), "exempt holds '': use a path or METHOD /path"),
        (("metrics",), "exempt holds 'metrics': use a path"),
        (("get /x",), "exempt holds 'get /x'"),
        (("GET",), "exempt holds 'GET'"),
        *(((wrong,), "exempt holds") for wrong in ("GET  /x", "/x?y=1", "/x#y", "/a b", "/x\n")),
        (("/",), "would exempt every path: name the paths"),
        *(((wrong,), "would exempt every path") for wrong in ("GET /", "//")),
        *(((wrong,), "leave out the wildcard") for wrong in ("/api/*", "GET /*", "/a*")),
        *(((wrong,), "end it before the parameter") for wrong in ("/u/<id>", "/u/<int:id>/x", "/u/{id}", "GET /{x}")),
        *(((wrong,), "in front, as in '=/x'") for wrong in ("/x$", "GET /x$")),
        *(((wrong,), "use '/x' for a path") for wrong in ("^/x$", "/x/.*", "/a|/b", "/[a-z]", "/(?P<n>x)", r"/u/\d+")),
        (("/a%20b",), "use a decoded path without %"),
        *(((wrong,), "use a decoded path") for wrong in ("/a\\b", "/a;b", "/a//b", "/a/../b", "/a/.", "/a\0")),
    ],
)
def test_a_wrong_rule_is_refused_with_what_to_write(exempt: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Rules(exempt)


@pytest.mark.parametrize(
    ("exempt", "method", "path", "opens"),
    [
        *[((), method, f"{path}/x", method != "POST") for path in PROBES for method in ("GET", "HEAD", "POST")],
        ((), "DELETE", "/admin/x", True),
        (["/metrics"], "POST", "/metrics", True),
        (["/metrics/"], "GET", "/metrics", True),  # a slash at the end changes nothing
        (["GET /status"], "GET", "/status/now", True),
        (["GET /status"], "GET", "/health", True),  # the rules without a method still count
        (["GET /status"], "HEAD", "/status", False),
        (["GET =/"], "GET", "/", True),
        (["GET =/"], "GET", "", True),  # the mount point itself
        (["GET =/"], "POST", "/", False),
        (["GET =/"], "GET", "/x", False),
        (["=/x"], "POST", "/x", True),
        (["=/x"], "POST", "/x/", False),
        (["=/x"], "GET", "/x/y", False),
        (["=/x", "GET /y"], "GET", "/x", True),
        (["/$metadata", "/f(1)", "/c++"], "GET", "/$metadata", True),
        (["PROP-FIND /x"], "PROP-FIND", "/x", True),
        (["WEBSOCKET /live"], WEBSOCKET, "/live", True),
        (["WEBSOCKET /live"], "GET", "/live", False),
    ],
)
def test_a_rule_opens_its_path_for_its_method(exempt: Any, method: str, path: str, *, opens: bool) -> None:
    assert Rules(iter(exempt)).exempts(method, path, path) is opens


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        ("POST /search", r"reads is 'POST /search': use a tuple, such as \('POST /search',\)"),
        (None, "reads is None: use a tuple"),
        (("/search",), "name a method too, as in 'POST /search'"),
        (("POST /*",), "leave out the wildcard"),
        ((5,), "reads holds 5: use str"),
    ],
)
def test_a_wrong_read_is_refused_with_what_to_write(reads: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Rules.of_reads(reads)


@pytest.mark.parametrize("path", [*PROBES, "/admin"])
def test_the_default_rules_can_be_removed(path: str) -> None:
    assert not Rules(default_exempt=False).exempts("GET", path, path)


def is_ambiguous(character: str) -> bool:
    """Whether another program may read a part of a path's syntax, or nothing, where it stands."""
    normal = character if character.isascii() else unicodedata.normalize("NFKC", character)
    hidden = {unicodedata.category(it) for it in normal} & {"Cc", "Cs"}
    look_alike = character in "⁄∕∖⧵⧸⧹�" or (character != "." and set("./") & set(normal))
    return bool(hidden or look_alike or set("%\\;?#") & set(normal))


def test_no_ambiguous_character_opens_anything() -> None:
    """Of all that Unicode has, as this Python knows it."""
    characters, opens = [chr(code) for code in range(sys.maxunicode + 1)], Rules().exempts
    found = {it for it in characters if not opens("GET", path := f"/admin/a{it}b", path)}
    assert found == {it for it in characters if is_ambiguous(it)} - {"/"}


@pytest.mark.parametrize("blank", [" ", "\t", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}"])
def test_a_blank_at_the_end_of_a_segment_opens_nothing(blank: str) -> None:
    for path in (f"/admin{blank}", f"/admin/{blank}", f"/admin/{blank}x", f"/admin/x{blank}/y", f"/admin/x{blank}"):
        assert not Rules().exempts("GET", path, path)


def test_the_mount_point_can_make_a_path_ambiguous() -> None:
    assert Rules().exempts("GET", "/admin", "/app/admin")
    assert not Rules().exempts("GET", "/admin", "/%61pp/admin")


@pytest.mark.parametrize(
    ("mode", "method", "refused"),
    [
        *[("full", method, True) for method in ("GET", "HEAD", "OPTIONS", "POST", WEBSOCKET)],
        *[("read_only", method, False) for method in ("GET", "HEAD", "OPTIONS")],
        *[("read_only", method, True) for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "get", "", WEBSOCKET)],
    ],
)
def test_a_mode_refuses_by_method(mode: Any, method: str, *, refused: bool) -> None:
    assert (method not in PASSES[mode]) is refused


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/api/x", "/api", "/x"),
        ("/api/x", "/api/", "/x"),
        ("/api", "/api", ""),
        ("/x", "", "/x"),
        ("/x", "/", "/x"),
        ("/x", "/api", "/x"),
        ("/apix", "/api", "/apix"),
        ("", "", ""),
    ],
)
def test_the_mount_point_is_stripped_from_a_path(path: str, root: str, below: str) -> None:
    assert strip_mount(path, root) == below


# Both adapters against the model

WORDS = ["health", "healthz", "admin", "Admin", "administrator", "status", "a", "x", "é", "維持", "a b", "..."]
TRAPS = [
    "",
    ".",
    "..",
    "%2e",
    "%2F",
    "%",
    "a;b",
    ";",
    "\\",
    "a\\..",
    "\0",
    "a\0",
    ". ",
    "‥",
    "／",
    "a?",
    "#",
    " a",
    "a　",
]


def passes(rules: list[str], method: str, mount: str, path: str) -> bool:
    """The contract in other words: whole segments below the mount, and no path that two readers read differently."""
    segments = f"{mount.rstrip('/')}{path}".split("/")[1:]
    if any(it in (".", "..") or it != it.strip() or any(map(is_ambiguous, it)) for it in segments):
        return False
    if "" in segments[:-1]:
        return False
    for rule in rules:
        wanted, _, prefix = rule.rpartition(" ")
        named = prefix.rstrip("/").split("/")
        if wanted in ("", method) and path.split("/")[: len(named)] == named:
            return True
    return False


@pytest.fixture(scope="module", params=["full", "read_only"])
def closed(request: pytest.FixtureRequest) -> Iterator[MaintenanceState]:
    state = MaintenanceState("memory://", ttl=1000.0)
    state.set(True, mode=request.param)
    yield state
    state.close()


segments = st.one_of(st.sampled_from(WORDS), st.sampled_from(TRAPS), st.text(st.characters(codec="utf-8"), max_size=3))
paths = st.one_of(st.just(""), st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts)))
plain = st.lists(st.sampled_from([word for word in WORDS if " " not in word]), min_size=1, max_size=2)
plain_paths = plain.map(lambda parts: "/" + "/".join(parts))
ends = st.sampled_from(["", "/"])
rules = st.lists(st.builds("{}{}{}".format, st.sampled_from(["", "GET ", "POST "]), plain_paths, ends), max_size=3)
mounts = st.one_of(st.just(""), plain_paths, st.sampled_from(["/a;b", "/a%2fb", "/a/../b", "/health"]))


@dataclass(frozen=True)
class Case:
    """One request, and what is exempt."""

    rules: list[str]
    default: bool
    method: str
    mount: str
    path: str
    override: str = ""
    query: str = ""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    given_rules, default = draw(rules), draw(st.booleans())
    methods = st.sampled_from(["GET", "POST"])
    path = draw(paths)
    known = [rule.rpartition(" ")[2].rstrip("/") for rule in given_rules] + ([*PROBES, "/admin"] if default else [])
    if known and draw(st.booleans()):
        path = draw(st.sampled_from(known)) + path  # near a rule, where the mistakes are
    override, query = (draw(st.one_of(st.just(""), methods)) for _ in range(2))
    return Case(given_rules, default, draw(methods), draw(mounts), path, override, query)


def examples(function: Any) -> Any:
    """The cases that must run every time."""
    ambiguous = ["/admin/../x", "//admin", "/admin/a\\b", "/admin//x", "/admin/a%2fb", "/admin/a;b", "/admin/\0"]
    for path in ("/administrator", *ambiguous, "/admin/./x", "/admin/.."):
        function = example(Case([], True, "GET", "", path))(function)
    for mount, path in [("/admin", "/x"), ("/a", "/a/admin"), ("/a;b", "/admin")]:
        function = example(Case([], True, "GET", mount, path))(function)
    return example(Case(["/é"], False, "GET", "/維持", "/é/x"))(function)


@settings(max_examples=300, deadline=None)
@examples
@given(case=cases())
def test_both_adapters_agree_with_the_model(closed: MaintenanceState, case: Case) -> None:
    options: dict[str, Any] = {"exempt": case.rules, "default_exempt": case.default}
    asked: dict[str, Any] = {"method": case.method, "root": case.mount}
    asked["headers"] = {"X-HTTP-Method-Override": case.override} if case.override else {}
    asked["query"] = f"a=b&_method={case.query}" if case.query else ""
    all_rules = [*(DEFAULT_EXEMPT if case.default else ()), *case.rules]
    methods = set(filter(None, (case.method, case.override, case.query)))
    exempt = all(passes(all_rules, method, case.mount, case.path) for method in methods)
    expected = 200 if exempt or methods <= PASSES[closed.snapshot().mode] else 503
    event(str(expected))
    through_wsgi = call_wsgi(WSGIMiddleware(wsgi, closed, **options), case.path, **asked)
    through_asgi = asyncio.run(acall_asgi(ASGIMiddleware(asgi, closed, **options), case.path, **asked))
    assert (through_wsgi.status, through_asgi.status) == (expected, expected)

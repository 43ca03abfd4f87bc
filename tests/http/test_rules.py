"""The rules themselves, as they are written; what they open is asked over both adapters elsewhere."""

from typing import Any

import pytest

from maintenance.base.values import WEBSOCKET
from maintenance.errors import ConfigurationError
from maintenance.http.rules import DEFAULT_EXEMPT, PASSES, Rules, relative


@pytest.mark.parametrize(
    ("exempt", "says"),
    [
        ("/metrics", r"exempt is '/metrics': write a tuple, such as \('/metrics',\)"),
        (b"/metrics", "write a tuple"),
        (None, "exempt is None: write a tuple"),
        (5, "exempt is 5: write a tuple"),
        ((5,), "exempt holds 5: write str"),
        ((b"/x",), "exempt holds b'/x': write str"),
        (("",), "exempt holds '': write a path or METHOD /path"),
        (("metrics",), "exempt holds 'metrics': write a path"),
        (("get /x",), "exempt holds 'get /x'"),
        (("GET  /x",), "exempt holds"),
        (("GET",), "exempt holds 'GET'"),
        (("/x?y=1",), "exempt holds"),
        (("/x#y",), "exempt holds"),
        (("/a b",), "exempt holds"),
        (("/x\n",), "exempt holds"),
        (("/",), "would exempt every path: name the ones"),
        (("GET /",), "would exempt every path"),
        (("/a%20b",), "write a decoded path without %"),
        (("/a\\b",), "write a decoded path"),
        (("/a;b",), "write a decoded path"),
        (("/a//b",), "write a decoded path"),
        (("//",), "would exempt every path"),
        (("/a/../b",), "write a decoded path"),
        (("/a/.",), "write a decoded path"),
        (("/a\0",), "write a decoded path"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_to_write(exempt: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Rules(exempt)


def opens(rules: Rules, method: str, path: str) -> bool:
    return rules.exempts(method, path, path)


@pytest.mark.parametrize("path", DEFAULT_EXEMPT)
def test_the_defaults_open_and_can_be_removed(path: str) -> None:
    assert opens(Rules(), "DELETE", f"{path}/x")
    assert not opens(Rules(default_exempt=False), "GET", path)


def test_a_rule_without_a_method_opens_every_method_and_one_with_it_only_that() -> None:
    rules = Rules(iter(["/metrics", "GET /status", "WEBSOCKET /live"]))
    assert opens(rules, "POST", "/metrics")
    assert opens(rules, "GET", "/status/now")
    assert opens(rules, "GET", "/health")  # what opens every method opens those with rules of their own too
    assert not opens(rules, "HEAD", "/status")
    assert opens(rules, WEBSOCKET, "/live")
    assert not opens(rules, "GET", "/live")


def test_a_slash_at_the_end_of_a_rule_says_nothing() -> None:
    assert opens(Rules(("/metrics/",)), "GET", "/metrics")


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
def test_a_path_below_its_mount_point(path: str, root: str, below: str) -> None:
    assert relative(path, root) == below

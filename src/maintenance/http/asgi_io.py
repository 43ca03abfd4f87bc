"""What an ASGI adapter hears from its server and says to it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from maintenance.base.threads import run_for_request
from maintenance.http.admission import Admission, Wire
from maintenance.http.refusal import Response
from maintenance.http.rules import relative
from maintenance.process.lease import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TRY_AGAIN_LATER: Final = 1013
"""The close code of a refusal (IANA WebSocket Close Code Number Registry)."""

MAX_KNOWN: Final = 512
"""How many responses' headers are kept as bytes: the same ones are sent again and again."""

_Headers = tuple[tuple[str, str], ...]

_known: Final[dict[int, tuple[_Headers, list[tuple[bytes, bytes]]]]] = {}


def _headers(scope: Any) -> dict[str, str]:
    """A request's headers, names in lower case, several of one name joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        # HTTP/2 clients split their cookies (RFC 9113, section 8.2.3).
        comma = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{comma}{value}" if name in headers else value
    return headers


def _accept(scope: Any) -> str | None:
    """A request's Accept header, several joined."""
    accept = None
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = value if accept is None else accept + b", " + value
    return accept.decode("latin-1") if accept else None


WIRE: Final = Wire(
    paths=lambda path, root: (relative(path, root), path),
    accept=_accept,
    headers=_headers,
    client=lambda scope: (scope.get("client") or [None])[0] or None,
    copy=lambda scope: {**scope, "headers": list(scope["headers"])},
)


def _encode(headers: _Headers) -> tuple[_Headers, list[tuple[bytes, bytes]]]:
    known = headers, [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if len(_known) >= MAX_KNOWN:
        _known.clear()
    _known[id(headers)] = known
    return known


def messages(response: Response, head: bool) -> tuple[Message, Message]:
    """A refusal as a server takes it; without its body where only the headers were asked for."""
    body = b"" if head else response.body
    headers = response.headers
    known = _known.get(id(headers))
    if known is None or known[0] is not headers:
        known = _encode(headers)
    # A list of its own, which a server or another middleware may write to.
    start = {"type": "http.response.start", "status": response.status, "headers": known[1].copy()}
    return start, {"type": "http.response.body", "body": body}


async def wait_in_thread(gate: Admission, now: float) -> Answer:
    """What a request that read the clock at `now` rests on, waited for in a thread."""
    # A default state that is not there yet is built in the thread too: that loads a driver.
    held = gate.peek(now) if gate.state else None
    return await run_for_request(gate.wait_for_answer) if held is None else held


async def lifespan(app: App, gate: Admission, scope: Scope, receive: Receive, send: Send) -> None:
    """Follow from the server's start to its end; while it starts up, the app may name the default state."""
    complete = False

    async def pass_on(message: Message) -> None:
        nonlocal complete
        if message["type"] == "lifespan.startup.complete":
            complete = True
            await run_for_request(gate.resolve)
        elif message["type"].startswith("lifespan.shutdown."):
            await run_for_request(leave)
        await send(message)

    def leave() -> None:
        # An app that knows no lifespan raises before it has started up.
        if complete and (state := gate.ready) is not None:
            state.leave()

    gate.begin()
    try:
        await app(scope, receive, pass_on)
    finally:
        # Where the app ends without saying so. Not awaited: the server ends the loop at the next step.
        leave()


async def refuse_websocket(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse before accepting: with the response where the server can, else with a close code."""
    await receive()  # websocket.connect
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "maintenance"})
        return
    for message in messages(response, False):
        await send({**message, "type": f"websocket.{message['type']}"})

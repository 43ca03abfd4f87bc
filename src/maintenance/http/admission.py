"""The one decision that both adapters ask for: what is asked, and the flag, give a pass or a response."""

import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import random
from typing import Any, Final

from maintenance.base.log import log
from maintenance.base.options import check_bool, check_function
from maintenance.base.runtime import REAL
from maintenance.base.values import Request, Snapshot
from maintenance.errors import ConfigurationError
from maintenance.http.custom_response import completed
from maintenance.http.refusal import Refusals, Response
from maintenance.http.rules import PASSES, READS, Rules
from maintenance.process import api
from maintenance.process.in_flight import Entry, InFlight
from maintenance.process.lease import Answer, Lease
from maintenance.process.state import MaintenanceState

Bypass = Callable[[Request], bool]
Respond = Callable[[Snapshot, Request], Response]

COMPLAINT: Final = 60.0
"""Seconds for which nothing more is logged of a `bypass` or `respond` that failed."""

Asked = tuple[str, str, Any]
"""(method, path below the mount point and decoded, the server's environ or scope); `policy.WEBSOCKET` is a method too.

A bare tuple, and so are the entries of `InFlight`: named ones cost a refused request 0.35 of its 2.5 us.
"""


@dataclass(frozen=True, slots=True)
class Wire:
    """How an adapter reads its server's values.

    Attributes:
        paths: (path, mount point) as the server gives them -> (relative, whole), decoded.
        accept: The raw request -> its Accept header, or None.
        headers: The raw request -> its headers, several of one name joined.
        client: The raw request -> the peer's address, or None.
        copy: The raw request -> one that the app cannot write into.
    """

    paths: Callable[[str, str], tuple[str, str]]
    accept: Callable[[Any], str | None]
    headers: Callable[[Any], dict[str, str]]
    client: Callable[[Any], str | None]
    copy: Callable[[Any], Any]


class NoLease:
    """Stands for the lease until the default state is looked for: nothing passes without asking."""

    current: Final = Answer(Snapshot(enabled=False, source="default"), float("-inf"))


class Admission:
    """What a middleware asks. Computed at construction, looked up by each request."""

    def __init__(
        self,
        state: MaintenanceState | None,
        wire: Wire,
        *,
        exempt: Iterable[str],
        default_exempt: bool,
        bypass: Bypass | Iterable[Bypass] | None,
        respond: Respond | None,
        in_flight: bool,
    ) -> None:
        """Check the options; a default state is looked for when the first request comes.

        Raises:
            ConfigurationError: An option is wrong.
        """
        api.check_state(state)
        check_bool("default_exempt", default_exempt)
        check_bool("in_flight", in_flight)
        if respond is not None:
            check_function("respond", respond)
        self._given = state
        self._wire, self._paths, self._accept = wire, wire.paths, wire.accept
        self._rules = Rules(exempt, default_exempt=default_exempt)
        self._bypasses = _several(bypass)
        self._respond = respond
        self._silent_until: dict[int, float] = {}
        self._refusals = Refusals(NoLease.current.snapshot)
        self.state = state
        self.clock = REAL.clock
        self.clock_call = _call_of(self.clock)
        self.keep = wire.copy if self._bypasses else None
        self.in_flight = InFlight() if in_flight else None
        self._meters: dict[MaintenanceState, _Meter] = {}
        self.flipped: Callable[[Snapshot], None] = lambda _: None
        self.lease: Lease | NoLease = NoLease()
        if state is not None:
            self._follow(state)

    def _follow(self, state: MaintenanceState) -> None:
        if state is self.state and self._meters:
            return
        # One step of a dict: of several requests that come here at once, all get the first one's.
        mine = self._meter()
        meter = self._meters.setdefault(state, mine)
        state.attach(meter)
        self.in_flight = meter.flights[0] if meter.flights else None
        self.state, self.clock, self.lease, self._meters = state, state.clock, state.lease, {state: meter}
        self.clock_call = _call_of(state.clock)
        meter.notify(state.lease.known)

    def _meter(self) -> "_Meter":
        """Make what counts for the next state: also requests that were let in before, which may end under its flag.

        Each state has a table of its own, so that one that was replaced ends once what it let in has ended.
        """
        now = self.in_flight
        if now is None or not self._meters:
            return _Meter(self, () if now is None else (now,))
        before = dict.fromkeys(flight for meter in list(self._meters.values()) for flight in meter.flights)
        kept = [flight for flight in before if flight is now or flight.entries()]
        return _Meter(self, (InFlight(), *kept))

    def told(self, meter: "_Meter", snapshot: Snapshot) -> None:
        """Pass on a flip, unless it is that of a state that was replaced."""
        if self.state is not None and self._meters.get(self.state) is meter:
            self.flipped(snapshot)

    @property
    def ready(self) -> MaintenanceState | None:
        """The state, if there is one yet."""
        return self._given or api.current_state()

    def begin(self) -> None:
        """Follow from now on, where there is a state: a process that gets nothing but probes registers too."""
        if (state := self.ready) is not None:
            state.start()

    def resolve(self) -> None:
        """Follow from now on, building the default state if there is none; requests raise what is wrong with it."""
        try:
            self._followed().start()
        except ConfigurationError as exc:
            log(logging.ERROR, "as it is, each request that is not exempt will fail: %s", exc)

    def ask(self, method: str, path: str, root: str, raw: Any) -> Asked | None:
        """What is asked, or None where it passes whatever the flag says."""
        # Most are neither mounted nor have to be decoded.
        below, whole = self._paths(path, root) if root or not path.isascii() else (path, path)
        return None if self._rules.exempts(method, below, whole) else (method, below, raw)

    def peek(self, now: float) -> Answer | None:
        """What a request that read the clock before this rests on; None where somebody must wait for it, in `settle`.

        Raises:
            ConfigurationError: There is no default state, and no database is named.
        """
        held = self.lease.current
        return held if now < held.deadline else self._followed().peek()

    def wait_for_answer(self) -> Answer:
        """Wait for what a request rests on."""
        return self.peek(self.clock()) or self._followed().wait_for_answer()

    def _followed(self) -> MaintenanceState:
        """The state that is followed: a default one since the first request, or the first after init_maintenance()."""
        state = self.state
        if state is None or (state.closed and self._given is None):
            state = api.default_state()
            self._follow(state)
        return state

    def refusal(self, asked: Asked, held: Answer) -> Response | None:
        """The refusal, or None where the request passes."""
        snapshot = held.snapshot
        # As `refuses`, which is a call more.
        if not snapshot.enabled or asked[0] in PASSES[snapshot.mode] or (self._bypasses and self._bypassed(asked)):
            return None
        refusals = self._refusals
        if refusals.snapshot is not snapshot:
            self._refusals = refusals = Refusals(snapshot)
        sent = asked[0] not in READS
        standard = refusals.get(self._accept(asked[2]), random(), sent)  # noqa: S311 - spreads, guards nothing
        return standard if self._respond is None else self._custom(self._respond, snapshot, asked, standard)

    def refuses(self, asked: Asked, snapshot: Snapshot) -> bool:
        """Whether a flag refuses what no rule lets pass."""
        return snapshot.enabled and asked[0] not in PASSES[snapshot.mode] and not self._bypassed(asked)

    def counts(self, snapshot: Snapshot, entry: Entry) -> bool:
        """Whether a flag refuses a request in flight; while it is off, all count."""
        if not snapshot.enabled:
            return True
        asked = self.ask(entry.method, entry.path, entry.root, entry.raw)
        return asked is not None and self.refuses(asked, snapshot)

    def _bypassed(self, asked: Asked) -> bool:
        for bypass in self._bypasses:
            try:
                passes: Any = bypass(self._request(asked))
                if inspect.isawaitable(passes):
                    raise TypeError("a bypass must be a plain function, and this one returned an awaitable")  # noqa: TRY301
            except Exception as exc:  # noqa: BLE001
                # Whoever cannot be asked lets nobody in.
                self._complain("a bypass failed, and lets nobody pass", bypass, exc)
                continue
            if passes:
                return True
        return False

    def _custom(self, respond: Respond, snapshot: Snapshot, asked: Asked, standard: Response) -> Response:
        try:
            return completed(respond(snapshot, self._request(asked)), standard)
        except Exception as exc:  # noqa: BLE001
            self._complain("respond failed; the standard response is sent", respond, exc)
            return standard

    def _complain(self, said: str, function: Callable[..., Any], exc: Exception) -> None:
        """Log that a user's function failed: not for each request, nor for each look at those in flight."""
        now = self.clock()
        if now >= self._silent_until.get(id(function), now):
            self._silent_until[id(function)] = now + COMPLAINT
            log(logging.ERROR, "%s (told once in %g s): %r", said, COMPLAINT, function, exc=exc)

    def _request(self, asked: Asked) -> Request:
        method, path, raw = asked
        return Request(method, path, self._wire.headers(raw), self._wire.client(raw))


class _Meter:
    """What stands between a state and a middleware: counts its requests in flight, and does not keep it alive."""

    def __init__(self, gate: Admission, flights: tuple[InFlight, ...]) -> None:
        self._gate = weakref.ref(gate)
        self.flights = flights

    def entries(self, snapshot: Snapshot) -> list[tuple[Entry, bool]] | None:
        """What is in flight, and whether a flag refuses it; None where it is not tracked."""
        if not self.flights:
            return None
        gate, entries = self._gate(), [entry for flight in self.flights for entry in flight.entries()]
        # Of a middleware that is gone, nobody can say what it would let pass.
        return [(entry, gate is None or gate.counts(snapshot, entry)) for entry in entries]

    def clear(self) -> None:
        """Forget the requests in flight: in the child of a fork they are the parent's."""
        for flight in self.flights:
            flight.clear()

    def notify(self, snapshot: Snapshot) -> None:
        """Hear of a flip."""
        if (gate := self._gate()) is not None:
            gate.told(self, snapshot)


def _call_of(clock: Callable[[], float]) -> tuple[Callable[..., float], tuple[Any, ...]]:
    """A clock as (function, arguments), for the way of a request: read through a partial, it takes a third longer."""
    return (clock.func, clock.args) if isinstance(clock, functools.partial) else (clock, ())


def _several(given: Bypass | Iterable[Bypass] | None) -> tuple[Bypass, ...]:
    if given is None:
        return ()
    bypasses: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) and not callable(given) else (given,)
    for bypass in bypasses:
        check_function("bypass", bypass)
    return bypasses

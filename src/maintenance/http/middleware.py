"""What both adapters are told at construction."""

from collections.abc import Iterable
from typing import Any, ClassVar, TypedDict

from maintenance.errors import ConfigurationError
from maintenance.http.admission import Admission, Bypass, Respond, Wire
from maintenance.process.state import MaintenanceState


class Options(TypedDict, total=False):
    """Those of `Middleware`, for an adapter that passes them on."""

    exempt: Iterable[str]
    default_exempt: bool
    bypass: Bypass | Iterable[Bypass] | None
    respond: Respond | None
    in_flight: bool


class Middleware:
    """The options of both adapters, checked once."""

    _wire: ClassVar[Wire]

    def __init__(
        self,
        app: Any,
        state: MaintenanceState | None = None,
        *,
        exempt: Iterable[str] = (),
        default_exempt: bool = True,
        bypass: Bypass | Iterable[Bypass] | None = None,
        respond: Respond | None = None,
        in_flight: bool = True,
    ) -> None:
        """Wrap an app.

        Args:
            app: The app.
            state: What to ask; None for the process's default state, looked up when the first request comes.
            exempt: What passes by what is asked for: ``"/metrics"``, or ``"GET /status"``.
            default_exempt: Whether /health, /healthz, /livez, /readyz and /admin pass too.
            bypass: Who passes by who asks: one plain function over a `Request`, or several.
            respond: Makes the response in place of the standard one, from a `Snapshot` and a `Request`.
            in_flight: Whether requests in flight are tracked, which ``--drain`` needs.

        Raises:
            ConfigurationError: An option is wrong; the message says what to write.
        """
        if not callable(app):
            raise ConfigurationError(f"app is of type {type(app).__name__}: write the app that is to be wrapped")
        self._app = app
        self._gate = Admission(
            state,
            self._wire,
            exempt=exempt,
            default_exempt=default_exempt,
            bypass=bypass,
            respond=respond,
            in_flight=in_flight,
        )

"""Functions for the option `bypass`: they admit a request because of who sends it."""

import functools
import hmac
import ipaddress
import re
from typing import Final

from maintenance.base.quoting import quote
from maintenance.errors import ConfigurationError
from maintenance.http.refusal.accept import TOKEN
from maintenance.http.request import Request

SHORTEST: Final = 16
"""The shortest value of a header that admits, in characters."""

_LONGEST_ADDRESS: Final = 64
"""Longer texts are no addresses, and are not kept."""

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_NAME: Final = re.compile(TOKEN)
_VALUE: Final = re.compile(r"[!-~]+")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class addresses:  # noqa: N801 - used as a function
    """Admits requests from some networks."""

    def __init__(self, *networks: str, proxies: int = 0) -> None:
        """Check the networks.

        Args:
            *networks: Such as ``"10.0.0.0/8"`` or ``"2001:db8::1"``.
            proxies: How many trusted proxies are in front. The client's address is then that many entries from the
                right of ``X-Forwarded-For``. With 0, it is the peer's, and no header is read.

        Raises:
            ConfigurationError: One is wrong. The message shows how to write it.
        """
        if not networks:
            raise ConfigurationError("addresses() names no network: use addresses('10.0.0.0/8')")
        if isinstance(proxies, bool) or proxies not in range(101):
            raise ConfigurationError(f"proxies is {quote(proxies)}: use the number of trusted proxies, 0 or more")
        self._networks, self._proxies = tuple(map(_parse_network, networks)), proxies
        # Not a lock in Python: the child of a fork could inherit it locked.
        self._contains_known = functools.lru_cache(1024)(self._contains)

    def __call__(self, request: Request) -> bool:
        """Return whether a request comes from one of the networks."""
        client = request.client if self._proxies == 0 else self._read_forwarded(request)
        return client is not None and len(client) <= _LONGEST_ADDRESS and self._contains_known(client)

    def __repr__(self) -> str:
        """Show the networks."""
        return f"addresses({', '.join(repr(str(it)) for it in self._networks)}, proxies={self._proxies})"

    def _read_forwarded(self, request: Request) -> str | None:
        """Return the address that the outermost trusted proxy saw. Clients can write all that is left of it."""
        entries = [it.strip() for it in request.headers.get("x-forwarded-for", "").split(",")[-self._proxies :]]
        return entries[0] if len(entries) == self._proxies and all(entries) else None

    def _contains(self, client: str) -> bool:
        try:
            found = ipaddress.ip_address(client)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)


def _parse_network(given: object) -> Network:
    if not isinstance(given, str):
        raise ConfigurationError(f"addresses() holds {quote(given)}: use str, such as '10.0.0.0/8'")
    try:
        network = ipaddress.ip_network(given, strict=False)
    except ValueError:
        raise ConfigurationError(f"addresses() holds {quote(given)}: use a network, such as '10.0.0.0/8'") from None
    if "/" in given and str(network.network_address) != str(ipaddress.ip_address(given.partition("/")[0])):
        raise ConfigurationError(f"addresses() holds {quote(given)}: use '{network}', or the address without a length")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        plain = ipaddress.ip_address(int(network.network_address) & 0xFFFFFFFF)
        raise ConfigurationError(f"addresses() holds {quote(given)}: use IPv4, '{plain}/{network.prefixlen - 96}'")
    return network


class header_token:  # noqa: N801 - used as a function
    """Admits requests that send a secret value in a header."""

    def __init__(self, name: str, value: str) -> None:
        """Check both. No message shows the value.

        Args:
            name: Of the header, in any case.
            value: The secret, of at least 16 characters.

        Raises:
            ConfigurationError: One is wrong. The message shows how to write it.
        """
        given: object = name
        if not isinstance(given, str) or not _NAME.fullmatch(given):
            raise ConfigurationError("name is not the name of a header: use for example 'X-Ops-Token'")
        if not isinstance(value, str):
            raise ConfigurationError(f"the value of {name} is a {type(value).__name__}: use a str")
        if len(value) < SHORTEST or not _VALUE.fullmatch(value):
            raise ConfigurationError(
                f"the value of {name} is not {SHORTEST} or more printable ASCII characters without blanks: use for "
                "example what secrets.token_urlsafe() returns"
            )
        self._name, self._value = name, value.encode()

    def __call__(self, request: Request) -> bool:
        """Return whether a request sends the value, in a time that does not show how nearly."""
        given = request.headers.get(self._name, "").encode(errors="replace")
        return hmac.compare_digest(given, self._value)

    def __repr__(self) -> str:
        """Show the header, and never its value."""
        return f"header_token({self._name!r}, ...)"

"""Ports on the loopback interface."""

import random
import socket

# Below every platform's ephemeral range: a client that retries against a stopped server can otherwise be given that
# very port as its own, and then connects to itself.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a port on 127.0.0.1 without a listener, which no outgoing connection ever gets."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 32000 on 127.0.0.1")


def accepts(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True

"""A TCP relay in front of a server, to break the network between a client and it."""

import contextlib
import socket
import threading
from typing import Self

from tests.support.ports import free_port


class Relay:
    """Passes bytes between 127.0.0.1:`port` and a server while its context lasts, until it is told to stop."""

    def __init__(self, upstream: int) -> None:
        """Relay to 127.0.0.1:`upstream`; nothing listens before `start`."""
        self.port = free_port()
        self._upstream = upstream
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        """Start to listen."""
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        """End the listener and every connection."""
        self.refuse()

    def pass_(self) -> None:
        """Forward everything, held-back bytes included, and listen again after `refuse`."""
        self._open.set()
        if self._listener is None:
            self._listen()

    def cut(self) -> None:
        """Accept, and forward nothing in either direction, not even an end, as a lost network does."""
        self._open.clear()

    def refuse(self) -> None:
        """End every connection and stop listening, as a live host with a dead server does."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # A close alone leaves the port open for as long as another thread sits in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._end_connections()
        self._open.set()

    def _end_connections(self) -> None:
        with self._lock:
            connections, self._sockets = self._sockets, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def lead_to(self, upstream: int) -> None:
        """End every connection, and relay new ones to another port, as an address that moves to another host."""
        self._upstream = upstream
        self._end_connections()

    def forwards(self, source: socket.socket, chunk: bytes) -> bool:
        """Return whether a chunk goes on to the other side. A relay that loses some overrides this."""
        return True

    @property
    def connections(self) -> int:
        """How many connections are relayed now."""
        with self._lock:
            return len(self._sockets) // 2

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._upstream), timeout=5.0)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        pair = {client, server}
        with self._lock:
            self._sockets |= pair
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        with self._lock:
            self._sockets -= pair
        for one in pair:
            one.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                forwarded = self.forwards(source, chunk)
                self._open.wait()
                if forwarded:
                    sink.sendall(chunk)
        self._open.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

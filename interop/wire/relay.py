"""Relays on loopback that write down what passes through them."""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType
from typing import Self

from interop.wire.pcap import PcapFile

_LOOPBACK = "127.0.0.1"
_MOST = 65536

#: Seconds between looks at whether it is to end.
_TICK = 0.05


class _Relay:
    """A thread that serves one client, from entering the context to leaving it.

    :param server_port: the port on loopback to pass everything on to.
    """

    def __init__(self, server_port: int, capture: PcapFile, kind: socket.SocketKind) -> None:
        self._server = (_LOOPBACK, server_port)
        self._capture = capture
        self._front = socket.socket(socket.AF_INET, kind)
        self._front.bind((_LOOPBACK, 0))
        #: Where the client has to connect to.
        self.port: int = self._front.getsockname()[1]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._front.close()

    def _run(self) -> None:
        raise NotImplementedError


class UdpRelay(_Relay):
    """Passes datagrams between one client and the server."""

    def __init__(self, server_port: int, capture: PcapFile) -> None:
        super().__init__(server_port, capture, socket.SOCK_DGRAM)

    def _run(self) -> None:
        client: tuple[str, int] | None = None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.connect(self._server)
            with selectors.DefaultSelector() as selector:
                selector.register(self._front, selectors.EVENT_READ)
                selector.register(back, selectors.EVENT_READ)
                while not self._ending.is_set():
                    for ready, _ in selector.select(_TICK):
                        if ready.fileobj is self._front:
                            octets, client = self._front.recvfrom(_MOST)
                            self._capture.datagram(octets, by_client=True)
                            back.send(octets)
                        elif client is not None:
                            octets = back.recv(_MOST)
                            self._capture.datagram(octets, by_client=False)
                            self._front.sendto(octets, client)


class TcpRelay(_Relay):
    """Passes one connection on to the server."""

    def __init__(self, server_port: int, capture: PcapFile) -> None:
        super().__init__(server_port, capture, socket.SOCK_STREAM)
        self._front.listen(1)
        self._front.settimeout(_TICK)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                client, _ = self._front.accept()
            except TimeoutError:
                continue
            with client, socket.create_connection(self._server) as server:
                self._capture.opened()
                self._pass_on(client, server)
            return

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, (server, True))
            selector.register(server, selectors.EVENT_READ, (client, False))
            while selector.get_map() and not self._ending.is_set():
                for ready, _ in selector.select(_TICK):
                    other, by_client = ready.data
                    source = client if by_client else server
                    try:
                        octets = source.recv(_MOST)
                        self._capture.sent(octets, by_client=by_client)
                        if octets:
                            other.sendall(octets)
                        else:
                            selector.unregister(source)
                            other.shutdown(socket.SHUT_WR)
                    except OSError:
                        # One end has gone without reading to the end, as clients may.
                        return

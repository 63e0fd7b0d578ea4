"""Capture files, written without a network interface or a privilege to listen on one.

What is written is what travelled; the IP, UDP and TCP headers around it are made up, with the
server on a well-known port, so that dissectors know what to expect there.
"""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_MAGIC, _VERSION, _SNAPLEN = 0xA1B2C3D4, (2, 4), 262144

#: Packets begin with their IP header.
_LINKTYPE_RAW = 101

_TCP, _UDP = 6, 17
_FIN, _SYN, _ACK = 0x01, 0x02, 0x10

_CLIENT = bytes((127, 0, 0, 1))
_SERVER = bytes((127, 0, 0, 2))
_CLIENT_PORT = 50000

#: Octets of one TCP segment; an IP packet has room for no more than 65535.
_SEGMENT = 16384


class PcapFile:
    """A capture file of one conversation; any thread may write.

    :param file: where it goes.
    :param server_port: the port that the server is to have in it.
    """

    def __init__(self, file: Path, *, server_port: int) -> None:
        self._path = file
        self._port = server_port
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        #: The next sequence number of the client and of the server.
        self._sequence = {True: 1000, False: 5000}

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        header = struct.pack("!IHHiIII", _MAGIC, *_VERSION, 0, 0, _SNAPLEN, _LINKTYPE_RAW)
        self._file.write(header)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            assert self._file is not None
            self._file.close()
            self._file = None

    def datagram(self, octets: bytes, *, by_client: bool) -> None:
        """Write a UDP datagram."""
        head = struct.pack("!HHHH", *self._ports(by_client), 8 + len(octets), 0)
        with self._lock:
            self._packet(_UDP, head + octets, by_client)

    def opened(self) -> None:
        """Write the three packets that open a TCP connection."""
        with self._lock:
            self._segment(b"", _SYN, by_client=True)
            self._sequence[True] += 1
            self._segment(b"", _SYN | _ACK, by_client=False)
            self._sequence[False] += 1
            self._segment(b"", _ACK, by_client=True)

    def sent(self, octets: bytes, *, by_client: bool) -> None:
        """Write what one end of a TCP connection sent; nothing means that it sends no more."""
        with self._lock:
            for start in range(0, len(octets), _SEGMENT):
                piece = octets[start : start + _SEGMENT]
                self._segment(piece, _ACK, by_client=by_client)
                self._sequence[by_client] += len(piece)
            if not octets:
                self._segment(b"", _FIN | _ACK, by_client=by_client)
                self._sequence[by_client] += 1

    def _segment(self, octets: bytes, flags: int, *, by_client: bool) -> None:
        numbers = self._sequence[by_client], self._sequence[not by_client] if flags & _ACK else 0
        ports = self._ports(by_client)
        head = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, 65535, 0, 0)
        self._packet(_TCP, head + octets, by_client)

    def _packet(self, protocol: int, payload: bytes, by_client: bool) -> None:
        if self._file is None:
            return
        length = 20 + len(payload)
        ends = (_CLIENT, _SERVER) if by_client else (_SERVER, _CLIENT)
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0x4000, 64, protocol, 0, *ends)
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        stamp = struct.pack("!IIII", seconds, nanoseconds // 1000, length, length)
        self._file.write(stamp + head + payload)

    def _ports(self, by_client: bool) -> tuple[int, int]:
        return (_CLIENT_PORT, self._port) if by_client else (self._port, _CLIENT_PORT)

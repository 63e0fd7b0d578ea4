"""The server's UDP socket: all that waits is read, what the kernel does not take waits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from est_protocol.secure_channel.udp import UdpTransport, transport_on, udp_transport


class Recorder(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.errors: list[Exception] = []
        self.closed = asyncio.get_running_loop().create_future()
        self.came = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)
        self.came.set()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(exc)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.received) < count:
                self.came.clear()
                await self.came.wait()


class FullSocket(socket.socket):
    """A socket that takes nothing until it is told to."""

    full = True

    def sendto(self, *arguments: Any) -> int:
        if self.full:
            raise BlockingIOError
        return super().sendto(*arguments)


@contextmanager
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


async def test_reads_more_than_one_wake_ups_worth() -> None:
    recorder = Recorder()
    transport = await udp_transport(recorder, local=("127.0.0.1", 0), remote=None)
    with peer() as sender:
        sent = [bytes([number]) * (number + 1) for number in range(100)]
        for datagram in sent:
            sender.sendto(datagram, transport.get_extra_info("sockname"))
        await recorder.wait_for(len(sent))
    assert recorder.received == sent
    transport.close()
    await recorder.closed


async def test_an_empty_datagram_is_a_datagram() -> None:
    recorder = Recorder()
    transport = await udp_transport(recorder, local=("127.0.0.1", 0), remote=None)
    with peer() as sender:
        sender.sendto(b"", transport.get_extra_info("sockname"))
        await recorder.wait_for(1)
    transport.close()
    await recorder.closed


async def test_nothing_is_received_once_it_closes() -> None:
    class Closing(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            transport.close()

    recorder = Closing()
    transport = await udp_transport(recorder, local=("127.0.0.1", 0), remote=None)
    with peer() as sender:
        for _ in range(3):
            sender.sendto(b"x", transport.get_extra_info("sockname"))
        await recorder.closed
    assert recorder.received == [b"x"]


def full_socket() -> FullSocket:
    sock = FullSocket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


async def test_what_the_kernel_does_not_take_waits_in_order() -> None:
    recorder, sock = Recorder(), full_socket()
    transport = await transport_on(sock)(recorder, local=None, remote=None)
    assert isinstance(transport, UdpTransport)
    with peer() as receiver:
        transport.sendto(b"one", receiver.getsockname())
        assert transport.get_write_buffer_size() == 3
        sock.full = False
        transport.sendto(b"two", receiver.getsockname())
        assert transport.get_write_buffer_size() == 6
        transport.close()
        await recorder.closed
        assert [receiver.recv(10), receiver.recv(10)] == [b"one", b"two"]
    assert sock.fileno() == -1


@pytest.mark.parametrize("closing", [False, True])
async def test_aborting_drops_what_waits(closing: bool) -> None:
    recorder, sock = Recorder(), full_socket()
    transport = await transport_on(sock)(recorder, local=None, remote=None)
    with peer() as receiver:
        transport.sendto(b"one", receiver.getsockname())
        if closing:
            transport.close()
        transport.abort()
        await recorder.closed
    assert transport.is_closing()
    assert sock.fileno() == -1


async def test_an_address_that_cannot_be_sent_to_is_reported() -> None:
    recorder = Recorder()
    transport = await udp_transport(recorder, local=("127.0.0.1", 0), remote=None)
    transport.sendto(b"x", ("255.255.255.255", 9))
    assert [type(error) for error in recorder.errors] == [PermissionError]
    transport.close()
    await recorder.closed


async def test_an_address_in_use_is_an_error() -> None:
    with peer() as other, pytest.raises(OSError, match="in use"):
        await udp_transport(Recorder(), local=other.getsockname(), remote=None)

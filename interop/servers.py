"""Which servers ``est-client`` plays the shared scenarios with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interop.by_openssl import OpenSsl
from interop.client_peer import CannotPlay, Credentials, User
from interop.devices import Device
from interop.libest.server import EstServer
from interop.operators import PASSWORD, USER
from interop.server import ServerUnderTest
from interop.server_peer import Mode, Served, ServerPeer
from interop.transcript import Transcript

Make = Callable[[ServerUnderTest, Device, Transcript, OpenSsl, Path], ServerPeer]


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the matrix.

    :param name: as ``pytest -k`` knows it.
    :param make: sets it up; skips the test where the peer is not installed.
    :param transport: ``HTTPS`` or ``CoAPS``.
    """

    name: str
    make: Make
    transport: str = "HTTPS"


class EstServerOfOurs:
    """``est-server``, so that the scenarios are played where no other server is installed."""

    def __init__(self, server: ServerUnderTest, device: Device, home: Path, *, coaps: bool) -> None:
        self._server = server
        self._device = device
        self._home = home
        self._coaps = coaps

    @contextmanager
    def serve(self, mode: Mode) -> Iterator[Served]:
        if self._coaps and mode in (Mode.BASIC, Mode.DIGEST):
            raise CannotPlay("there is no HTTP authentication on CoAP")
        server = self._server
        url = f"{server.coaps if self._coaps else server.https}/.well-known/est"
        label = _LABELS.get(mode)
        born = Credentials(self._device.short_birth_certificate, self._device.key)
        yield Served(
            f"{url}/{label}" if label else url,
            ca=self._server.ca,
            issuer=self._issuer(),
            credentials=born,
            user=User(USER, PASSWORD),
        )

    def _issuer(self) -> Path:
        """Both CA certificates in one file."""
        issuing = self._server.directory / "ca" / "issuing.pem"
        both = self._home / "issuers.pem"
        both.write_bytes(self._server.ca.read_bytes() + issuing.read_bytes())
        return both

    def revoke(self, certificate: Path) -> None:
        raise CannotPlay("revocation is not there yet")


_LABELS = {
    Mode.WISHES: "wishes",
    Mode.BASIC: "basic",
    Mode.DIGEST: "digest-md5",
    Mode.LINKED: "linked",
    Mode.ATTRIBUTES: "wishes",
    Mode.MANUAL: "manual",
    Mode.KEY_GENERATION: "keygen",
    Mode.LABEL: "second",
}


def _ours(
    server: ServerUnderTest,
    device: Device,
    transcript: Transcript,
    openssl: OpenSsl,
    home: Path,
    *,
    coaps: bool = False,
) -> ServerPeer:
    return EstServerOfOurs(server, device, home, coaps=coaps)


def _libest(
    server: ServerUnderTest,
    device: Device,
    transcript: Transcript,
    openssl: OpenSsl,
    home: Path,
    *,
    coap: bool = False,
) -> ServerPeer:
    return EstServer(home, device, transcript, openssl, coap=coap)


SERVERS = (
    Server("est-server", _ours),
    Server("est-server-coaps", partial(_ours, coaps=True), "CoAPS"),
    Server("libest-estserver", _libest),
    Server("libest-estserver-coap", partial(_libest, coap=True), "CoAPS"),
)

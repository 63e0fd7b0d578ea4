"""Which servers ``est-client`` plays the shared scenarios with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interop.by_openssl import OpenSsl
from interop.described_server import DescribedServer
from interop.devices import Device
from interop.libest.server import EstServer
from interop.operators import PASSWORD, USER
from interop.server import ServerUnderTest
from interop.server_peer import Mode, ServerPeer
from interop.transcript import Transcript

#: Names a file that describes one more server, see :mod:`interop.described_server`.
OWN_SERVER = "EST_INTEROP_SERVER"

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


#: The label of ``labels.toml`` for each mode that is not what ``est-server`` does by itself.
_LABELS = {
    Mode.BASIC: "basic",
    Mode.DIGEST: "digest-md5",
    Mode.LINKED: "linked",
    Mode.WISHES: "wishes",
    Mode.ATTRIBUTES: "wishes",
    Mode.MANUAL: "manual",
    Mode.KEY_GENERATION: "keygen",
    Mode.LABEL: "second",
}


def _ours(
    server: ServerUnderTest, device: Device, transcript: Transcript, openssl: OpenSsl, home: Path
) -> ServerPeer:
    """``est-server``, so that the scenarios are played where no other server is installed."""
    (home / "server.toml").write_text(_description(server, device, home))
    return DescribedServer.read(home / "server.toml")


def _description(server: ServerUnderTest, device: Device, home: Path) -> str:
    issuing = server.directory / "ca" / "issuing.pem"
    (home / "issuers.pem").write_bytes(server.ca.read_bytes() + issuing.read_bytes())
    lines = [
        "[server]",
        f'url = "{server.https}"',
        f'ca = "{server.ca}"',
        'issuer = "issuers.pem"',
        f'key = "{device.key}"',
        f'certificate = "{device.short_birth_certificate}"',
        f'user = "{USER}"',
        f'password = "{PASSWORD}"',
    ]
    for mode in Mode:
        lines.append(f"[{mode.value}]")
        if mode in _LABELS:
            lines.append(f'url = "{server.https}/.well-known/est/{_LABELS[mode]}"')
    return "\n".join(lines) + "\n"


def _own(
    server: ServerUnderTest, device: Device, transcript: Transcript, openssl: OpenSsl, home: Path
) -> ServerPeer:
    return DescribedServer.read(Path(os.environ[OWN_SERVER]))


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
    Server("libest-estserver", _libest),
    Server("libest-estserver-coap", partial(_libest, coap=True), "CoAPS"),
)


def servers() -> list[Server]:
    """All of them, and yours if the environment describes it."""
    return [*SERVERS, Server("own", _own)] if os.environ.get(OWN_SERVER) else list(SERVERS)

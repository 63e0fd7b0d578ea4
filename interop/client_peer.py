"""A client that other people wrote, as the shared scenarios want it.

To run the scenarios with a client of yours, write a class with these methods, and name it in the
environment variable ``EST_INTEROP_CLIENT``; see ``docs/how-to/run-the-interop-scenarios.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from interop.by_openssl import OpenSsl
from interop.transcript import Transcript


class CannotPlay(Exception):
    """What a scenario asks for is not to be had of this peer; the message says why."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate to authenticate with in the handshake: PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class User:
    """A user to authenticate as over HTTP."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Order:
    """What to ask for, and as whom.

    :param key: PEM file with the private key to certify.
    :param common_name: of the CSR's subject.
    :param credentials: the client certificate, if there is one.
    :param user: the user, if there is one.
    :param label: the path segment, if there is one.
    :param linked: put the channel binding into the CSR (RFC 7030 section 3.5).
    :param spoiled: make the CSR's signature wrong.
    :param renames: whether ``common_name`` is another than that of ``credentials``.
    :param challenge: what the challengePassword says in place of the channel binding.
    """

    key: Path
    common_name: str = "any"
    credentials: Credentials | None = None
    user: User | None = None
    label: str | None = None
    linked: bool = False
    spoiled: bool = False
    renames: bool = False
    challenge: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    :param certificate: PEM file with the certificate; ``None`` if there is none.
    :param key: PEM file with the private key that the server made, where it did.
    :param pending: whether the peer understood that the answer is "not yet".
    :param text: everything that the peer said.
    """

    certificate: Path | None
    text: str
    key: Path | None = None
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Bench:
    """What a peer works with.

    :param https: URL of the server over HTTPS, such as ``https://localhost:8443``.
    :param coaps: its URL over CoAPS.
    :param ca: PEM file with the root of the server's certificate.
    :param directory: a place for the peer's files.
    :param openssl: makes keys and CSRs for peers that make none themselves.
    """

    https: str
    coaps: str
    ca: Path
    directory: Path
    transcript: Transcript
    openssl: OpenSsl

    @property
    def https_port(self) -> int:
        """The port in :attr:`https`."""
        return int(self.https.rpartition(":")[2])

    def csr(self, order: Order) -> Path:
        """The CSR in DER that ``order`` is for, where the peer does not make its own.

        :raises CannotPlay: nobody but the peer can link it to the peer's channel.
        """
        if order.linked:
            raise CannotPlay("does not tell the channel binding, and cannot put it into a CSR")
        csr = self.openssl.make_csr(
            order.key, order.common_name, challenge_password=order.challenge
        )
        return self.openssl.tamper(csr) if order.spoiled else csr


class ClientPeer(Protocol):
    """A client; every method raises :class:`CannotPlay` for what the peer cannot do."""

    def ca_certificates(self, credentials: Credentials | None, label: str | None) -> list[Path]:
        """Fetch the CA certificates: PEM files, one certificate each."""
        ...

    def csr_attributes(self, credentials: Credentials | None, label: str | None) -> bytes:
        """Fetch the CSR attributes: DER."""
        ...

    def enroll(self, order: Order) -> Outcome:
        """Ask for a certificate at /simpleenroll."""
        ...

    def renew(self, order: Order) -> Outcome:
        """Ask for a certificate at /simplereenroll."""
        ...

    def generate_key(self, order: Order) -> Outcome:
        """Ask for a key and its certificate at /serverkeygen."""
        ...

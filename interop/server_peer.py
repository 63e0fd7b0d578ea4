"""A server that other people wrote, as the shared scenarios want it.

To run the scenarios against a server of yours, describe it in a TOML file and name the file in the
environment variable ``EST_INTEROP_SERVER``; see ``docs/how-to/run-the-interop-scenarios.md``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from interop.client_peer import Credentials, User


class Mode(StrEnum):
    """What a scenario wants the server to ask of its clients."""

    CERTIFICATE = "certificate"
    BASIC = "basic"
    DIGEST = "digest"
    EITHER = "either"
    LINKED = "linked"
    #: Say what should be in a CSR, and take others too.
    WISHES = "wishes"
    #: Take no CSR without it.
    ATTRIBUTES = "attributes"
    MANUAL = "manual"
    KEY_GENERATION = "key-generation"
    LABEL = "label"
    REVOCATION = "revocation"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that listens.

    :param url: as ``est-client --url`` takes it.
    :param ca: PEM file with the root of the server's certificate.
    :param issuer: PEM file with what the certificates that it issues chain to.
    :param credentials: a certificate that it takes at a first enrollment.
    :param user: a user that it knows.
    :param patience: seconds before a CoAP message is repeated, where the usual two are too few for
        the server to make a key.
    :param inside: words in front of a command, to run it where the server can be reached.
    """

    url: str
    ca: Path
    issuer: Path
    credentials: Credentials
    user: User
    inside: tuple[str, ...] = ()
    patience: str = ""


class ServerPeer(Protocol):
    """A server."""

    def serve(self, mode: Mode) -> AbstractContextManager[Served]:
        """Let it listen, and ask for what ``mode`` says.

        :raises CannotPlay: it cannot.
        """
        ...

    def revoke(self, certificate: Path) -> None:
        """Revoke a certificate that it issued, before :meth:`serve`.

        :raises CannotPlay: it cannot.
        """
        ...

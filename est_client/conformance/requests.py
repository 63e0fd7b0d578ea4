"""Certification requests, as they should be and as they should not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.name import _ASN1Type

from est_client.conformance.rows import NotApplicable
from est_protocol import pkcs10
from est_protocol.credentials import PeerCredentials
from est_protocol.csr_attributes import ExtensionTemplate
from est_protocol.keys import SigningKey
from est_protocol.oid_names import CHALLENGE_PASSWORD
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for a certificate.

    :param operation: /simpleenroll or /simplereenroll.
    :param credentials: what the client presents in the handshake; ``None`` for nothing.
    :param key: the key to certify.
    :param subject: the name to ask for.
    :param names: the subjectAltName entries to ask for.
    """

    operation: Operation
    credentials: LocalCredentials | None
    key: SigningKey
    subject: x509.Name
    names: tuple[x509.GeneralName, ...] = ()


#: Makes the DER of a CSR for one channel.
CsrMaker = Callable[[PeerCredentials, Wish], bytes]


def linked(server: PeerCredentials, wish: Wish) -> bytes:
    """As RFC 7030 section 3.5 wants it: linked to the channel, if that has a binding."""
    if server.channel_binding is None:
        return unlinked(server, wish)
    return challenge(binding_text(server))(server, wish)


def unlinked(server: PeerCredentials, wish: Wish) -> bytes:
    """Without POP linking."""
    return challenge(None)(server, wish)


def tampered(server: PeerCredentials, wish: Wish) -> bytes:
    """With a signature that is off by one bit."""
    der = bytearray(linked(server, wish))
    der[-1] ^= 1
    return bytes(der)


def binding_text(server: PeerCredentials) -> str:
    """The base64 of the binding of a channel.

    :raises NotApplicable: it has none that is safe to link to.
    """
    if server.channel_binding is None:
        raise NotApplicable("the server does not negotiate extended master secret")
    return server.channel_binding.challenge_password()


def challenge(text: str | None, *, printable: bool = False) -> CsrMaker:
    """A CSR with this challengePassword, whatever the channel is.

    :param text: ``None`` for no challengePassword.
    :param printable: as PrintableString instead of UTF8String (RFC 2985 section 5.4.1).
    """

    def make(_server: PeerCredentials, wish: Wish) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(wish.subject)
        if wish.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(wish.names), critical=False)
        if text is not None:
            builder = builder.add_attribute(
                x509.ObjectIdentifier(CHALLENGE_PASSWORD),
                text.encode(),
                _tag=_ASN1Type.PrintableString if printable else None,
            )
        csr = builder.sign(wish.key, pkcs10.signature_hash(wish.key))
        return pkcs10.CertificationRequest(csr).der

    return make


def linked_with(*, extensions: Iterable[x509.ExtensionType]) -> CsrMaker:
    """A linked CSR that asks for extensions, octet for octet."""
    asked = [
        ExtensionTemplate(extension.oid.dotted_string, True, extension.public_bytes())
        for extension in extensions
    ]

    def make(server: PeerCredentials, wish: Wish) -> bytes:
        return pkcs10.build(
            wish.key,
            wish.subject,
            subject_alt_names=wish.names,
            extensions=asked,
            binding=server.channel_binding,
        ).der

    return make

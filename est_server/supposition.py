"""Requests that nobody made, as the service would see them: what ``explain`` asks about.

Neither a handshake nor a signature is there to prove anything, so each says what it takes for
granted. Everything else is left to the service.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from est_protocol import pkcs10
from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.credentials import AnchorSet, PeerCredentials, VerificationFailure
from est_protocol.errors import MessageError
from est_protocol.keys import PublicKey, generate_key, key_kind, spki_sha256
from est_protocol.messages import EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.secure_channel.chain_verification import verify_client_chain
from est_protocol.secure_channel.context import TrustAnchors

#: How long the values of either kind of binding are, in octets.
_BINDINGS = {
    Transport.HTTPS: {12: ChannelBindingType.TLS_UNIQUE, 32: ChannelBindingType.TLS_EXPORTER},
    Transport.COAPS: {12: ChannelBindingType.TLS_UNIQUE},
}
_CHANNELS = {
    Transport.HTTPS: ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    Transport.COAPS: ("DTLSv1.2", "ECDHE-ECDSA-AES128-CCM8"),
}

#: X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
_SELF_SIGNED = VerificationFailure(18, 0, "self-signed certificate")


_HOLDS = "the client proves in the handshake that it holds its certificate's key"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the request is to ask for.

    :param operation: ``None``: a renewal for a certificate of this server, else an enrollment.
    """

    operation: Operation | None
    transport: Transport
    label: str | None


@dataclass(frozen=True, slots=True)
class SupposedPeer(PeerCredentials):
    """A client whose key is known by its hash only.

    :param listed_key: that hash.
    """

    listed_key: bytes | None = None

    @property
    def key_sha256(self) -> bytes | None:
        """SHA-256 (32 octets) of the key that it is supposed to hold."""
        return self.listed_key if self.chain else None


@dataclass(frozen=True, slots=True)
class Supposition:
    """A request that nobody made.

    :param stand_in: the CSR, where nobody has signed one.
    :param client_key: SHA-256 of the key that the client is known by; ``None`` if by none.
    :param key_kind: the kind of key that it asks for, as far as it is known.
    :param assumptions: what is taken for granted, in sentences without a full stop.
    """

    request: EstRequest
    peer: PeerCredentials
    stand_in: CertificationRequest | None
    client_key: bytes | None
    key_kind: str | None
    assumptions: tuple[str, ...]


def suppose_csr(
    body: bytes,
    chain: Sequence[x509.Certificate],
    wanted: Wanted,
    anchors: TrustAnchors,
    now: datetime,
) -> Supposition:
    """The request with ``body`` (DER), by a client with this chain; without one, by a bare key."""
    try:
        csr = CertificationRequest.decode(body)
    except MessageError:
        # The service says what is wrong with it.
        peer, operation = _peer(chain, wanted, anchors, now, binding=None)
        request = EstRequest(operation, wanted.transport, wanted.label, body)
        return Supposition(request, peer, None, peer.key_sha256, None, ())
    binding, assumptions = _binding_of(csr, wanted.transport)
    if not chain and _needs_certificate(csr, wanted):
        chain = (_stand_in_certificate(csr.public_key, now),)
        assumptions.append("the client presents a self-signed certificate for the key of the CSR")
    elif not chain:
        assumptions.append("the client presents no certificate")
    if chain:
        assumptions.append(_HOLDS)
    peer, operation = _peer(chain, wanted, anchors, now, binding)
    request = EstRequest(operation, wanted.transport, wanted.label, body)
    return Supposition(
        request,
        peer,
        None,
        peer.key_sha256 or csr.key_sha256,
        key_kind(csr.public_key),
        tuple(assumptions),
    )


def suppose_certificate(
    chain: Sequence[x509.Certificate], wanted: Wanted, anchors: TrustAnchors, now: datetime
) -> Supposition:
    """A request for the key of the certificate that the client presents, the first of ``chain``."""
    own = chain[0]
    binding = _new_binding(wanted.transport)
    csr = pkcs10.build(generate_key(), own.subject, subject_alt_names=_names(own), binding=binding)
    csr.public_key = own.public_key()
    csr.key_sha256 = spki_sha256(csr.public_key)
    peer, operation = _peer(chain, wanted, anchors, now, binding)
    return Supposition(
        EstRequest(operation, wanted.transport, wanted.label, csr.der),
        peer,
        csr,
        csr.key_sha256,
        key_kind(csr.public_key),
        (_HOLDS, _asks(operation), "the CSR has the names of the certificate"),
    )


def suppose_device(listed_key: bytes | None, wanted: Wanted, now: datetime) -> Supposition:
    """A request of a device that holds a listed key.

    :param listed_key: the key's hash; ``None`` for a device that is not listed.
    """
    key = generate_key()
    binding = _new_binding(wanted.transport)
    csr = pkcs10.build(key, x509.Name([]), binding=binding)
    csr.key_sha256 = listed_key or csr.key_sha256
    presents = wanted.transport is Transport.COAPS or wanted.operation is Operation.SERVERKEYGEN
    protocol, cipher = _CHANNELS[wanted.transport]
    peer = SupposedPeer(
        (_stand_in_certificate(key.public_key(), now),) if presents else (),
        None,
        (_SELF_SIGNED,) if presents else (),
        binding,
        protocol,
        cipher,
        listed_key=csr.key_sha256,
    )
    operation = wanted.operation or Operation.SIMPLEENROLL
    held = "the key that is listed for the device" if listed_key else "a key that is not listed"
    shown = "in a self-signed certificate" if presents else "by the CSR alone"
    return Supposition(
        EstRequest(operation, wanted.transport, wanted.label, csr.der),
        peer,
        csr,
        csr.key_sha256,
        None,
        (
            f"the client holds {held}, and shows it {shown}",
            _asks(operation),
            "the key is of a kind that the label certifies; a list has its hash only",
        ),
    )


def _peer(
    chain: Sequence[x509.Certificate],
    wanted: Wanted,
    anchors: TrustAnchors,
    now: datetime,
    binding: ChannelBinding | None,
) -> tuple[PeerCredentials, Operation]:
    anchor, failures = verify_client_chain(chain, anchors, now=now) if chain else (None, ())
    renews = anchor is AnchorSet.OPERATIONAL
    operation = Operation.SIMPLEREENROLL if renews else Operation.SIMPLEENROLL
    protocol, cipher = _CHANNELS[wanted.transport]
    peer = PeerCredentials(tuple(chain), anchor, failures, binding, protocol, cipher)
    return peer, wanted.operation or operation


def _asks(operation: Operation) -> str:
    """What is taken for granted about a CSR that nobody has signed."""
    rest = "linked to the channel, with whatever /csrattrs asks for"
    if operation is Operation.SERVERKEYGEN:
        return f"the CSR is {rest}, and asks for nothing about the encryption of the key"
    return f"it asks for that very key, in a CSR that is signed with it and {rest}"


def _needs_certificate(csr: CertificationRequest, wanted: Wanted) -> bool:
    """Whether a client without a certificate of its own has to make one to show its key."""
    if wanted.transport is Transport.COAPS or wanted.operation is Operation.SERVERKEYGEN:
        return True
    return not csr.challenges.linking


def _binding_of(
    csr: CertificationRequest, transport: Transport
) -> tuple[ChannelBinding, list[str]]:
    """The binding of a channel that ``csr`` is linked to, if there can be such a channel."""
    for text in csr.challenges.linking.values():
        try:
            value = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            continue
        kind = _BINDINGS[transport].get(len(value))
        if kind is not None:
            return ChannelBinding(kind, value), ["the CSR is linked to the channel it comes over"]
    return _new_binding(transport), []


def _new_binding(transport: Transport) -> ChannelBinding:
    length, kind = max(_BINDINGS[transport].items())
    return ChannelBinding(kind, secrets.token_bytes(length))


def _names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.value)


def _stand_in_certificate(key: PublicKey, now: datetime) -> x509.Certificate:
    """A certificate over ``key``; nobody looks at its signature, which is by another one."""
    name = x509.Name([])
    builder = x509.CertificateBuilder(
        name,
        name,
        key,  # type: ignore[arg-type]
        x509.random_serial_number(),
        now - timedelta(days=1),
        now + timedelta(days=1),
    )
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())

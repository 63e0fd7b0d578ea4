"""From the fingerprint of a CA certificate to a trust database (RFC 7030 section 4.1.1).

Nobody's word is taken for anything here: what comes over the unverified channel is only searched
for the certificate that the operator designated. There is no way back to less than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client.connection import Connector, EstConnection
from est_client.trust import TrustDatabase
from est_protocol.chain import verify_chain
from est_protocol.errors import (
    CertificateRejected,
    ConfigurationError,
    MessageError,
    PeerNotTrusted,
)
from est_protocol.messages import CertificatesResponse, EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors
from est_protocol.trust_anchors import is_ca


@dataclass(frozen=True, slots=True)
class CaFingerprint:
    """SHA-256 over the DER octets of the CA certificate to trust."""

    sha256: bytes

    @classmethod
    def parse(cls, text: str) -> CaFingerprint:
        """Read 64 hex digits, upper or lower case, with or without colons or blanks.

        :raises ConfigurationError: it is something else.
        """
        digits = re.sub(r"[:\s]", "", text)
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
            raise ConfigurationError("a CA fingerprint is a SHA-256 of 64 hex digits")
        return cls(bytes.fromhex(digits))

    def find(self, certificates: Iterable[x509.Certificate]) -> x509.Certificate:
        """The CA certificate with this fingerprint.

        :raises PeerNotTrusted: there is none.
        """
        for certificate in certificates:
            if certificate.fingerprint(hashes.SHA256()) == self.sha256 and is_ca(certificate):
                return certificate
        raise PeerNotTrusted("the server knows no CA certificate with the expected fingerprint")


async def bootstrap(
    connector: Connector,
    fingerprint: CaFingerprint,
    *,
    label: str | None,
    credentials: LocalCredentials | None,
    now: datetime,
) -> TrustDatabase:
    """Fetch the designated CA certificate over a channel that is used for nothing else.

    On HTTPS the channel is provisional, without a client certificate, and carries one GET
    /cacerts. RFC 9148 knows no provisional channel: on CoAPS the server must present the
    designated certificate in its DTLS chain, and nothing at all is requested.

    The caller makes a new channel with the result, verified as any other.

    :param credentials: what the client presents on CoAPS; HTTPS presents nothing.
    :param now: the time at which the chain must be valid.
    :return: an Explicit database of the one designated certificate.
    :raises PeerNotTrusted: the server does not show the designated certificate.
    :raises ChannelError: no answer.
    """
    coaps = connector.transport is Transport.COAPS
    connection = await connector.connect(
        credentials=credentials if coaps else None, anchors=TrustAnchors(), require_trust=False
    )
    try:
        if coaps:
            anchor = _designated_in_handshake(connection, fingerprint, now)
        else:
            anchor = await _designated_in_answer(connection, fingerprint, label)
    finally:
        await connection.close()
    return TrustDatabase(explicit=(anchor,))


async def _designated_in_answer(
    connection: EstConnection, fingerprint: CaFingerprint, label: str | None
) -> x509.Certificate:
    response = await connection.request(EstRequest(Operation.CACERTS, Transport.HTTPS, label))
    if not isinstance(response, CertificatesResponse):
        raise MessageError("the server put off the answer to /cacerts")
    return fingerprint.find(response.certificates)


def _designated_in_handshake(
    connection: EstConnection, fingerprint: CaFingerprint, now: datetime
) -> x509.Certificate:
    chain = connection.server.chain
    anchor = fingerprint.find(chain)
    try:
        verify_chain(chain[0], anchors=(anchor,), intermediates=chain, now=now)
    except CertificateRejected as error:
        raise PeerNotTrusted(str(error)) from error
    return anchor

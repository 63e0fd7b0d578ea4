"""What the secure channel learned about the peer: values only, no verdict on their worth.

The channel proves possession of a key; the identity layer of each end decides what the
certificate around that key is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.channel_binding import ChannelBinding
from est_protocol.keys import spki_sha256


class AnchorSet(StrEnum):
    """The kinds of trust anchors that a peer's chain may end at.

    A server distinguishes ``MANUFACTURER`` (birth certificates, RFC 7030's "third-party"
    certificates) from ``OPERATIONAL`` (issued by this EST CA); a client distinguishes its
    ``EXPLICIT`` from its ``IMPLICIT`` TA database (RFC 7030 section 3.1).
    """

    MANUFACTURER = "manufacturer"
    OPERATIONAL = "operational"
    EXPLICIT = "explicit"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class VerificationFailure:
    """One reason why a presented chain did not verify.

    :param code: OpenSSL's ``X509_V_ERR_*`` number.
    :param depth: position in the chain, 0 for the peer's own certificate.
    :param text: OpenSSL's words for the code.
    """

    code: int
    depth: int
    text: str

    #: X509_V_ERR_CERT_HAS_EXPIRED; the one failure that a policy may forgive.
    EXPIRED = 10

    @property
    def is_expiry(self) -> bool:
        """Whether this failure says only that a certificate is past its notAfter."""
        return self.code == self.EXPIRED


# Without slots: the hashes are asked for time and again on the way of one request, and kept.
@dataclass(frozen=True)
class PeerCredentials:
    """The peer of one established (D)TLS channel.

    Possession of the private key of ``chain[0]`` has been proved in the handshake, to this end or
    to ``terminated_by``. Whether the chain is worth anything is in ``anchor_set`` and
    ``failures``:

    - ``chain`` empty: the peer presented no certificate;
    - ``anchor_set`` set and ``failures`` empty: the chain verified against that set;
    - ``failures`` not empty: it did not verify, or only if those failures are forgiven, in which
      case ``anchor_set`` says against which set (``None`` where no anchor was reached at all).

    :param chain: certificates as presented, the peer's own first.
    :param anchor_set: the set of the anchor at which the chain ended, or ``None``.
    :param failures: every verification failure, in the order in which it was found.
    :param channel_binding: the binding of this channel (RFC 7030 section 3.5), or ``None`` where
        there is none to rely on: the channel ends at somebody else, such as a TLS-terminating
        proxy, or is (D)TLS 1.2 without the extended master secret (RFC 7627).
    :param protocol: such as ``TLSv1.3`` or ``DTLSv1.2``.
    :param cipher: OpenSSL's name of the cipher suite.
    :param address: the peer's address and port, for logs.
    :param terminated_by: who ended the channel in this end's place and says all this of it, such
        as a TLS-terminating proxy (RFC 9440); empty if the channel ends here.
    """

    chain: tuple[x509.Certificate, ...] = ()
    anchor_set: AnchorSet | None = None
    failures: tuple[VerificationFailure, ...] = ()
    channel_binding: ChannelBinding | None = None
    protocol: str = ""
    cipher: str = ""
    address: str = ""
    terminated_by: str = ""

    @property
    def certificate(self) -> x509.Certificate | None:
        """The peer's own certificate, or ``None`` if it presented none."""
        return self.chain[0] if self.chain else None

    @property
    def is_verified(self) -> bool:
        """Whether the chain verified against an anchor without any failure."""
        return self.anchor_set is not None and not self.failures

    @cached_property
    def key_sha256(self) -> bytes | None:
        """SHA-256 (32 octets) of the SubjectPublicKeyInfo that the peer proved to hold."""
        return spki_sha256(self.chain[0].public_key()) if self.chain else None

    @cached_property
    def certificate_sha256(self) -> bytes | None:
        """SHA-256 (32 octets) over the DER of the peer's own certificate."""
        return self.chain[0].fingerprint(hashes.SHA256()) if self.chain else None

    def why_unverified(self) -> str:
        """The verification failures as one line of text, for logs and refusals."""
        return "; ".join(f"{f.text} (depth {f.depth})" for f in self.failures) or "no failure"

"""The certificates of a channel's peer, from OpenSSL's objects to ``cryptography``'s.

Converting one takes 18 us, hashing it where it is takes 1, and some come three times: presented,
on the verified path, and among the anchors. Here each is converted once, and anchors never.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from OpenSSL import SSL, crypto

from est_protocol.credentials import AnchorSet
from est_protocol.secure_channel.bindings import sha256_of
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.x509_decoding import check_names_and_key


@dataclass(frozen=True, slots=True)
class PeerCertificates:
    """What the peer presented and what was made of it.

    :param presented: as presented, the peer's own first; empty if there are none.
    :param path: from the peer's own towards an anchor, as far as OpenSSL got.
    :param anchor_set: the set of the anchor that the path ends at, or ``None``.
    """

    presented: tuple[x509.Certificate, ...] = ()
    path: tuple[x509.Certificate, ...] = ()
    anchor_set: AnchorSet | None = None

    @classmethod
    def of(cls, connection: SSL.Connection, anchors: TrustAnchors) -> PeerCertificates:
        """Those of an established connection; to be called in
        :func:`~est_protocol.x509_decoding.decoding_x509`."""
        own = connection.get_peer_certificate()
        if own is None:
            return cls()
        converter = _Converter(anchors)
        converted = converter.convert(own)
        check_names_and_key(converted)
        # A server's view of the chain leaves the client's own certificate out, a client's does
        # not.
        rest = [converter.convert(other) for other in connection.get_peer_cert_chain() or ()]
        presented = (converted, *(rest[1:] if rest and rest[0] == converted else rest))
        verified = connection.get_verified_chain()
        if not verified:
            return cls(presented, presented)
        path = tuple([converter.convert(step) for step in verified])
        anchor = anchors.find(sha256_of(verified[-1]))
        return cls(presented, path, anchor[0] if anchor is not None else None)


class _Converter:
    def __init__(self, anchors: TrustAnchors) -> None:
        self._anchors = anchors
        self._converted: dict[bytes, x509.Certificate] = {}

    def convert(self, certificate: crypto.X509) -> x509.Certificate:
        sha256 = sha256_of(certificate)
        known = self._converted.get(sha256)
        if known is None:
            anchor = self._anchors.find(sha256)
            known = anchor[1] if anchor is not None else certificate.to_cryptography()
            self._converted[sha256] = known
        return known

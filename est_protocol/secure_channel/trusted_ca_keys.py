"""Which CAs a client trusts, told in its ClientHello (RFC 6066 section 6).

    struct {
        TrustedAuthority trusted_authorities_list<0..2^16-1>;
    } TrustedAuthorities;

    struct {
        IdentifierType identifier_type;     1 octet; x509_name is 2
        select (identifier_type) { case x509_name: DistinguishedName; } identifier;
    } TrustedAuthority;

    opaque DistinguishedName<1..2^16-1>;

A client of EST sends it once its Explicit TA database has taken the place of the Implicit one, so
that a server with several certificates can choose (RFC 7030 section 4.1.3). TLS 1.3 has another
extension for that, ``certificate_authorities``, which OpenSSL does not send.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509

EXTENSION_TYPE = 3

_X509_NAME = b"\x02"

#: Names that are told at most: a ClientHello that does not fit one segment is lost with either.
_MOST_NAMES = 8


def encode(anchors: Iterable[x509.Certificate]) -> bytes:
    """The extension's octets for the names of ``anchors``; the first eight, each once."""
    names = list(dict.fromkeys(anchor.subject.public_bytes() for anchor in anchors))
    return _vector(b"".join(_X509_NAME + _vector(name) for name in names[:_MOST_NAMES]))


def _vector(octets: bytes) -> bytes:
    return len(octets).to_bytes(2, "big") + octets

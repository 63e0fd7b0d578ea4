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
extension for that, ``certificate_authorities``, which pyOpenSSL has no way to send.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509

EXTENSION_TYPE = 3

_X509_NAME = b"\x02"

#: How many names are told at most, and the octets of the longest: a ClientHello stays a small one.
_MOST_NAMES, _LONGEST_NAME = 8, 256


def encode(anchors: Iterable[x509.Certificate]) -> bytes:
    """The extension's octets for the names of ``anchors``: each once, the first eight that are not
    longer than 256 octets."""
    every = dict.fromkeys(anchor.subject.public_bytes() for anchor in anchors)
    names = [name for name in every if len(name) <= _LONGEST_NAME]
    return _vector(b"".join(_X509_NAME + _vector(name) for name in names[:_MOST_NAMES]))


def _vector(octets: bytes) -> bytes:
    return len(octets).to_bytes(2, "big") + octets

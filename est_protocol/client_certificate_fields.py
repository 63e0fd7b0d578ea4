"""The header fields in which a TLS-terminating proxy conveys a client's certificate (RFC 9440).

RFC 8941 sections 3.1 and 3.3.5::

    Client-Cert       = sf-binary
    Client-Cert-Chain = sf-list            ; of sf-binary
    sf-binary         = ":" *(base64) ":"

Read strictly: base64 in its canonical form, nothing beside it, no parameters.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.errors import MessageError
from est_protocol.x509_decoding import check_names_and_key, decoding_x509

CLIENT_CERT = "client-cert"
CLIENT_CERT_CHAIN = "client-cert-chain"

#: Octets of one certificate; the largest that are in use have some hundred names.
LARGEST_CERTIFICATE = 16384
#: Certificates of one chain, the client's own included.
LONGEST_CHAIN = 8


def decode_chain(
    certificate: str,
    issuers: str | None,
    *,
    largest: int = LARGEST_CERTIFICATE,
    longest: int = LONGEST_CHAIN,
) -> tuple[x509.Certificate, ...]:
    """The chain that a client presented, its own certificate first.

    :param certificate: value of Client-Cert.
    :param issuers: value of Client-Cert-Chain, ``None`` without one.
    :param largest: octets that one certificate may have.
    :param longest: certificates that the chain may have.
    :raises MessageError: a value is malformed or too large, or a certificate does not decode.
    """
    members = [certificate.strip(" ")]
    if issuers is not None:
        members += [member.strip(" \t") for member in issuers.split(",", longest)]
    if len(members) > longest:
        raise MessageError(f"the client's chain has more than {longest} certificates")
    return tuple(_decode_certificate(member, largest) for member in members)


def decode_octets(text: str, *, largest: int) -> bytes:
    """The octets of one byte sequence (RFC 8941 section 3.3.5).

    :param largest: how many there may be.
    :raises MessageError: it is malformed or too large.
    """
    if len(text) < 2 or text[0] != ":" or text[-1] != ":":
        raise MessageError("a byte sequence stands between two colons (RFC 8941)")
    inner = text[1:-1]
    if len(inner) > (largest + 2) // 3 * 4:
        raise MessageError(f"a byte sequence is longer than {largest} octets")
    try:
        octets = base64.b64decode(inner.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise MessageError("a byte sequence is not base64 (RFC 8941)") from error
    if len(octets) > largest:
        raise MessageError(f"a byte sequence is longer than {largest} octets")
    if encode_octets(octets) != text:
        raise MessageError("a byte sequence is not in canonical base64")
    return octets


def encode_octets(octets: bytes) -> str:
    """``octets`` as a byte sequence."""
    return f":{base64.b64encode(octets).decode('ascii')}:"


def encode_chain(chain: Sequence[x509.Certificate]) -> dict[str, str]:
    """The fields for a chain, by their names in lower case; none for an empty one."""
    members = [encode_octets(c.public_bytes(Encoding.DER)) for c in chain]
    fields = {}
    if members:
        fields[CLIENT_CERT] = members[0]
    if members[1:]:
        fields[CLIENT_CERT_CHAIN] = ", ".join(members[1:])
    return fields


def _decode_certificate(member: str, largest: int) -> x509.Certificate:
    der = decode_octets(member, largest=largest)
    with decoding_x509("a certificate of the client's chain"):
        certificate = x509.load_der_x509_certificate(der)
        check_names_and_key(certificate)
    return certificate

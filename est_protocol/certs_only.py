"""The certs-only Simple PKI Response: certificates in a CMS SignedData without signers.

RFC 7030 sections 4.1.3 and 4.2.3, RFC 5272 section 4.1, RFC 5652 section 5.1::

    ContentInfo ::= SEQUENCE { contentType id-signedData, content [0] EXPLICIT SignedData }
    SignedData ::= SEQUENCE {
        version CMSVersion,
        digestAlgorithms SET OF DigestAlgorithmIdentifier,
        encapContentInfo SEQUENCE { eContentType id-data },
        certificates [0] IMPLICIT CertificateSet OPTIONAL,
        crls [1] IMPLICIT RevocationInfoChoices OPTIONAL,
        signerInfos SET OF SignerInfo }
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from est_protocol import der
from est_protocol.der import DerReader
from est_protocol.errors import MessageError
from est_protocol.x509_decoding import decoding_x509

#: Far above a root, its roll-over certificates and a deep chain together.
MAX_CERTIFICATES = 32
#: Fits 32 certificates with post-quantum keys and signatures.
MAX_OCTETS = 256 * 1024

_ID_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_ID_DATA = bytes.fromhex("2a864886f70d010701")
_EXPLICIT_0 = 0xA0
_CERTIFICATES = 0xA0
_CRLS = 0xA1


def encode(certificates: Sequence[x509.Certificate]) -> bytes:
    """The DER certs-only message with ``certificates``, at least one.

    They travel as a SET, in the order that DER prescribes; the order given here is lost.
    """
    return pkcs7.serialize_certificates(list(certificates), Encoding.DER)


def decode(
    message: bytes,
    *,
    max_certificates: int = MAX_CERTIFICATES,
    max_octets: int = MAX_OCTETS,
) -> tuple[x509.Certificate, ...]:
    """The certificates of a certs-only message, at least one, in the order of the message.

    The order means nothing: certificates are a SET, and the examples of RFC 7030 are not even
    sorted as DER demands. CRLs that come along are ignored. Nothing is verified.

    :param message: DER octets.
    :param max_certificates: how many certificates are accepted at most.
    :param max_octets: how long the message may be.
    :raises MessageError: the message is not DER, not certs-only, too large, or a certificate in
        it does not decode.
    """
    if len(message) > max_octets:
        raise MessageError(f"the certs-only message is longer than {max_octets} octets")
    reader = DerReader(_certificate_set(message), "certs-only message")
    found: list[x509.Certificate] = []
    while not reader.at_end:
        if len(found) == max_certificates:
            raise MessageError(f"the message has more than {max_certificates} certificates")
        found.append(decode_certificate(reader.read(der.SEQUENCE, "certificate").encoded))
    if not found:
        raise MessageError("the certs-only message has no certificate in it")
    return tuple(found)


def _certificate_set(message: bytes) -> bytes:
    signed_data = _signed_data(message)
    signed_data.read(der.INTEGER, "version")
    if signed_data.read(der.SET, "digestAlgorithms").content:
        raise MessageError("certs-only message: digestAlgorithms is not empty")
    content_info = DerReader(
        signed_data.read(der.SEQUENCE, "encapContentInfo").content, "certs-only message"
    )
    if content_info.read(der.OBJECT_IDENTIFIER, "eContentType").content != _ID_DATA:
        raise MessageError("certs-only message: eContentType is not id-data")
    if not content_info.at_end:
        raise MessageError("certs-only message: there is an eContent in it")
    certificates = b""
    if signed_data.next_is(_CERTIFICATES):
        certificates = signed_data.read(_CERTIFICATES, "certificates").content
    if signed_data.next_is(_CRLS):
        signed_data.read(_CRLS, "crls")
    if signed_data.read(der.SET, "signerInfos").content:
        raise MessageError("certs-only message: it has signers")
    signed_data.require_end()
    return certificates


def _signed_data(message: bytes) -> DerReader:
    outer = DerReader(message, "certs-only message")
    content_info = DerReader(outer.read(der.SEQUENCE, "ContentInfo").content, "certs-only message")
    outer.require_end()
    if content_info.read(der.OBJECT_IDENTIFIER, "contentType").content != _ID_SIGNED_DATA:
        raise MessageError("certs-only message: contentType is not id-signedData")
    explicit = DerReader(content_info.read(_EXPLICIT_0, "content").content, "certs-only message")
    content_info.require_end()
    signed_data = explicit.read(der.SEQUENCE, "SignedData").content
    explicit.require_end()
    return DerReader(signed_data, "certs-only message")


def decode_certificate(encoded: bytes) -> x509.Certificate:
    """Decode one certificate so far that none of its parts fails later on.

    A key of an unknown kind is let through: in a bag of CA certificates it concerns nobody but
    those who need that key.

    :raises MessageError: it does not decode.
    """
    with decoding_x509("a certificate in the message"):
        certificate = x509.load_der_x509_certificate(encoded)
        for part in ("subject", "issuer", "serial_number", "not_valid_after_utc", "extensions"):
            getattr(certificate, part)
        with suppress(UnsupportedAlgorithm):
            certificate.public_key()
    return certificate

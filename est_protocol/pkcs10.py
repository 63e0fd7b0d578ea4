"""PKCS#10 certification requests (RFC 2986), as EST uses them.

A request is a wish: decoding it and verifying its signature says who holds the key, nothing
else. What may be issued is decided by an authorizer.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID

from est_protocol.channel_binding import ChannelBinding
from est_protocol.errors import MessageError
from est_protocol.keys import PublicKey, SigningKey, spki_sha256

#: ASN.1 tags of the string types a challengePassword may have (RFC 2985 section 5.4.1).
_DIRECTORY_STRING_TAGS = {12: "utf-8", 19: "ascii", 22: "ascii"}


class CertificationRequest:
    """A decoded certification request.

    Build one with :meth:`decode` from network octets; that proves nothing about its signature,
    which :meth:`proves_possession` checks.
    """

    def __init__(self, csr: x509.CertificateSigningRequest) -> None:
        """Take the parts out of ``csr``.

        :raises MessageError: a part does not decode, or its key is of an unknown kind.
        """
        self._csr = csr
        try:
            self.subject = csr.subject
            self.public_key: PublicKey = csr.public_key()
            self.key_sha256 = spki_sha256(self.public_key)
            self.challenge_password = _challenge_password(csr)
            self.subject_alt_names = _subject_alt_names(csr)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
            raise MessageError(f"the certification request does not decode: {error}") from error

    @classmethod
    def decode(cls, der: bytes) -> CertificationRequest:
        """Decode a DER CertificationRequest.

        :raises MessageError: the octets are not one, or its key is of an unknown kind.
        """
        try:
            csr = x509.load_der_x509_csr(der)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise MessageError(f"not a DER PKCS#10 certification request: {error}") from error
        return cls(csr)

    @property
    def der(self) -> bytes:
        """The DER octets."""
        return self._csr.public_bytes(Encoding.DER)

    def proves_possession(self) -> bool:
        """Whether the request is signed with the key that it carries (RFC 7030 section 3.4)."""
        try:
            return self._csr.is_signature_valid
        except (UnsupportedAlgorithm, InvalidSignature, ValueError, TypeError):
            # A signature algorithm that is unknown or does not fit the key proves nothing.
            return False


def _challenge_password(csr: x509.CertificateSigningRequest) -> str | None:
    values = [a for a in csr.attributes if a.oid == AttributeOID.CHALLENGE_PASSWORD]
    if not values:
        return None
    if len(values) > 1:
        raise MessageError("the certification request has two challengePassword attributes")
    encoding = _DIRECTORY_STRING_TAGS.get(values[0]._type)
    if encoding is None:
        raise MessageError("challengePassword is not a PrintableString or UTF8String")
    return str(values[0].value, encoding)


def _subject_alt_names(csr: x509.CertificateSigningRequest) -> tuple[x509.GeneralName, ...]:
    try:
        extension = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(extension.value)


def build(
    key: SigningKey,
    subject: x509.Name,
    *,
    subject_alt_names: tuple[x509.GeneralName, ...] = (),
    binding: ChannelBinding | None = None,
) -> CertificationRequest:
    """Make a certification request for ``key`` and sign it with ``key``.

    :param binding: the channel to link the request to (RFC 7030 section 3.5).
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if subject_alt_names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(subject_alt_names), critical=not subject.rdns
        )
    if binding is not None:
        builder = builder.add_attribute(
            AttributeOID.CHALLENGE_PASSWORD, binding.challenge_password().encode("ascii")
        )
    return CertificationRequest(builder.sign(key, signature_hash(key)))


def signature_hash(
    key: SigningKey,
) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """The hash that belongs to ``key``'s strength; ``None`` where the scheme has its own."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.key_size <= 256:
            return hashes.SHA256()
        return hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None

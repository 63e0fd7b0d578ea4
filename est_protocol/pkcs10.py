"""PKCS#10 certification requests (RFC 2986), as EST uses them.

A request is a wish: decoding it and verifying its signature says who holds the key, nothing
else. What may be issued is decided by an authorizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from asn1crypto import core
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import change_subject_name, der
from est_protocol.challenge_attributes import ChallengeAttributes
from est_protocol.change_subject_name import ChangeSubjectName
from est_protocol.channel_binding import ChannelBinding
from est_protocol.csr_attributes import ExtensionTemplate
from est_protocol.csr_rewriting import Request, add_attributes
from est_protocol.der import DerReader
from est_protocol.errors import MessageError
from est_protocol.keys import PublicKey, SigningKey, spki_sha256
from est_protocol.oid_names import (
    CHALLENGE_PASSWORD,
    SUBJECT_DIRECTORY_ATTRIBUTES,
    name_of,
)
from est_protocol.signatures import digest_of, sign
from est_protocol.strict_asn1 import decoding, load_der
from est_protocol.x509_decoding import decoding_x509

SignatureHash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None

#: Who can sign by an algorithm, and the hash it takes.
_SIGNERS: dict[str, tuple[type[SigningKey], SignatureHash]] = {
    "1.2.840.10045.4.3.2": (ec.EllipticCurvePrivateKey, hashes.SHA256()),
    "1.2.840.10045.4.3.3": (ec.EllipticCurvePrivateKey, hashes.SHA384()),
    "1.2.840.10045.4.3.4": (ec.EllipticCurvePrivateKey, hashes.SHA512()),
    "1.2.840.113549.1.1.11": (rsa.RSAPrivateKey, hashes.SHA256()),
    "1.2.840.113549.1.1.12": (rsa.RSAPrivateKey, hashes.SHA384()),
    "1.2.840.113549.1.1.13": (rsa.RSAPrivateKey, hashes.SHA512()),
    "1.3.101.112": (ed25519.Ed25519PrivateKey, None),
    "1.3.101.113": (ed448.Ed448PrivateKey, None),
    "2.16.840.1.101.3.4.3.17": (mldsa.MLDSA44PrivateKey, None),
    "2.16.840.1.101.3.4.3.18": (mldsa.MLDSA65PrivateKey, None),
    "2.16.840.1.101.3.4.3.19": (mldsa.MLDSA87PrivateKey, None),
}


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
        with decoding_x509("the certification request"):
            _require_distinct_attributes(csr)
            self.subject = csr.subject
            self.public_key: PublicKey = csr.public_key()
            self.key_sha256 = spki_sha256(self.public_key)
            self.challenges = ChallengeAttributes.of(csr)
            self.subject_alt_names = _subject_alt_names(csr)
            #: The names asked for in place of those (RFC 7030 section 4.2.2), or ``None``.
            self.change_subject_name = change_subject_name.read(csr)
            #: The extensions asked for, by OID.
            self.extensions = _extensions(csr)
            #: OIDs of the attributes of the request.
            self.attributes = frozenset(a.oid.dotted_string for a in csr.attributes)
            #: OID of the algorithm that the request is signed with.
            self.signature_algorithm = csr.signature_algorithm_oid.dotted_string

    @classmethod
    def decode(cls, encoded: bytes) -> CertificationRequest:
        """Decode a DER CertificationRequest.

        The key may be anything that ``cryptography`` knows, weak or odd: which keys are certified
        is the label's profile to say. Its hash is that of the usual encoding, even if an EC point
        came compressed, or a well-known curve with explicit parameters.

        :raises MessageError: the octets are not one, or its key is of an unknown kind.
        """
        with decoding_x509("the certification request"):
            csr = x509.load_der_x509_csr(encoded)
        _require_whole_octets(encoded)
        return cls(csr)

    @property
    def der(self) -> bytes:
        """The DER octets."""
        return self._csr.public_bytes(Encoding.DER)

    @property
    def directory_attributes(self) -> frozenset[str]:
        """OIDs of the attributes in the subjectDirectoryAttributes extension (RFC 5280 section
        4.2.1.8); empty if there are none that can be read."""
        found = self.extensions.get(SUBJECT_DIRECTORY_ATTRIBUTES)
        if found is None or found.value is None:
            return frozenset()
        value = found.value
        try:
            return decoding(
                "subjectDirectoryAttributes",
                lambda: frozenset(str(a["type"].dotted) for a in load_der(_Attributes, value)),
            )
        except MessageError:
            # A wish: what cannot be read is not there.
            return frozenset()

    @property
    def wanted_names(self) -> tuple[x509.Name, tuple[x509.GeneralName, ...]]:
        """Subject and subjectAltName as the requester would like them."""
        change = self.change_subject_name
        if change is None:
            return self.subject, self.subject_alt_names
        alt_names = change.subject_alt_names
        return (
            self.subject if change.subject is None else change.subject,
            self.subject_alt_names if alt_names is None else alt_names,
        )

    def proves_possession(self) -> bool:
        """Whether the request is signed with the key that it carries (RFC 7030 section 3.4).

        A signature over MD5 or SHA-1 proves nothing, so those in RFC 7030 appendix A do not.
        """
        try:
            return self._csr.is_signature_valid
        except (UnsupportedAlgorithm, InvalidSignature, ValueError, TypeError):
            # A signature algorithm that is unknown or does not fit the key proves nothing.
            return False


class _Attribute(core.Sequence):  # type: ignore[misc]
    _fields = [("type", core.ObjectIdentifier), ("values", core.SetOf, {"spec": core.Any})]  # noqa: RUF012


class _Attributes(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Attribute


def _require_whole_octets(encoded: bytes) -> None:
    """Every signature is whole octets, but ``cryptography`` reads over the count of unused bits,
    so that one request would have several encodings with a valid signature."""
    name = "the certification request"
    request = DerReader(DerReader(encoded, name).read(der.SEQUENCE, "its body").content, name)
    request.read(der.SEQUENCE, "certificationRequestInfo")
    request.read(der.SEQUENCE, "signatureAlgorithm")
    if request.read(der.BIT_STRING, "signature").content[:1] != b"\x00":
        raise MessageError("the signature of the certification request is not whole octets")


def _require_distinct_attributes(csr: x509.CertificateSigningRequest) -> None:
    """Of two attributes of one kind, two readers may each believe another one."""
    kinds = set()
    for attribute in csr.attributes:
        kind = attribute.oid.dotted_string
        if kind in kinds:
            raise MessageError(f"the certification request has two {name_of(kind)} attributes")
        kinds.add(kind)


def _extensions(csr: x509.CertificateSigningRequest) -> Mapping[str, ExtensionTemplate]:
    extensions = {}
    for extension in csr.extensions:
        oid = extension.oid.dotted_string
        try:
            value = extension.value.public_bytes()
        except NotImplementedError:
            # Of a kind that cryptography reads but does not write; nobody asks for those.
            value = None
        extensions[oid] = ExtensionTemplate(oid, extension.critical, value)
    return extensions


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
    extensions: Iterable[ExtensionTemplate] = (),
    attributes: Mapping[str, str] = MappingProxyType({}),
    binding: ChannelBinding | None = None,
    linked_by: str = CHALLENGE_PASSWORD,
    algorithm: SignatureHash = None,
    change: ChangeSubjectName | None = None,
) -> CertificationRequest:
    """Make a certification request for ``key`` and sign it with ``key``.

    :param extensions: further extensions, each with its value; no subjectAltName beside
        ``subject_alt_names``.
    :param attributes: texts of further attributes by OID.
    :param binding: the channel to link the request to (RFC 7030 section 3.5).
    :param linked_by: OID of the attribute that the binding goes into; estIdentityLinking is the
        other one that there is (RFC 7894 section 3).
    :param algorithm: the hash to sign with; what belongs to the key's strength by default.
    :param change: the names to ask for in place of the others, which are the current ones.
    :raises ValueError: an extension is there twice, or has no value.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if subject_alt_names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(subject_alt_names), critical=not subject.rdns
        )
    for extension in extensions:
        if extension.value is None:
            raise ValueError(f"the extension {name_of(extension.oid)} has no value")
        # Octet for octet, whatever they mean: a template's values are to be copied.
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(extension.oid), extension.value)
        builder = builder.add_extension(value, critical=extension.critical)
    for oid, text in attributes.items():
        builder = builder.add_attribute(x509.ObjectIdentifier(oid), text.encode())
    if binding is not None:
        builder = builder.add_attribute(
            x509.ObjectIdentifier(linked_by), binding.challenge_password().encode("ascii")
        )
    chosen = algorithm or signature_hash(key)
    csr = builder.sign(key, chosen)
    return CertificationRequest(csr if change is None else _with_change(csr, change, key, chosen))


def _with_change(
    csr: x509.CertificateSigningRequest,
    change: ChangeSubjectName,
    key: SigningKey,
    algorithm: SignatureHash,
) -> x509.CertificateSigningRequest:
    signed = Request.load(csr.public_bytes(Encoding.DER))
    tbs = add_attributes(signed, {change_subject_name.CHANGE_SUBJECT_NAME: change.encode()})
    signed["signature"] = sign(key, tbs, algorithm or digest_of(key))
    return x509.load_der_x509_csr(signed.dump(force=True))


def signature_hash(key: SigningKey) -> SignatureHash:
    """The hash that belongs to ``key``'s strength; ``None`` where the scheme has its own."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.key_size <= 256:
            return hashes.SHA256()
        return hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None


def hash_of_algorithm(key: SigningKey, oids: Iterable[str]) -> SignatureHash:
    """The hash of the first signature algorithm among ``oids`` that ``key`` can sign with.

    :return: ``None`` where the scheme of ``key`` has its own.
    :raises LookupError: there is none among them.
    """
    for oid in oids:
        kind, algorithm = _SIGNERS.get(oid, (None, None))
        if kind is not None and isinstance(key, kind):
            return algorithm
    raise LookupError("no signature algorithm fits the key")

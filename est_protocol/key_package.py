"""A private key in a package that its generator signed (RFC 5958 sections 2 and 4)::

    AsymmetricKeyPackage ::= SEQUENCE SIZE (1..MAX) OF OneAsymmetricKey   -- PKCS#8

inside a CMS SignedData (RFC 5652 section 5) of type id-ct-KP-aKeyPackage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asn1crypto import cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from est_protocol import signatures
from est_protocol.certs_only import decode_certificate
from est_protocol.errors import MessageError
from est_protocol.keys import SigningKey
from est_protocol.strict_asn1 import decoding
from est_protocol.x509_decoding import decoding_x509

ID_KEY_PACKAGE = "2.16.840.1.101.2.1.2.78.5"
ID_SIGNED_DATA = "1.2.840.113549.1.7.2"
_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"

#: Certificates that a package may carry to show who signed it.
MAX_CERTIFICATES = 16
_OBJECT_IDENTIFIER = 0x06


@dataclass(frozen=True, slots=True)
class KeyGenerator:
    """Who generates keys, and signs for it.

    :param key: signs the packages.
    :param chain: its certificate and those above it, which travel along; at least one.
    """

    key: SigningKey
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class SignedKey:
    """A private key, and who signed for it.

    :param key: the key.
    :param signer: the certificate that the signature verified with; whether it is to be trusted
        is for the caller to say.
    :param certificates: all that came along, not trusted.
    """

    key: SigningKey
    signer: x509.Certificate
    certificates: tuple[x509.Certificate, ...]


class _KeyPackage(core.SequenceOf):  # type: ignore[misc]
    _child_spec = core.Any


def encode_private_key(key: SigningKey) -> bytes:
    """The DER PKCS#8 PrivateKeyInfo of ``key`` (RFC 5208), in the clear."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def decode_private_key(octets: bytes) -> SigningKey:
    """The private key in ``octets``: PKCS#8, or SEC1 and PKCS#1 as libest sends them.

    :raises MessageError: there is none, it is encrypted, or it cannot sign.
    """
    try:
        key = load_der_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, OverflowError) as error:
        raise MessageError("the generated key is no readable PKCS#8") from error
    if not isinstance(key, SigningKey):
        raise MessageError("the generated key cannot sign")
    return key


def sign_package(key: SigningKey, generator: KeyGenerator) -> bytes:
    """The DER SignedData, without ContentInfo around it, of ``key`` signed by ``generator``."""
    package = _KeyPackage([core.Any.load(encode_private_key(key))]).dump()
    algorithm = signatures.digest_of(generator.key)
    attributes = cms.CMSAttributes(
        [
            {"type": _CONTENT_TYPE, "values": [cms.ContentType(ID_KEY_PACKAGE)]},
            {"type": _MESSAGE_DIGEST, "values": [core.OctetString(_digest(package, algorithm))]},
        ]
    )
    digest = {"algorithm": signatures.digest_oid(algorithm)}
    signer = cms.SignerInfo(
        {
            "version": "v1",
            "sid": _issuer_and_serial(generator.chain[0]),
            "digest_algorithm": digest,
            "signed_attrs": attributes,
            "signature_algorithm": _signature_algorithm(generator.key, algorithm),
            "signature": signatures.sign(generator.key, attributes.dump(), algorithm),
        }
    )
    signed: bytes = cms.SignedData(
        {
            "version": "v3",
            "digest_algorithms": [digest],
            "encap_content_info": {"content_type": ID_KEY_PACKAGE, "content": package},
            "certificates": [certificate_choice(c) for c in generator.chain],
            "signer_infos": [signer],
        }
    ).dump()
    return signed


def open_package(octets: bytes) -> SignedKey:
    """The key in a signed package, its signature verified.

    :param octets: DER or BER of a SignedData; a ContentInfo around it is tolerated.
    :raises MessageError: it does not decode, has not exactly one key and one signer, or the
        signature does not verify with a certificate that came along.
    """
    return decoding("the fields of the signed key", lambda: _open(octets))


def _open(octets: bytes) -> SignedKey:
    signed = cms.SignedData.load(_without_content_info(octets), strict=True)
    content = signed["encap_content_info"]
    if content["content_type"].dotted != ID_KEY_PACKAGE or len(signed["signer_infos"]) != 1:
        raise MessageError("the signed key is no key package with one signer")
    certificates = _certificates(signed["certificates"])
    package = bytes(content["content"])
    signer = _verify(signed["signer_infos"][0], package, certificates)
    keys = _KeyPackage.load(package, strict=True)
    if len(keys) != 1:
        raise MessageError("the key package has not exactly one key in it")
    return SignedKey(decode_private_key(keys[0].dump()), signer, certificates)


def _without_content_info(octets: bytes) -> bytes:
    fields = core.SequenceOf.load(octets, spec=core.Any, strict=True)
    if len(fields) == 2 and fields[0].dump()[0] == _OBJECT_IDENTIFIER:
        info = cms.ContentInfo.load(octets, strict=True)
        if info["content_type"].dotted != ID_SIGNED_DATA:
            raise MessageError("the encrypted content is no SignedData")
        return bytes(info["content"].untag().dump())
    return octets


def _certificates(choices: Any) -> tuple[x509.Certificate, ...]:
    found = [] if isinstance(choices, core.Void) else list(choices)
    if len(found) > MAX_CERTIFICATES:
        raise MessageError(f"the signed key has more than {MAX_CERTIFICATES} certificates")
    return tuple(decode_certificate(c.chosen.dump()) for c in found if c.name == "certificate")


def _verify(
    info: Any, package: bytes, certificates: Sequence[x509.Certificate]
) -> x509.Certificate:
    algorithm = signatures.DIGEST_OIDS.get(info["digest_algorithm"]["algorithm"].dotted)
    attributes = info["signed_attrs"]
    if algorithm is None or isinstance(attributes, core.Void):
        raise MessageError("the signature of the key package is of an unknown kind")
    values = {a["type"].dotted: [bytes(v.contents) for v in a["values"]] for a in attributes}
    content_type = core.ObjectIdentifier(ID_KEY_PACKAGE).contents
    if (
        len(values) != len(attributes)
        or values.get(_CONTENT_TYPE) != [content_type]
        or values.get(_MESSAGE_DIGEST) != [_digest(package, algorithm)]
    ):
        raise MessageError("the signature is not for this key package")
    # What is signed has the tag of a SET OF (RFC 5652 section 5.4).
    octets = b"\x31" + attributes.dump()[1:]
    signature = info["signature"].native
    for certificate in certificates:
        if _is_of(info["sid"], certificate) and signatures.verifies(
            _public_key(certificate), signature, octets, algorithm
        ):
            return certificate
    raise MessageError("the signature of the key package does not verify")


def _public_key(certificate: x509.Certificate) -> Any:
    try:
        return certificate.public_key()
    except UnsupportedAlgorithm as error:
        raise MessageError("the key package is signed with a key of an unknown kind") from error


def _is_of(sid: Any, certificate: x509.Certificate) -> bool:
    """Whether the SignerIdentifier names ``certificate``."""
    if sid.name == "issuer_and_serial_number":
        return bool(sid.chosen.dump() == issuer_and_serial(certificate).dump())
    with decoding_x509("a certificate"):
        extensions = certificate.extensions
    try:
        ski = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return False
    return bool(ski.digest == sid.chosen.native)


def _digest(octets: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    context = hashes.Hash(algorithm)
    context.update(octets)
    return context.finalize()


def _signature_algorithm(key: SigningKey, algorithm: signatures.Hash) -> dict[str, Any]:
    oid, with_null = signatures.algorithm_oid(key, algorithm)
    return {"algorithm": oid, "parameters": core.Null()} if with_null else {"algorithm": oid}


def _issuer_and_serial(certificate: x509.Certificate) -> cms.SignerIdentifier:
    return cms.SignerIdentifier(
        name="issuer_and_serial_number", value=issuer_and_serial(certificate)
    )


def issuer_and_serial(certificate: x509.Certificate) -> cms.IssuerAndSerialNumber:
    """The IssuerAndSerialNumber (RFC 5652 section 10.2.4) of ``certificate``."""
    encoded = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    body = encoded["tbs_certificate"]
    return cms.IssuerAndSerialNumber(
        {"issuer": body["issuer"], "serial_number": body["serial_number"]}
    )


def certificate_choice(certificate: x509.Certificate) -> cms.CertificateChoices:
    """``certificate`` as a SignedData carries it (RFC 5652 section 10.2.2)."""
    encoded = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    return cms.CertificateChoices(name="certificate", value=encoded)

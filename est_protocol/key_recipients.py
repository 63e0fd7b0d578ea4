"""Who may decrypt a server-generated key, and how the content key reaches them.

RFC 5652 section 6.2; RFC 7030 section 4.4.2 says which kind goes with which key of the client::

    KEKRecipientInfo        a shared symmetric key, by AES key wrap
    KeyTransRecipientInfo   an RSA key
    KeyAgreeRecipientInfo   an EC key, by ephemeral-static ECDH (RFC 5753 section 3.1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from asn1crypto import algos, cms, core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap

from est_protocol import cms_algorithms
from est_protocol.cms_algorithms import NothingInCommon
from est_protocol.errors import MessageError
from est_protocol.key_package import issuer_and_serial
from est_protocol.keys import PublicKey, spki_der
from est_protocol.x509_decoding import decoding_x509

_SHA256 = "2.16.840.1.101.3.4.2.1"
_MGF1 = "1.2.840.113549.1.1.8"


@dataclass(frozen=True, slots=True)
class SymmetricKey:
    """A key that client and server share.

    :param identifier: the DecryptKeyIdentifier.
    :param key: 16, 24 or 32 octets.
    """

    identifier: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecipientKey:
    """A public key of the client.

    :param identifier: the AsymmetricDecryptKeyIdentifier.
    :param public_key: RSA or EC.
    :param certificate: the certificate around it, to name it by issuer and serial number where
        the identifier is not its subjectKeyIdentifier; ``None`` names it by the identifier.
    """

    identifier: bytes
    public_key: PublicKey
    certificate: x509.Certificate | None = None


Recipient = SymmetricKey | RecipientKey
#: What a client decrypts with.
DecryptionKey = SymmetricKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def allows_decryption(certificate: x509.Certificate) -> bool:
    """Whether the key of ``certificate`` may be used for key transport or key agreement, or its
    use is not restricted (RFC 7030 section 4.4.1.2).

    :raises MessageError: its extensions or its key do not decode.
    """
    with decoding_x509("the certificate"):
        extensions, key = certificate.extensions, certificate.public_key()
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    if isinstance(key, rsa.RSAPublicKey):
        return usage.key_encipherment
    return usage.key_agreement and not usage.encipher_only


def key_identifiers(certificate: x509.Certificate) -> tuple[bytes, ...]:
    """By what the key of ``certificate`` may be called, its subjectKeyIdentifier first.

    :raises MessageError: its extensions or its key do not decode.
    """
    with decoding_x509("the certificate"):
        extensions, key = certificate.extensions, certificate.public_key()
    computed = x509.SubjectKeyIdentifier.from_public_key(key).digest
    try:
        stated = extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return (computed,)
    return stated.value.digest, computed


# -- Encrypting the content key ------------------------------------------------------------------


def recipient_info(
    recipient: Recipient, content_key: bytes, capabilities: Sequence[str]
) -> cms.RecipientInfo:
    """The RecipientInfo that carries ``content_key`` to ``recipient``.

    :param capabilities: OIDs of the algorithms that the recipient knows, preferred first.
    :raises NothingInCommon: none of them will do, or its key is of a kind that cannot decrypt.
    """
    if isinstance(recipient, SymmetricKey):
        return _shared(recipient, content_key, capabilities)
    if isinstance(recipient.public_key, rsa.RSAPublicKey):
        return _transported(recipient, recipient.public_key, content_key, capabilities)
    if isinstance(recipient.public_key, ec.EllipticCurvePublicKey):
        return _agreed(recipient, recipient.public_key, content_key, capabilities)
    raise NothingInCommon("keys cannot be encrypted for a key of this kind")


def _shared(
    recipient: SymmetricKey, content_key: bytes, capabilities: Sequence[str]
) -> cms.RecipientInfo:
    wrap = cms_algorithms.key_wrap_of_size(capabilities, len(recipient.key))
    info = cms.KEKRecipientInfo(
        {
            "version": "v4",
            "kekid": {"key_identifier": recipient.identifier},
            "key_encryption_algorithm": {"algorithm": wrap},
            "encrypted_key": aes_key_wrap(recipient.key, content_key),
        }
    )
    return cms.RecipientInfo(name="kekri", value=info)


def _transported(
    recipient: RecipientKey,
    public_key: rsa.RSAPublicKey,
    content_key: bytes,
    capabilities: Sequence[str],
) -> cms.RecipientInfo:
    scheme = cms_algorithms.key_transport(capabilities)
    by_identifier = _is_named_by_identifier(recipient)
    info = cms.KeyTransRecipientInfo(
        {
            "version": "v2" if by_identifier else "v0",
            "rid": cms.RecipientIdentifier(
                name="subject_key_identifier", value=recipient.identifier
            )
            if by_identifier
            else cms.RecipientIdentifier(
                name="issuer_and_serial_number", value=_issuer_and_serial(recipient)
            ),
            "key_encryption_algorithm": _transport_algorithm(scheme),
            "encrypted_key": public_key.encrypt(content_key, _padding(scheme, hashes.SHA256())),
        }
    )
    return cms.RecipientInfo(name="ktri", value=info)


def _agreed(
    recipient: RecipientKey,
    public_key: ec.EllipticCurvePublicKey,
    content_key: bytes,
    capabilities: Sequence[str],
) -> cms.RecipientInfo:
    scheme = cms_algorithms.key_agreement(capabilities)
    wrap = cms_algorithms.key_wrap(capabilities, len(content_key) * 8)
    ephemeral = ec.generate_private_key(public_key.curve)
    wrapping_key = _derive(scheme, wrap, ephemeral.exchange(ec.ECDH(), public_key), None)
    originator = cms.PublicKeyInfo.load(spki_der(ephemeral.public_key()))
    rid = (
        cms.KeyAgreementRecipientIdentifier(
            name="r_key_id", value={"subject_key_identifier": recipient.identifier}
        )
        if _is_named_by_identifier(recipient)
        else cms.KeyAgreementRecipientIdentifier(
            name="issuer_and_serial_number", value=_issuer_and_serial(recipient)
        )
    )
    info = cms.KeyAgreeRecipientInfo(
        {
            "version": "v3",
            "originator": cms.OriginatorIdentifierOrKey(name="originator_key", value=originator),
            "key_encryption_algorithm": {
                "algorithm": scheme,
                "parameters": core.Any.load(_wrap_algorithm(wrap)),
            },
            "recipient_encrypted_keys": [
                {"rid": rid, "encrypted_key": aes_key_wrap(wrapping_key, content_key)}
            ],
        }
    )
    return cms.RecipientInfo(name="kari", value=info)


def _is_named_by_identifier(recipient: RecipientKey) -> bool:
    """Whether the recipient finds its key by the identifier, as X.509 means it."""
    certificate = recipient.certificate
    return certificate is None or recipient.identifier == key_identifiers(certificate)[0]


def _issuer_and_serial(recipient: RecipientKey) -> cms.IssuerAndSerialNumber:
    assert recipient.certificate is not None
    return issuer_and_serial(recipient.certificate)


# -- Decrypting it -------------------------------------------------------------------------------


def content_key(infos: Any, key: DecryptionKey) -> bytes:
    """The content key from the RecipientInfo that is for ``key``.

    To be called inside :func:`est_protocol.strict_asn1.decoding`.

    :param infos: asn1crypto's RecipientInfos.
    :raises MessageError: there is none for a key of this kind, or it is of an unknown kind.
    :raises ValueError: it cannot be decrypted.
    """
    open_one: Callable[[Any], bytes]
    if isinstance(key, SymmetricKey):
        name, open_one = "kekri", lambda info: _unwrap_shared(info, key)
    elif isinstance(key, rsa.RSAPrivateKey):
        name, open_one = "ktri", lambda info: _untransport(info, key)
    else:
        name, open_one = "kari", lambda info: _unagree(info, key)
    for info in infos:
        if info.name == name:
            return open_one(info.chosen)
    raise MessageError("the generated key is not encrypted for the key that was asked for")


def _unwrap_shared(info: Any, shared: SymmetricKey) -> bytes:
    if info["kekid"]["key_identifier"].native != shared.identifier:
        raise MessageError("the generated key is encrypted with another shared key")
    wrap = info["key_encryption_algorithm"]["algorithm"].dotted
    if cms_algorithms.KEY_WRAPS.get(wrap) != len(shared.key):
        raise MessageError("the generated key is wrapped with another algorithm")
    return aes_key_unwrap(shared.key, info["encrypted_key"].native)


def _untransport(info: Any, key: rsa.RSAPrivateKey) -> bytes:
    algorithm = info["key_encryption_algorithm"]
    scheme = algorithm["algorithm"].dotted
    if scheme not in cms_algorithms.KEY_TRANSPORTS:
        raise MessageError("the key transport is of an unknown kind")
    digest: hashes.HashAlgorithm = hashes.SHA256()
    if scheme == cms_algorithms.RSA_OAEP:
        digest = _oaep_hash(algorithm["parameters"])
    return key.decrypt(info["encrypted_key"].native, _padding(scheme, digest))


def _oaep_hash(parameters: Any) -> hashes.HashAlgorithm:
    """The hash of OAEP and of its mask generation, where they are the same."""
    names = [parameters["hash_algorithm"]["algorithm"].native]
    names.append(parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native)
    known: dict[str, hashes.HashAlgorithm] = {
        "sha1": hashes.SHA1(),  # RFC 8017's default; not broken in OAEP.
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }
    if names[0] != names[1] or names[0] not in known:
        raise MessageError("the parameters of OAEP are unknown")
    return known[names[0]]


def _unagree(info: Any, key: ec.EllipticCurvePrivateKey) -> bytes:
    algorithm = info["key_encryption_algorithm"]
    scheme = algorithm["algorithm"].dotted
    wrap_der = algorithm["parameters"].dump()
    wrap = algos.EncryptionAlgorithm.load(wrap_der, strict=True)["algorithm"].dotted
    originator = info["originator"]
    if (
        scheme not in cms_algorithms.KEY_AGREEMENTS
        or wrap not in cms_algorithms.KEY_WRAPS
        or originator.name != "originator_key"
        or len(info["recipient_encrypted_keys"]) != 1
    ):
        raise MessageError("the key agreement is of an unknown kind")
    # The curve is the recipient's; RFC 5753 section 3.1.1 lets the parameters be absent.
    point = bytes(originator.chosen["public_key"].contents[1:])
    peer = ec.EllipticCurvePublicKey.from_encoded_point(key.curve, point)
    ukm = None if isinstance(info["ukm"], core.Void) else info["ukm"].native
    wrapping_key = _derive(scheme, wrap, key.exchange(ec.ECDH(), peer), ukm, wrap_der)
    return aes_key_unwrap(wrapping_key, info["recipient_encrypted_keys"][0]["encrypted_key"].native)


# -- What both directions share ------------------------------------------------------------------


class _SharedInfo(core.Sequence):  # type: ignore[misc]
    """ECC-CMS-SharedInfo (RFC 5753 section 7.2)."""

    _fields = [  # noqa: RUF012
        ("key_info", core.Any),
        ("entity_u_info", core.OctetString, {"explicit": 0, "optional": True}),
        ("supp_pub_info", core.OctetString, {"explicit": 2}),
    ]


def _derive(
    scheme: str, wrap: str, secret: bytes, ukm: bytes | None, wrap_der: bytes | None = None
) -> bytes:
    octets = cms_algorithms.KEY_WRAPS[wrap]
    fields: dict[str, Any] = {
        "key_info": core.Any.load(wrap_der or _wrap_algorithm(wrap)),
        "supp_pub_info": (octets * 8).to_bytes(4, "big"),
    }
    if ukm is not None:
        fields["entity_u_info"] = ukm
    return X963KDF(
        algorithm=cms_algorithms.KEY_AGREEMENTS[scheme],
        length=octets,
        sharedinfo=_SharedInfo(fields).dump(),
    ).derive(secret)


class _Algorithm(core.Sequence):  # type: ignore[misc]
    _fields = [("algorithm", core.ObjectIdentifier)]  # noqa: RUF012


def _wrap_algorithm(wrap: str) -> bytes:
    """The AlgorithmIdentifier of an AES key wrap; RFC 3565 section 2.3.2 wants no parameters."""
    return bytes(_Algorithm({"algorithm": wrap}).dump())


def _padding(scheme: str, digest: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if scheme == cms_algorithms.RSA_PKCS1:
        return padding.PKCS1v15()
    return padding.OAEP(padding.MGF1(digest), digest, label=None)


def _transport_algorithm(scheme: str) -> dict[str, Any]:
    if scheme == cms_algorithms.RSA_PKCS1:
        return {"algorithm": scheme, "parameters": core.Null()}
    digest = {"algorithm": _SHA256}
    return {
        "algorithm": scheme,
        "parameters": {
            "hash_algorithm": digest,
            "mask_gen_algorithm": {"algorithm": _MGF1, "parameters": digest},
        },
    }

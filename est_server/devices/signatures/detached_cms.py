"""A detached CMS signature (RFC 5652 section 5)::

    SignedData ::= SEQUENCE {
        version, digestAlgorithms,
        encapContentInfo SEQUENCE { eContentType id-data },      -- without eContent: detached
        certificates [0] IMPLICIT CertificateSet OPTIONAL, crls [1] OPTIONAL,
        signerInfos SET OF SignerInfo }
    SignerInfo ::= SEQUENCE {
        version, sid, digestAlgorithm,
        signedAttrs [0] IMPLICIT SET OF Attribute OPTIONAL,      -- required here
        signatureAlgorithm, signature, unsignedAttrs [1] OPTIONAL }

With signed attributes the list itself is only hashed, so it never has to be in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from asn1crypto import cms, core
from cryptography import x509

from est_protocol.certs_only import decode_certificate
from est_protocol.errors import MessageError
from est_protocol.signatures import DIGEST_OIDS, Hash
from est_protocol.strict_asn1 import decoding
from est_server.devices.refusals import SignatureRejected
from est_server.devices.signatures.algorithms import Algorithm, Scheme, verifies
from est_server.devices.signatures.signed import Signed
from est_server.devices.signatures.signers import ListSigner, find_signer

ID_DATA = "1.2.840.113549.1.7.1"
ID_SIGNED_DATA = "1.2.840.113549.1.7.2"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"

_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
_RSA_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
_ED25519 = "1.3.101.112"
_HASH_NAMES = ("sha256", "sha384", "sha512")
#: RFC 5754 section 3: each signature algorithm that names its hash.
_SCHEMES = {
    f"{arc}.{first + rank}": (scheme, name)
    for scheme, arc, first in (
        (Scheme.PKCS1, "1.2.840.113549.1.1", 11),
        (Scheme.ECDSA, "1.2.840.10045.4.3", 2),
    )
    for rank, name in enumerate(_HASH_NAMES)
}
_LIMIT = 16


class _SignerInfo(NamedTuple):
    """One signature of several.

    :param attributes: the DER octets that are signed.
    :param digest: of the list, as the attributes say.
    """

    algorithm: Algorithm
    content_hash: str
    attributes: bytes
    digest: bytes
    signed_at: datetime | None
    signature: bytes


class DetachedCms:
    """A detached CMS signature that waits for its content.

    Of several signatures one that is believed is enough.

    :param octets: the DER or BER ContentInfo.
    :raises SignatureRejected: it is something else, not detached, or one that is never believed.
    """

    def __init__(self, octets: bytes) -> None:
        try:
            self._infos, self._certificates = decoding("the fields", lambda: _read(octets))
        except MessageError as error:
            raise SignatureRejected(f"the CMS signature is not readable: {error}") from error
        self._hashes = {i.content_hash: hashlib.new(i.content_hash) for i in self._infos}

    def update(self, octets: bytes) -> None:
        """Take the next octets of the list."""
        for context in self._hashes.values():
            context.update(octets)

    def verify(self, signers: Iterable[ListSigner], now: datetime) -> Signed:
        """Judge the signature over all octets so far.

        :raises SignatureRejected: it does not verify, or nobody made it who may.
        """
        signers = tuple(signers)
        refusal = SignatureRejected("the signature is over other octets than this list")
        for info in self._infos:
            if self._hashes[info.content_hash].digest() != info.digest:
                continue
            try:
                return self._verify(info, signers, now)
            except SignatureRejected as error:
                refusal = error
        raise refusal

    def _verify(self, info: _SignerInfo, signers: Iterable[ListSigner], now: datetime) -> Signed:
        believed = find_signer(
            signers,
            lambda key: verifies(key, info.algorithm, info.signature, info.attributes),
            sent=self._certificates,
            signed_at=info.signed_at,
            now=now,
        )
        return Signed(believed.signer, info.signed_at)


def _read(octets: bytes) -> tuple[list[_SignerInfo], tuple[x509.Certificate, ...]]:
    content_info = cms.ContentInfo.load(octets, strict=True)
    if content_info["content_type"].dotted != ID_SIGNED_DATA:
        raise SignatureRejected("the CMS file is no SignedData")
    signed = content_info["content"]
    content = signed["encap_content_info"]
    if not isinstance(content["content"], core.Void):
        raise SignatureRejected("the CMS signature is not detached: it has a content of its own")
    if not 1 <= len(signed["signer_infos"]) <= _LIMIT:
        raise SignatureRejected(f"the CMS file has not 1 to {_LIMIT} signatures")
    content_type = content["content_type"].contents
    infos, refusal = [], None
    for info in signed["signer_infos"]:
        try:
            infos.append(_read_info(info, content_type))
        except SignatureRejected as error:
            refusal = error
    if not infos and refusal is not None:
        raise refusal
    return infos, _read_certificates(signed["certificates"])


def _read_info(info: Any, content_type: bytes) -> _SignerInfo:
    content_hash = _hash(info["digest_algorithm"])
    attributes = info["signed_attrs"]
    if isinstance(attributes, core.Void):
        raise SignatureRejected("the CMS signature has no signed attributes")
    values = {a["type"].dotted: list(a["values"]) for a in attributes}
    if len(values) != len(attributes) or any(len(found) != 1 for found in values.values()):
        raise SignatureRejected("the CMS signature has an attribute twice")
    if CONTENT_TYPE not in values or values[CONTENT_TYPE][0].contents != content_type:
        raise SignatureRejected("the CMS signature is for another type of content")
    if MESSAGE_DIGEST not in values:
        raise SignatureRejected("the CMS signature has no message digest")
    return _SignerInfo(
        algorithm=_algorithm(info["signature_algorithm"], content_hash),
        content_hash=content_hash.name,
        # What is signed has the tag of a SET OF (RFC 5652 section 5.4).
        attributes=b"\x31" + attributes.dump()[1:],
        digest=values[MESSAGE_DIGEST][0].native,
        signed_at=_signed_at(values),
        signature=info["signature"].native,
    )


def _hash(algorithm: Any) -> Hash:
    found = DIGEST_OIDS.get(algorithm["algorithm"].dotted)
    if found is None:
        name = algorithm["algorithm"].native
        raise SignatureRejected(f"the CMS signature is over {name}, which is not SHA-2")
    return found


def _algorithm(algorithm: Any, content_hash: Hash) -> Algorithm:
    oid = algorithm["algorithm"].dotted
    if oid == _RSA_ENCRYPTION:
        return Algorithm(Scheme.PKCS1, content_hash)
    if oid == _ED25519:
        return Algorithm(Scheme.ED25519, content_hash)
    if oid == _RSA_PSS:
        return _pss(algorithm["parameters"])
    if oid not in _SCHEMES:
        name = algorithm["algorithm"].native
        raise SignatureRejected(f"the CMS signature is of a kind that is not accepted: {name}")
    scheme, name = _SCHEMES[oid]
    by_name = {known.name: known for known in DIGEST_OIDS.values()}
    return Algorithm(scheme, by_name[name])


def _pss(parameters: Any) -> Algorithm:
    algorithm = _hash(parameters["hash_algorithm"])
    mask = parameters["mask_gen_algorithm"]
    if mask["algorithm"].dotted != _MGF1 or _hash(mask["parameters"]).name != algorithm.name:
        raise SignatureRejected("the CMS signature masks with another hash than it signs with")
    return Algorithm(Scheme.PSS, algorithm, parameters["salt_length"].native)


def _signed_at(values: Mapping[str, list[Any]]) -> datetime | None:
    if SIGNING_TIME not in values:
        return None
    moment = values[SIGNING_TIME][0].native
    if not isinstance(moment, datetime):
        raise SignatureRejected("the signing time of the CMS signature is no time")
    return moment.astimezone(UTC)


def _read_certificates(choices: Any) -> tuple[x509.Certificate, ...]:
    found = [] if isinstance(choices, core.Void) else list(choices)
    if len(found) > _LIMIT:
        raise SignatureRejected(f"the CMS file has more than {_LIMIT} certificates")
    return tuple(decode_certificate(c.chosen.dump()) for c in found if c.name == "certificate")

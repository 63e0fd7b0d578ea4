"""How a client asks that a server-generated key be encrypted for it (RFC 7030 section 4.4.1).

Two attributes of its CSR name the key to encrypt with and the algorithms that it knows::

    DecryptKeyIdentifier ::= OCTET STRING              -- id-aa 37: a shared symmetric key
    AsymmetricDecryptKeyIdentifier ::= OCTET STRING    -- id-aa 54: a public key of the client
    SMIMECapabilities ::= SEQUENCE OF SEQUENCE {       -- RFC 8551 section 2.5.2, preferred first
        capabilityID OBJECT IDENTIFIER, parameters ANY DEFINED BY capabilityID OPTIONAL }
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from asn1crypto import core
from cryptography import x509

from est_protocol.csr_rewriting import Request, add_attributes
from est_protocol.errors import MessageError
from est_protocol.keys import SigningKey
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.signatures import digest_of, sign
from est_protocol.strict_asn1 import decoding, load_der
from est_protocol.x509_decoding import decoding_x509

DECRYPT_KEY_IDENTIFIER = "1.2.840.113549.1.9.16.2.37"
ASYMMETRIC_DECRYPT_KEY_IDENTIFIER = "1.2.840.113549.1.9.16.2.54"
SMIME_CAPABILITIES = "1.2.840.113549.1.9.15"

#: Octets of a key identifier, and number of capabilities: far above what anybody needs.
MAX_IDENTIFIER = 256
MAX_CAPABILITIES = 64

_OCTET_STRING, _SEQUENCE = 0x04, 0x30


@dataclass(frozen=True, slots=True)
class ProtectionRequest:
    """The wish for encryption in one CSR.

    :param symmetric: the identifier of a shared symmetric key, or ``None``.
    :param asymmetric: the identifier of a public key, or ``None``; of an X.509 certificate, its
        subjectKeyIdentifier. Exactly one of the two is there.
    :param capabilities: OIDs of the algorithms that the client knows, preferred first; the key
        wrap of a key agreement stands after it.
    """

    symmetric: bytes | None
    asymmetric: bytes | None
    capabilities: tuple[str, ...]


class _Capability(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("capability", core.ObjectIdentifier),
        ("parameters", core.Any, {"optional": True}),
    ]


class _Capabilities(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Capability


def read(der: bytes) -> ProtectionRequest | None:
    """What the CSR ``der`` says about encryption; ``None`` if it asks for none.

    Half a wish is an error rather than none, lest a key travels in the clear to a client that
    wanted it encrypted.

    :raises MessageError: the attributes are malformed, or there are not exactly one key
        identifier and the capabilities.
    """
    with decoding_x509("the certification request"):
        found = list(_attributes(x509.load_der_x509_csr(der)))
    if not found:
        return None
    values = dict(found)
    if len(values) != len(found):
        raise MessageError("an attribute about the encryption of the key is there twice")
    identifiers = values.keys() - {SMIME_CAPABILITIES}
    if len(identifiers) != 1 or len(values) != 2:
        raise MessageError(
            "an encrypted key is asked for with SMIMECapabilities and either DecryptKeyIdentifier "
            "or AsymmetricDecryptKeyIdentifier (RFC 7030 section 4.4.1)"
        )
    return ProtectionRequest(
        symmetric=values.get(DECRYPT_KEY_IDENTIFIER),
        asymmetric=values.get(ASYMMETRIC_DECRYPT_KEY_IDENTIFIER),
        capabilities=_read_capabilities(values[SMIME_CAPABILITIES]),
    )


def _attributes(csr: x509.CertificateSigningRequest) -> Iterator[tuple[str, bytes]]:
    """The attributes of interest by OID, with the content octets of each value."""
    for attribute in csr.attributes:
        oid = attribute.oid.dotted_string
        if oid == SMIME_CAPABILITIES:
            expected = _SEQUENCE
        elif oid in (DECRYPT_KEY_IDENTIFIER, ASYMMETRIC_DECRYPT_KEY_IDENTIFIER):
            expected = _OCTET_STRING
        else:
            continue
        if attribute._type != expected:
            raise MessageError(f"the attribute {oid} is of the wrong type")
        if expected == _OCTET_STRING and not 0 < len(attribute.value) <= MAX_IDENTIFIER:
            raise MessageError(f"a key identifier has 1 to {MAX_IDENTIFIER} octets")
        yield oid, attribute.value


def _read_capabilities(content: bytes) -> tuple[str, ...]:
    def decode() -> tuple[str, ...]:
        items = load_der(_Capabilities, _Capabilities(contents=content).dump(force=False))
        if len(items) > MAX_CAPABILITIES:
            raise MessageError(f"more than {MAX_CAPABILITIES} SMIMECapabilities")
        return tuple(oid for item in items for oid in _algorithms(item))

    return decoding("SMIMECapabilities", decode)


def _algorithms(item: Any) -> Iterator[str]:
    """The algorithm of a capability; after a key agreement, its key wrap (RFC 5753 section 7.2)."""
    yield str(item["capability"].dotted)
    parameters = item["parameters"]
    if isinstance(parameters, core.Any) and parameters.dump()[:1] == b"\x30":
        nested = core.SequenceOf.load(parameters.dump(), spec=core.Any, strict=True)
        if len(nested) and nested[0].dump()[:1] == b"\x06":
            yield str(core.ObjectIdentifier.load(nested[0].dump()).dotted)


# -- Writing -----------------------------------------------------------------------------------


def write(
    csr: CertificationRequest, request: ProtectionRequest, key: SigningKey
) -> CertificationRequest:
    """``csr`` with ``request`` in it, signed anew with ``key``, its own key.

    ``cryptography`` writes no attribute whose value is a SEQUENCE.
    """
    signed = Request.load(csr.der)
    tbs = add_attributes(signed, _encoded(request))
    # The algorithm stays: pkcs10.build takes the hash that digest_of names.
    signed["signature"] = sign(key, tbs, digest_of(key))
    return CertificationRequest.decode(signed.dump(force=True))


def _encoded(request: ProtectionRequest) -> dict[str, bytes]:
    identifiers = {
        DECRYPT_KEY_IDENTIFIER: request.symmetric,
        ASYMMETRIC_DECRYPT_KEY_IDENTIFIER: request.asymmetric,
    }
    encoded = {
        oid: core.OctetString(identifier).dump()
        for oid, identifier in identifiers.items()
        if identifier is not None
    }
    capabilities = _Capabilities([{"capability": oid} for oid in request.capabilities])
    return {**encoded, SMIME_CAPABILITIES: capabilities.dump()}

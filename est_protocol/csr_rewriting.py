"""Attributes of a CSR whose values are structures, which ``cryptography`` does not write.

::

    CertificationRequest ::= SEQUENCE { info, signatureAlgorithm, signature }   -- RFC 2986
    CertificationRequestInfo ::= SEQUENCE {
        version INTEGER, subject Name, subjectPKInfo SubjectPublicKeyInfo,
        attributes [0] SET OF SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY } }
"""

from __future__ import annotations

from collections.abc import Mapping

from asn1crypto import core


class _Attribute(core.Sequence):  # type: ignore[misc]
    _fields = [("type", core.ObjectIdentifier), ("values", core.SetOf, {"spec": core.Any})]  # noqa: RUF012


class _Attributes(core.SetOf):  # type: ignore[misc]
    _child_spec = _Attribute


class _Info(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("version", core.Integer),
        ("subject", core.Any),
        ("key", core.Any),
        ("attributes", _Attributes, {"implicit": 0}),
    ]


class Request(core.Sequence):  # type: ignore[misc]
    """A CertificationRequest that is being changed; its signature is then to be made anew."""

    _fields = [  # noqa: RUF012
        ("info", _Info),
        ("algorithm", core.Any),
        ("signature", core.OctetBitString),
    ]


def add_attributes(request: Request, attributes: Mapping[str, bytes]) -> bytes:
    """Add ``attributes``, DER values by OID; what is to be signed then."""
    info = request["info"]
    for oid, value in attributes.items():
        info["attributes"].append(_Attribute({"type": oid, "values": [core.Any.load(value)]}))
    return bytes(info.dump(force=True))

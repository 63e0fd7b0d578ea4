"""The kind of key that a server asks for, as a template and as the older list say it (RFC 9908).

A kind is named as :func:`est_protocol.keys.key_kind` names it, or ``ec`` and ``rsa`` for any
curve and any size; a dotted OID is the algorithm of a key that is not known here.
"""

from __future__ import annotations

from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from est_protocol.csr_attributes import CsrAttribute, KeyTemplate
from est_protocol.errors import MessageError
from est_protocol.keys import PublicKey, key_kind
from est_protocol.strict_asn1 import decoding, load_der

RSA = "1.2.840.113549.1.1.1"
EC = "1.2.840.10045.2.1"

#: Kinds of key that the algorithm alone determines.
_PLAIN = {
    "ed25519": "1.3.101.112",
    "ed448": "1.3.101.113",
    "mldsa44": "2.16.840.1.101.3.4.3.17",
    "mldsa65": "2.16.840.1.101.3.4.3.18",
    "mldsa87": "2.16.840.1.101.3.4.3.19",
}
_PLAIN_KINDS = {oid: kind for kind, oid in _PLAIN.items()}
_SHORT_CURVES = {"p256": "secp256r1", "p384": "secp384r1", "p521": "secp521r1"}
_SHORT_NAMES = {name: short for short, name in _SHORT_CURVES.items()}
_CURVES: dict[str, str] = {
    ec.get_curve_for_oid(oid)().name: oid.dotted_string
    for oid in vars(ec.EllipticCurveOID).values()
    if isinstance(oid, x509.ObjectIdentifier)
}
_CURVE_NAMES = {oid: name for name, oid in _CURVES.items()}

#: RSA sizes in bits that a placeholder is made and read for.
_RSA_SIZES = range(1024, 16385)
_PUBLIC_EXPONENT = 65537
_WHAT = "the parameters of the wanted key"

#: Types of an Attribute in the list that ask for a kind of key.
ALGORITHMS = frozenset({RSA, EC, *_PLAIN.values()})


class _Algorithm(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("algorithm", core.ObjectIdentifier),
        ("parameters", core.Any, {"optional": True}),
    ]


class _RsaPublicKey(core.Sequence):  # type: ignore[misc]
    _fields = [("modulus", core.Integer), ("exponent", core.Integer)]  # noqa: RUF012


def fits(kind: str, key: PublicKey) -> bool:
    """Whether ``key`` is of the wanted ``kind``."""
    actual = key_kind(key)
    return actual == kind or (kind in ("ec", "rsa") and actual.startswith(f"{kind}-"))


def to_attribute(kind: str) -> CsrAttribute:
    """The element of the list (RFC 9908 section 3.2): a curve's OID, a size as INTEGER."""
    algorithm, parameter = _algorithm_of(kind)
    values = () if parameter is None else (parameter.dump(),)
    return CsrAttribute(algorithm, values)


def from_attribute(attribute: CsrAttribute) -> str:
    """The kind that an element of the list asks for.

    :raises MessageError: its values make no sense.
    """
    values = attribute.values or ()
    if len(values) > 1:
        raise MessageError("a wanted key has more than one parameter")
    if attribute.oid in _PLAIN_KINDS or not values:
        return _any_of(attribute.oid)
    if attribute.oid == EC:
        return _curve_kind(values[0])
    size = decoding(_WHAT, lambda: int(load_der(core.Integer, values[0]).native))
    return _rsa_kind(size)


def to_template(kind: str) -> KeyTemplate:
    """The template (RFC 9908 section 3.4): the size of an RSA key as a placeholder of that size."""
    algorithm, parameter = _algorithm_of(kind)
    fields: dict[str, Any] = {"algorithm": algorithm}
    placeholder = None
    if algorithm == RSA:
        fields["parameters"] = core.Null()
        if parameter is not None:
            modulus = 1 << (int(parameter.native) - 1) | 1
            key = _RsaPublicKey({"modulus": modulus, "exponent": _PUBLIC_EXPONENT})
            placeholder = key.dump()
    elif parameter is not None:
        fields["parameters"] = parameter
    return KeyTemplate(_Algorithm(fields).dump(), placeholder)


def from_template(template: KeyTemplate) -> str:
    """The kind that a template asks for.

    :raises MessageError: it makes no sense.
    """
    algorithm, parameters = decoding(_WHAT, lambda: _algorithm(template.algorithm))
    if algorithm == EC and parameters is not None:
        return _curve_kind(parameters)
    if algorithm == RSA and template.placeholder is not None:
        placeholder = template.placeholder
        modulus = decoding(
            _WHAT, lambda: int(load_der(_RsaPublicKey, placeholder)["modulus"].native)
        )
        return _rsa_kind(modulus.bit_length())
    return _any_of(algorithm)


def _algorithm(der: bytes) -> tuple[str, bytes | None]:
    item = load_der(_Algorithm, der)
    parameters = item["parameters"]
    absent = isinstance(parameters, core.Void)
    return item["algorithm"].dotted, None if absent else parameters.dump()


def _any_of(algorithm: str) -> str:
    return {RSA: "rsa", EC: "ec"}.get(algorithm) or _PLAIN_KINDS.get(algorithm, algorithm)


def _curve_kind(parameters: bytes) -> str:
    oid = decoding(_WHAT, lambda: str(load_der(core.ObjectIdentifier, parameters).dotted))
    name = _CURVE_NAMES.get(oid, oid)
    return f"ec-{_SHORT_NAMES.get(name, name)}"


def _rsa_kind(size: int) -> str:
    if size not in _RSA_SIZES:
        raise MessageError("an RSA key of an impossible size is asked for")
    return f"rsa-{size}"


def _algorithm_of(kind: str) -> tuple[str, Any]:
    """The algorithm's OID, and its parameter as an ASN.1 value or ``None``."""
    if kind in _PLAIN:
        return _PLAIN[kind], None
    family, _, rest = kind.partition("-")
    if not rest and family in ("ec", "rsa"):
        return (EC if family == "ec" else RSA), None
    if family == "rsa" and rest.isdecimal() and int(rest) in _RSA_SIZES:
        return RSA, core.Integer(int(rest))
    if family == "ec":
        curve = _CURVES.get(_SHORT_CURVES.get(rest, rest), rest)
        if curve in _CURVE_NAMES:
            return EC, core.ObjectIdentifier(curve)
    raise ValueError(
        f"{kind!r} is no kind of key: it is ec, rsa, ec- and a curve such as ec-p256, rsa- and a "
        f"size such as rsa-3072, or one of {', '.join(_PLAIN)}"
    )

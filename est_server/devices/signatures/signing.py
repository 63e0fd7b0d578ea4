"""Making the signatures that :mod:`est_server.devices.signatures.detached` verifies."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from asn1crypto import cms, core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import signatures
from est_protocol.errors import ConfigurationError
from est_protocol.key_package import certificate_choice, issuer_and_serial
from est_protocol.keys import SigningKey
from est_server.devices.signatures.algorithms import weakness
from est_server.devices.signatures.detached_cms import (
    CONTENT_TYPE,
    ID_DATA,
    ID_SIGNED_DATA,
    MESSAGE_DIGEST,
    SIGNING_TIME,
)
from est_server.devices.signatures.jws import ALGORITHMS, CURVES, encode_base64url

_PEM_COLUMNS = 64


class ListSigning(Protocol):
    """Signs a list that it is shown piece by piece."""

    def update(self, octets: bytes) -> None:
        """Take the next octets of the list."""
        ...

    def finish(self) -> bytes:
        """The contents of the signature's file."""
        ...


def check_signing_key(key: SigningKey, chain: Sequence[x509.Certificate]) -> None:
    """Check that a list may be signed with ``key`` and that the first certificate is over it.

    :raises ConfigurationError: it may not.
    """
    fault = weakness(key.public_key())
    if fault is not None:
        raise ConfigurationError(fault)
    if chain[0].public_key() != key.public_key():
        raise ConfigurationError("the certificate is over another key")


class CmsSigning:
    """Makes a detached CMS signature (RFC 5652) in PEM.

    :param chain: the signer's certificate and those above it, which travel along.
    :param now: what the signature says as its time.
    """

    def __init__(self, key: SigningKey, chain: Sequence[x509.Certificate], now: datetime) -> None:
        check_signing_key(key, chain)
        self._key = key
        self._chain = chain
        self._now = now
        self._algorithm = signatures.digest_of(key)
        self._hash = hashlib.new(self._algorithm.name)

    def update(self, octets: bytes) -> None:
        """Take the next octets of the list."""
        self._hash.update(octets)

    def finish(self) -> bytes:
        """The PEM of the ContentInfo."""
        text = base64.b64encode(self._content_info()).decode()
        lines = [text[at : at + _PEM_COLUMNS] for at in range(0, len(text), _PEM_COLUMNS)]
        return "\n".join(["-----BEGIN CMS-----", *lines, "-----END CMS-----", ""]).encode()

    def _content_info(self) -> bytes:
        digest = {"algorithm": signatures.digest_oid(self._algorithm)}
        signed = cms.SignedData(
            {
                "version": "v1",
                "digest_algorithms": [digest],
                "encap_content_info": {"content_type": ID_DATA},
                "certificates": [certificate_choice(c) for c in self._chain],
                "signer_infos": [self._signer_info(digest)],
            }
        )
        der: bytes = cms.ContentInfo({"content_type": ID_SIGNED_DATA, "content": signed}).dump()
        return der

    def _signer_info(self, digest: Mapping[str, str]) -> cms.SignerInfo:
        moment = cms.Time(name="utc_time", value=core.UTCTime(self._now.replace(microsecond=0)))
        attributes = cms.CMSAttributes(
            [
                {"type": CONTENT_TYPE, "values": [cms.ContentType(ID_DATA)]},
                {"type": SIGNING_TIME, "values": [moment]},
                {"type": MESSAGE_DIGEST, "values": [core.OctetString(self._hash.digest())]},
            ]
        )
        oid, with_null = signatures.algorithm_oid(self._key, self._algorithm)
        return cms.SignerInfo(
            {
                "version": "v1",
                "sid": cms.SignerIdentifier(
                    name="issuer_and_serial_number", value=issuer_and_serial(self._chain[0])
                ),
                "digest_algorithm": digest,
                "signed_attrs": attributes,
                "signature_algorithm": {
                    "algorithm": oid,
                    **({"parameters": core.Null()} if with_null else {}),
                },
                "signature": signatures.sign(self._key, attributes.dump(), self._algorithm),
            }
        )


class JwsSigning:
    """Makes a detached JWS in compact serialization, its payload as it is (RFC 7797).

    Parameters as for :class:`CmsSigning`.

    :raises ConfigurationError: the key is neither EC nor RSA.
    """

    def __init__(self, key: SigningKey, chain: Sequence[x509.Certificate], now: datetime) -> None:
        check_signing_key(key, chain)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ConfigurationError("a JWS over a list needs an EC or RSA key; use --cms")
        self._key = key
        self._alg = _alg(key)
        header = {
            "alg": self._alg,
            "b64": False,
            "crit": ["b64"],
            "iat": int(now.timestamp()),
            "x5c": [base64.b64encode(c.public_bytes(Encoding.DER)).decode() for c in chain],
        }
        self._protected = encode_base64url(json.dumps(header, separators=(",", ":")).encode())
        self._hash = hashlib.new(ALGORITHMS[self._alg].hash.name, f"{self._protected}.".encode())

    def update(self, octets: bytes) -> None:
        """Take the next octets of the list."""
        self._hash.update(octets)

    def finish(self) -> bytes:
        """The JWS without its payload, and a line feed."""
        prehashed = Prehashed(ALGORITHMS[self._alg].hash)
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self._key.sign(self._hash.digest(), ec.ECDSA(prehashed)))
            half = CURVES[self._alg][1]
            signature = r.to_bytes(half, "big") + s.to_bytes(half, "big")
        else:
            signature = self._key.sign(self._hash.digest(), padding.PKCS1v15(), prehashed)
        return f"{self._protected}..{encode_base64url(signature)}\n".encode()


def _alg(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    return next(alg for alg, (curve, _) in CURVES.items() if curve == key.curve.name)

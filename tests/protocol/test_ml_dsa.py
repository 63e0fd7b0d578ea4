"""ML-DSA keys (RFC 9881): their octets, their files, and what is none of them."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from est_client.device_keys import key_from_pem, key_to_pem
from est_protocol import pkcs10, signatures
from est_protocol.errors import ConfigurationError, MessageError
from est_protocol.keys import generate_key, key_kind, spki_der
from tests.pki import make_name
from tests.vectors import rfc_vector

#: The last arc of the OID, the kind, and the size of the RFC's public key in octets.
SETS = [(17, "mldsa44", 1312), (18, "mldsa65", 1952), (19, "mldsa87", 2592)]


def algorithm_identifier(arc: int) -> bytes:
    """SEQUENCE { 2.16.840.1.101.3.4.3.ARC } and nothing after it."""
    return bytes.fromhex("300b0609608648016503040 3".replace(" ", "")) + bytes([arc])


@pytest.mark.conformance("PQ-01")
@pytest.mark.parametrize(("arc", "kind", "octets"), SETS)
def test_algorithm_identifiers_have_no_parameters(arc: int, kind: str, octets: int) -> None:
    key = generate_key(kind)
    csr = pkcs10.build(key, make_name("device"))
    spki = spki_der(csr.public_key)
    assert spki[4:17] == algorithm_identifier(arc)
    assert len(spki) == 4 + 13 + 5 + octets
    # Behind the SPKI and the attributes comes the signature's.
    assert csr.der.count(algorithm_identifier(arc)) == 2
    assert csr.signature_algorithm == f"2.16.840.1.101.3.4.3.{arc}"
    assert pkcs10.CertificationRequest.decode(csr.der).proves_possession()
    assert key_kind(csr.public_key) == kind


@pytest.mark.conformance("PQ-01")
@pytest.mark.parametrize(("arc", "kind", "octets"), SETS)
def test_the_keys_and_certificates_of_the_rfc(arc: int, kind: str, octets: int) -> None:
    name = f"ML-DSA-{kind.removeprefix('mldsa')}"
    key = key_from_pem(rfc_vector(f"rfc9881_C.1_{name}-seed.priv.pem"), name)
    public = load_pem_public_key(rfc_vector(f"rfc9881_C.2_{name}.pub.pem"))
    certificate = x509.load_pem_x509_certificate(rfc_vector(f"rfc9881_C.3_{name}.crt.pem"))
    assert key_kind(public) == kind
    assert spki_der(key.public_key()) == spki_der(public)
    assert spki_der(certificate.public_key()) == spki_der(public)
    certificate.verify_directly_issued_by(certificate)
    assert len(public.public_bytes(Encoding.Raw, PublicFormat.Raw)) == octets


@pytest.mark.conformance("PQ-03")
@pytest.mark.parametrize("kind", [kind for _, kind, _ in SETS])
def test_a_private_key_is_kept_as_its_seed(kind: str) -> None:
    key = generate_key(kind)
    pem = key_to_pem(key)
    # SEQUENCE { 0, AlgorithmIdentifier, OCTET STRING { [0] of 32 octets } }
    assert len(key.private_bytes_raw()) == 32  # type: ignore[union-attr]
    assert len(pem) < 140
    assert spki_der(key_from_pem(pem, "file").public_key()) == spki_der(key.public_key())


@pytest.mark.conformance("PQ-03")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_seed_and_an_expanded_key_that_differ_are_no_key(number: int) -> None:
    pem = rfc_vector(f"rfc9881_C.4_bad-ML-DSA-44-{number}.priv.pem")
    with pytest.raises(ConfigurationError):
        key_from_pem(pem, "file")


@pytest.mark.conformance("PQ-04")
@pytest.mark.parametrize(("arc", "hashed"), [(17, 32), (18, 33), (19, 34)])
def test_hash_ml_dsa_is_no_key_and_no_signature(arc: int, hashed: int) -> None:
    """HashML-DSA is 2.16.840.1.101.3.4.3.32 to 34 (RFC 9881 section 2)."""
    kind = next(kind for number, kind, _ in SETS if number == arc)
    der = pkcs10.build(generate_key(kind), make_name("device")).der
    pure, other = algorithm_identifier(arc), algorithm_identifier(hashed)
    with pytest.raises(MessageError):
        pkcs10.CertificationRequest.decode(der.replace(pure, other, 1))
    head, tail = der.rsplit(pure, 1)
    signed_so = pkcs10.CertificationRequest.decode(head + other + tail)
    assert not signed_so.proves_possession()


@pytest.mark.parametrize("kind", [kind for _, kind, _ in SETS])
def test_signatures_over_messages(kind: str) -> None:
    key = generate_key(kind)
    digest = signatures.digest_of(key)
    signature = signatures.sign(key, b"message", digest)
    assert signatures.verifies(key.public_key(), signature, b"message", digest)
    assert not signatures.verifies(key.public_key(), signature, b"another", digest)
    oid, with_null = signatures.algorithm_oid(key, digest)
    assert (oid.rpartition(".")[0], with_null) == ("2.16.840.1.101.3.4.3", False)


def test_another_key_proves_nothing() -> None:
    der = pkcs10.build(generate_key("mldsa44"), make_name("device")).der
    own = mldsa.MLDSA44PrivateKey.generate().public_key()
    start = der.index(algorithm_identifier(17)) + 13 + 5
    forged = der[:start] + own.public_bytes_raw() + der[start + 1312 :]
    assert not pkcs10.CertificationRequest.decode(forged).proves_possession()

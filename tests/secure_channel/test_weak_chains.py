"""Chains that OpenSSL's security level 2 refuses are refused under DTLS's level 0 too."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import PeerNotTrusted
from est_protocol.secure_channel.context import LocalCredentials, dtls_context
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.policy import DtlsPolicy
from tests import pki
from tests.secure_channel.dtls_ends import (
    DEVICE,
    ISSUER,
    ROOT,
    SERVER,
    SERVER_ANCHORS,
    Pair,
    make_client,
    make_listener,
)


def signed_with_sha1(good: LocalCredentials) -> LocalCredentials:
    """The same credentials, but with the issuer's signature over SHA-1."""
    certificate = asn1.Certificate.load(good.chain[0].public_bytes(Encoding.DER))
    for algorithm in (
        certificate["tbs_certificate"]["signature"],
        certificate["signature_algorithm"],
    ):
        algorithm["algorithm"] = "sha1_ecdsa"
    tbs = certificate["tbs_certificate"].dump(force=True)
    # To ECDSA over P-256 a short hash is a number with zeros in front.
    digest = hashlib.sha1(tbs).digest().rjust(32, b"\0")
    certificate["signature_value"] = ISSUER.key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    forged = x509.load_der_x509_certificate(certificate.dump(force=True))
    return LocalCredentials(good.key, (forged, *good.chain[1:]))


def issued_by_a_short_key(common_name: str) -> LocalCredentials:
    """Credentials under a CA of the root whose RSA key has 1024 bits."""
    ca_key = rsa.generate_private_key(65537, 1024)
    ca_name = pki.make_name("short key")
    key = pki.make_key(common_name)
    ca = (
        x509.CertificateBuilder()
        .subject_name(ca_name)
        .issuer_name(ROOT.certificate.subject)
        .public_key(ca_key.public_key())
        .serial_number(1)
        .not_valid_before(pki.PRESENT - timedelta(days=1))
        .not_valid_after(pki.PRESENT + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ROOT.key, hashes.SHA256())
    )
    leaf = (
        x509.CertificateBuilder()
        .subject_name(pki.make_name(common_name))
        .issuer_name(ca_name)
        .public_key(key.public_key())
        .serial_number(2)
        .not_valid_before(pki.PRESENT - timedelta(days=1))
        .not_valid_after(pki.PRESENT + timedelta(days=1))
        .sign(ca_key, hashes.SHA256())
    )
    return LocalCredentials(key, (leaf, ca))


def as_seen_by_server(client: LocalCredentials) -> PeerCredentials:
    peer = Pair(make_listener(), make_client(credentials=client)).shake_hands().peer
    assert peer is not None
    return peer


def test_a_client_chain_signed_with_sha1_does_not_verify() -> None:
    assert as_seen_by_server(DEVICE).is_verified
    (failure,) = as_seen_by_server(signed_with_sha1(DEVICE)).failures
    assert (failure.depth, failure.text) == (0, "CA signature digest algorithm too weak")


def test_a_client_chain_over_a_short_ca_key_does_not_verify() -> None:
    (failure,) = as_seen_by_server(issued_by_a_short_key("device")).failures
    assert (failure.depth, failure.text) == (1, "CA certificate key too weak")


@pytest.mark.conformance("CD-05")
@pytest.mark.parametrize(
    "weak",
    [signed_with_sha1(SERVER), issued_by_a_short_key("localhost")],
    ids=["sha1", "short-key"],
)
def test_a_client_ends_the_handshake_with_a_weakly_vouched_server(weak: LocalCredentials) -> None:
    policy = DtlsPolicy()
    context = dtls_context(policy, server=True, credentials=weak, anchors=SERVER_ANCHORS)
    with pytest.raises(PeerNotTrusted, match="too weak"):
        Pair(DtlsListener(context, SERVER_ANCHORS, policy), make_client()).shake_hands()

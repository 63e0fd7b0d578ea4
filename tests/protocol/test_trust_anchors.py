"""What a client makes of an answer to /cacerts, roll-over of the root included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol.chain import verify_chain
from est_protocol.errors import CertificateRejected, MessageError
from est_protocol.trust_anchors import read_ca_certificates
from tests.pki import PRESENT, Ca, make_ca, make_key, make_leaf, make_name, odd_to_openssl


def ca_certificate(
    subject_key: str,
    issuer_key: str,
    *,
    name: str = "rolling root",
    days: int = 10,
    not_before: datetime = PRESENT - timedelta(days=1),
    ca: bool = True,
) -> x509.Certificate:
    """A certificate of one key by another, both keys being CA "rolling root"'s."""
    subject, issuer = make_key(subject_key).public_key(), make_key(issuer_key)
    return (
        x509.CertificateBuilder()
        .subject_name(make_name(name))
        .issuer_name(make_name("rolling root"))
        .public_key(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(PRESENT + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
        .sign(issuer, hashes.SHA256())
    )


NEW = ca_certificate("new", "new", days=20)
OLD_WITH_OLD = ca_certificate("old", "old")
OLD_WITH_NEW = ca_certificate("old", "new")
NEW_WITH_OLD = ca_certificate("new", "old")
ROLL_OVER = (NEW, OLD_WITH_OLD, OLD_WITH_NEW, NEW_WITH_OLD)


@pytest.mark.conformance("CA-09")
@pytest.mark.parametrize("answer", list(permutations(ROLL_OVER)))
def test_the_newest_root_is_the_anchor_in_any_order(answer: tuple[x509.Certificate, ...]) -> None:
    found = read_ca_certificates(answer, now=PRESENT)
    assert found.current == NEW
    assert set(found.others) == {OLD_WITH_NEW, NEW_WITH_OLD}
    assert found.anchors == (NEW, OLD_WITH_NEW)


@pytest.mark.conformance("CA-08")
def test_what_the_old_key_signed_verifies_under_the_new_one() -> None:
    leaf = ca_certificate("device", "old", name="device", ca=False)
    found = read_ca_certificates(ROLL_OVER, now=PRESENT)
    path = verify_chain(leaf, anchors=(found.current,), intermediates=found.others, now=PRESENT)
    assert path == (leaf, OLD_WITH_NEW, NEW)
    with pytest.raises(CertificateRejected):
        verify_chain(leaf, anchors=(NEW,), intermediates=(), now=PRESENT)


def test_the_issuing_ca_counts_and_is_no_anchor() -> None:
    root = make_ca("root")
    issuing = make_ca("issuing", root)
    found = read_ca_certificates([issuing.certificate, root.certificate], now=PRESENT)
    assert found.all == (root.certificate, issuing.certificate)
    assert found.anchors == (root.certificate,)


@pytest.mark.conformance("CA-10")
def test_what_does_not_verify_is_left_out() -> None:
    foreign = make_ca("foreign")
    root = ca_certificate("new", "new", days=20)
    leaf = make_leaf(Ca(make_key("new"), root), "device").chain[0]
    below = make_ca("below foreign", foreign)
    answer = [foreign.certificate, below.certificate, leaf, root]
    found = read_ca_certificates(answer, now=PRESENT)
    assert found.all == (root,)


@pytest.mark.conformance("CA-10")
def test_a_forged_root_of_the_same_name_is_left_out() -> None:
    forged = ca_certificate("forger", "forger", days=5)
    assert read_ca_certificates([forged, NEW], now=PRESENT).all == (NEW,)


@pytest.mark.parametrize(
    "not_current",
    [
        ca_certificate("new", "new", days=30, ca=False),
        ca_certificate("new", "old", days=30),
        ca_certificate("new", "new", days=30, not_before=PRESENT + timedelta(days=5)),
    ],
    ids=["no CA", "not self-signed", "not yet valid"],
)
def test_what_cannot_be_the_anchor(not_current: x509.Certificate) -> None:
    assert read_ca_certificates([NEW, not_current], now=PRESENT).current == NEW
    with pytest.raises(MessageError):
        read_ca_certificates([not_current], now=PRESENT)


def test_an_expired_root_is_no_anchor() -> None:
    with pytest.raises(MessageError):
        read_ca_certificates([NEW], now=PRESENT + timedelta(days=21))


def test_an_answer_without_a_root_is_refused() -> None:
    issuing = make_ca("issuing", make_ca("root"))
    with pytest.raises(MessageError):
        read_ca_certificates([issuing.certificate], now=PRESENT)


def test_what_openssl_cannot_read_is_left_out() -> None:
    ca = make_ca("root")
    odd = odd_to_openssl(make_ca("issuing", ca).certificate)
    leaf = make_leaf(ca, "device").chain[0]
    now = datetime.now(UTC)
    assert read_ca_certificates([ca.certificate, odd], now=now).all == (ca.certificate,)
    path = verify_chain(leaf, anchors=[ca.certificate], intermediates=[odd], now=now)
    assert path == (leaf, ca.certificate)
    with pytest.raises(CertificateRejected, match="OpenSSL cannot read it"):
        verify_chain(odd, anchors=[ca.certificate], intermediates=[], now=now)

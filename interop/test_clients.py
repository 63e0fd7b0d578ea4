"""What every client does against the server, whoever wrote it: the shared scenarios.

What a peer cannot do is skipped, saying so; the matrix shows the reason.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import Bench, User
from interop.conftest import NewDevice
from interop.devices import Device
from interop.matrix import plays
from interop.operators import PASSWORD, USER
from interop.player import Player
from interop.registry import Client, clients
from interop.server import ServerUnderTest
from interop.transcript import Transcript

scenario = pytest.mark.scenario

OPERATOR = User(USER, PASSWORD)


@pytest.fixture(params=clients(), ids=lambda client: client.name)
def player(
    request: pytest.FixtureRequest,
    server: ServerUnderTest,
    device: Device,
    openssl: OpenSsl,
    checks: Checks,
    transcript: Transcript,
    tmp_path: Path,
) -> Player:
    """Each of the clients in turn, with a device of its own."""
    client: Client = request.param
    plays(request, client.name, client.transport)
    bench = Bench(server.https, server.coaps, server.ca, tmp_path, transcript, openssl)
    return Player(client, bench, server, device, checks)


# -- Certificates ---------------------------------------------------------------------------------


@scenario("CA certificates")
@pytest.mark.conformance("CA-01")
def test_ca_certificates(player: Player) -> None:
    peer, _ = player.peer()
    player.checks.ca_certificates(peer.ca_certificates(player.hello(), None))


@scenario("CSR attributes")
@pytest.mark.conformance("ATT-01")
def test_csr_attributes(player: Player) -> None:
    peer, label = player.peer("wishes")
    asked = player.bench.openssl.asn1(peer.csr_attributes(player.hello(), label))
    assert ":commonName" in asked
    assert ":id-ecPublicKey" in asked
    assert ":ecdsa-with-SHA256" in asked


@scenario("enroll: a bare listed key, its channel shown by a self-signed certificate")
def test_enroll_with_a_bare_key(player: Player) -> None:
    outcome = player.enroll(credentials=player.bare())
    player.issued(outcome)


@scenario("enroll: a birth certificate, for a fresh key")
@pytest.mark.conformance("AUTH-05")
def test_enroll_with_a_birth_certificate(player: Player) -> None:
    fresh = player.bench.openssl.make_key()
    outcome = player.enroll(key=fresh, credentials=player.born())
    player.issued(outcome, fresh)


@scenario("enroll: linked to the channel (POP)")
@pytest.mark.conformance("POP-01")
def test_enroll_linked(player: Player) -> None:
    outcome = player.enroll("linked", linked=True)
    player.issued(outcome)


@scenario("enroll: HTTP Basic")
@pytest.mark.conformance("AUTH-04")
def test_enroll_with_basic(player: Player) -> None:
    player.issued(player.enroll("basic", user=OPERATOR))


@scenario("enroll: HTTP Digest, SHA-256")
@pytest.mark.conformance("AUTH-04")
def test_enroll_with_digest(player: Player) -> None:
    player.issued(player.enroll("digest", user=OPERATOR))


@scenario("enroll: HTTP Digest, MD5 (allowed for a label)")
def test_enroll_with_digest_md5(player: Player) -> None:
    player.issued(player.enroll("digest-md5", user=OPERATOR))


@scenario("enroll: certificate and HTTP Basic")
def test_enroll_with_both(player: Player) -> None:
    player.issued(player.enroll("both", user=OPERATOR, credentials=player.born()))


@scenario("enroll: under a label (path segment)")
@pytest.mark.conformance("HTTP-04", "HTTP-06")
def test_enroll_under_a_label(player: Player) -> None:
    player.issued(player.enroll("second", credentials=player.born()))
    assert player.checks.audit()[-1]["label"] == "second"


@scenario("enroll: manual approval, not yet and then granted")
@pytest.mark.conformance("STAT-01")
def test_enroll_after_approval(player: Player) -> None:
    label = "manual" if player.client.enrolls_with_certificate else "manual-basic"
    first = player.enroll(label, **player.anyhow())
    if first.certificate is None:
        assert first.pending, first.text
        player.server.approve(player.device.udid)
        player.issued(player.enroll(label, **player.anyhow()))
    else:  # The peer has polled by itself.
        player.issued(first)
    assert player.checks.outcomes()[-2:] == ["pending", "issued"]


@scenario("renew: the same key")
@pytest.mark.conformance("SR-05")
def test_renew_the_same_key(player: Player) -> None:
    current = player.first_certificate()
    outcome = player.renew(key=current.key, credentials=current)
    player.issued(outcome)
    assert player.checks.audit()[-1]["operation"] == "simplereenroll"


@scenario("renew: a fresh key")
@pytest.mark.conformance("SR-05")
def test_renew_with_a_fresh_key(player: Player) -> None:
    current = player.first_certificate()
    fresh = player.bench.openssl.make_key()
    outcome = player.renew(key=fresh, credentials=current)
    player.issued(outcome, fresh)


@scenario("key made by the server")
def test_a_key_made_by_the_server(player: Player) -> None:
    peer, label = player.peer("keygen")
    outcome = peer.generate_key(player.order(label, credentials=player.born()))
    assert outcome.key is not None, outcome.text
    player.issued(outcome, outcome.key)
    assert player.checks.audit()[-1]["outcome"] == "generated"


# -- Refusals -------------------------------------------------------------------------------------


@scenario("refused: no credentials at all")
@pytest.mark.conformance("AUTH-01")
def test_nobody_is_refused(player: Player) -> None:
    player.refused(player.enroll(), "authentication-required")


@scenario("refused: a wrong password, Basic")
def test_a_wrong_password_is_refused(player: Player) -> None:
    outcome = player.enroll("basic", user=User(USER, "guessed"))
    player.refused(outcome, "credentials-wrong")


@scenario("refused: a wrong password, Digest")
def test_a_wrong_password_by_digest_is_refused(player: Player) -> None:
    label = "digest-md5" if "digest" in player.client.cannot else "digest"
    outcome = player.enroll(label, user=User(USER, "guessed"))
    player.refused(outcome, "credentials-wrong")


@scenario("refused: manual approval, not yet and then denied")
@pytest.mark.conformance("AUTH-18")
def test_enroll_after_denial(player: Player) -> None:
    label = "manual" if player.client.enrolls_with_certificate else "reviewed-basic"
    with ThreadPoolExecutor(1) as elsewhere:
        asked = elsewhere.submit(player.enroll, label, **player.anyhow())
        player.wait_for("pending", unless=asked)
        player.server.deny(player.device.udid)
        outcome = asked.result()
    if outcome.pending:  # Else the peer has polled by itself.
        outcome = player.enroll(label, **player.anyhow())
    player.refused(outcome, "approval-denied")


@scenario("refused: a device that is not on the list")
def test_an_unlisted_device_is_refused(player: Player, stranger: Device) -> None:
    player.device = stranger
    player.refused(player.first(), "unknown-device")


@scenario("refused: the key of another device")
def test_the_key_of_another_device_is_refused(player: Player, new_device: NewDevice) -> None:
    outcome = player.enroll(key=new_device().key, credentials=player.born())
    player.refused(outcome, "identity-mismatch")


@scenario("refused: a second first enrollment")
def test_a_second_claim_is_refused(player: Player) -> None:
    player.issued(player.enroll(credentials=player.born()))
    again = player.enroll(key=player.bench.openssl.make_key(), credentials=player.born())
    player.refused(again, "already-claimed")


@scenario("refused: linked to another channel (POP)")
@pytest.mark.conformance("POP-03")
def test_another_channels_binding_is_refused(player: Player) -> None:
    outcome = player.first(challenge="AAAAAAAAAAAAAAAA")
    player.refused(outcome, "pop-linking-failed")


@scenario("refused: a CSR with a wrong signature")
@pytest.mark.conformance("POP-21")
def test_a_wrong_signature_is_refused(player: Player) -> None:
    outcome = player.first(spoiled=True)
    player.refused(outcome, "proof-of-possession-failed")


@scenario("refused: a renewal under another name")
@pytest.mark.conformance("SR-03")
def test_a_renewal_under_another_name_is_refused(player: Player) -> None:
    current = player.first_certificate()
    outcome = player.renew(
        key=current.key, credentials=current, common_name="sensor-9999", renames=True
    )
    player.refused(outcome, "identity-mismatch")


@scenario("refused: a revoked certificate")
def test_a_revoked_certificate_is_refused(player: Player) -> None:
    current = player.first_certificate()
    words = ("certificates", "revoke", current.certificate, "--reason", "cessation-of-operation")
    player.server.command(*words)
    outcome = player.renew(key=current.key, credentials=current)
    player.refused(outcome, "certificate-revoked")


@scenario("refused: a renewal with a certificate that was renewed already")
def test_a_superseded_certificate_is_refused(player: Player) -> None:
    current = player.first_certificate()
    player.issued(player.renew(key=current.key, credentials=current))
    fresh = player.bench.openssl.make_key()
    again = player.renew(key=fresh, credentials=current)
    player.refused(again, "certificate-superseded")

"""What a device experiences that has its key made by the server, whichever road it takes."""

from __future__ import annotations

import asyncio
import logging

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from est_protocol import decrypt_key
from est_protocol.cms_algorithms import AES128_CBC, CAPABILITIES
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.errors import RefusalReason, ServerRefused
from est_protocol.key_package import decode_private_key
from est_protocol.key_recipients import SymmetricKey, key_identifiers
from est_protocol.keys import generate_key, key_kind, spki_der
from est_protocol.messages import GeneratedKeyResponse
from est_protocol.protected_key import unseal
from est_server.device_records import DeviceState
from est_server.ledger_records import CertificateState
from tests.behaviour.roads import Road, Session
from tests.behaviour.world import KEYS, SEALED_KEYS, Device, World
from tests.pki import make_ca, make_key, make_name

SHARED = SymmetricKey(b"kek 7", bytes(range(32)))


def check_pair(answer: GeneratedKeyResponse) -> x509.Certificate:
    """Check that the key, in the clear, is that of the one certificate."""
    assert not answer.protected
    [certificate] = answer.certificates
    key = decode_private_key(answer.key)
    assert spki_der(key.public_key()) == spki_der(certificate.public_key())
    return certificate


def asking_for(session: Session, request: ProtectionRequest, *, kind: str | None = None) -> bytes:
    """A CSR that asks for encryption."""
    key = make_key("of no consequence") if kind is None else generate_key(kind)
    return decrypt_key.write(session.csr(key, x509.Name([])), request, key).der


async def refusal_of(
    session: Session, body: bytes | None = None, *, label: str | None = KEYS
) -> ServerRefused:
    with pytest.raises(ServerRefused) as refusal:
        await session.serverkeygen(body, label=label)
    return refusal.value


def recipient(device: Device, *, usable: bool = True) -> tuple[Device, bytes]:
    """The device with a certificate over its key that may decrypt, and its identifier."""
    ca = make_ca("manufacturer")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=usable,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public_key = device.key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(make_name("birth"))
        .issuer_name(ca.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(device.certificate.not_valid_before_utc)
        .not_valid_after(device.certificate.not_valid_after_utc)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(usage, critical=True)
        .sign(ca.key, hashes.SHA256())
    )
    return device.with_certificate(certificate), key_identifiers(certificate)[0]


# -- In the clear ------------------------------------------------------------------------------


@pytest.mark.conformance("SKG-01")
async def test_no_key_is_generated_where_nobody_said_so(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        refusal = await refusal_of(session, label=None)
    assert refusal.status == road.not_found
    assert world.last_refusal == RefusalReason.UNKNOWN_OPERATION


@pytest.mark.conformance("SKG-03", "SKG-06", "SKG-09", "CF-13")
async def test_a_device_gets_a_key_and_its_certificate(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        certificate = check_pair(await session.serverkeygen())
    assert certificate.subject == make_name(device.udid)
    certificate.verify_directly_issued_by(world.authority_issuing)
    issued = await world.find(certificate)
    assert (issued.device, issued.label) == (device.udid, KEYS)
    found = await world.store.find_by_udid(device.udid)
    assert found is not None
    assert found.state is DeviceState.ENROLLED


@pytest.mark.conformance("SKG-04", "CF-16")
async def test_the_key_and_the_signature_of_the_csr_mean_nothing(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        csr = bytearray(session.csr(device.key, x509.Name([])).der)
        csr[-1] ^= 1
        certificate = check_pair(await session.serverkeygen(bytes(csr)))
    assert spki_der(certificate.public_key()) != spki_der(device.key.public_key())


async def test_the_key_of_another_device_in_the_csr_means_nothing(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    other = await world.list_device("b")
    async with road.connection(device) as session:
        answer = await session.serverkeygen(session.csr(other.key, x509.Name([])))
    assert check_pair(answer).subject == make_name(device.udid)


@pytest.mark.parametrize(("asked", "got"), [("rsa-2048", "rsa-2048"), ("ec-p521", "ec-p256")])
async def test_the_kind_of_the_key_in_the_csr_is_a_hint(
    world: World, road: Road, asked: str, got: str
) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        csr = session.csr(generate_key(asked), x509.Name([]))
        certificate = check_pair(await session.serverkeygen(csr))
    assert key_kind(certificate.public_key()) == got


async def test_two_devices_never_get_the_same_key(world: World, road: Road) -> None:
    keys = set()
    for name in "ab":
        device = await world.list_device(name, born=True)
        async with road.connection(device) as session:
            keys.add((await session.serverkeygen()).key)
    assert len(keys) == 2


@pytest.mark.conformance("SKG-05")
async def test_a_bare_listed_key_gets_a_certificate_for_itself_only(
    world: World, road: Road
) -> None:
    device = await world.list_device("a")
    async with road.connection(device) as session:
        refusal = await refusal_of(session, session.csr(device.key, x509.Name([])).der)
    assert refusal.status in (road.forbidden, "403")
    assert world.last_refusal in (
        # On HTTPS it shows nothing but a CSR, which proves nothing here.
        RefusalReason.AUTHENTICATION_REQUIRED,
        RefusalReason.KEY_NOT_ALLOWED,
    )
    assert world.issued_count() == 0


@pytest.mark.conformance("SKG-05")
async def test_an_unlisted_device_is_refused(world: World, road: Road) -> None:
    stranger = world.unlisted_device("stranger", born=True)
    async with road.connection(stranger) as session:
        await refusal_of(session)
    assert world.last_refusal == RefusalReason.UNKNOWN_DEVICE
    assert world.issued_count() == 0


@pytest.mark.conformance("POP-03")
async def test_a_csr_that_is_linked_to_another_channel_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as one, road.connection(device) as other:
        await refusal_of(one, other.csr(make_key("x"), x509.Name([])).der)
    assert world.last_refusal == RefusalReason.POP_LINKING_FAILED


@pytest.mark.conformance("SKG-22")
async def test_a_malformed_csr_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        refusal = await refusal_of(session, b"\x30\x03\x02\x01\x00")
    assert refusal.status == road.bad_request


# -- Once, and once more if the answer was lost --------------------------------------------------


async def test_a_lost_answer_is_made_good_with_another_key(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        lost = check_pair(await session.serverkeygen())
    async with road.connection(device) as session:
        found = check_pair(await session.serverkeygen())
    assert (await world.find(lost)).state is CertificateState.SUPERSEDED
    assert (await world.find(found)).state is CertificateState.ACTIVE


async def test_a_key_that_was_used_is_not_replaced_by_who_was_born(
    world: World, road: Road
) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        answer = await session.serverkeygen()
    operational = enrolled(device, answer)
    async with road.connection(operational) as session:
        await session.simplereenroll(operational.key, label=KEYS)
    async with road.connection(device) as session:
        await refusal_of(session)
    assert world.last_refusal == RefusalReason.ALREADY_CLAIMED


async def test_after_an_enrollment_there_is_no_generated_key(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        await session.simpleenroll(make_key("fresh"), label=KEYS)
        await refusal_of(session)
    assert world.last_refusal == RefusalReason.ALREADY_CLAIMED
    assert world.issued_count() == 1


async def test_at_once_and_still_one_active_certificate(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)

    async def ask() -> x509.Certificate | str:
        async with road.connection(device) as session:
            try:
                return check_pair(await session.serverkeygen())
            except ServerRefused as refused:
                return refused.status

    answers = await asyncio.gather(*(ask() for _ in range(3)))
    certificates = [a for a in answers if isinstance(a, x509.Certificate)]
    states = [(await world.find(c)).state for c in certificates]
    assert states.count(CertificateState.ACTIVE) == 1


def enrolled(device: Device, answer: GeneratedKeyResponse) -> Device:
    key = decode_private_key(answer.key)
    return Device(device.udid, key, answer.certificates)  # type: ignore[arg-type]


async def test_an_operational_certificate_gives_way_to_a_generated_key(
    world: World, road: Road
) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        first = await session.serverkeygen()
    operational = enrolled(device, first)
    async with road.connection(operational) as session:
        second = check_pair(await session.serverkeygen())
    # Its answer is lost; the old certificate still proves who asks.
    async with road.connection(operational) as session:
        third = check_pair(await session.serverkeygen())
    states = [(await world.find(c)).state for c in (first.certificates[0], second, third)]
    superseded = CertificateState.SUPERSEDED
    assert states == [superseded, superseded, CertificateState.ACTIVE]


# -- Encrypted -----------------------------------------------------------------------------------


@pytest.mark.conformance("SKG-14", "SKG-15", "CF-14", "CF-15")
async def test_encryption_with_a_shared_key(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    world.known_keys.symmetric[SHARED.identifier, device.udid] = SHARED.key
    request = ProtectionRequest(SHARED.identifier, None, CAPABILITIES)
    async with road.connection(device) as session:
        answer = await session.serverkeygen(asking_for(session, request), label=SEALED_KEYS)
    assert answer.protected
    opened = unseal(answer.key, SHARED)
    [certificate] = answer.certificates
    assert spki_der(opened.key.public_key()) == spki_der(certificate.public_key())
    assert opened.signer == world.generator.chain[0]


@pytest.mark.conformance("SKG-17", "CF-15")
async def test_encryption_for_the_key_of_the_client_certificate(world: World, road: Road) -> None:
    device, identifier = recipient(await world.list_device("a", born=True))
    request = ProtectionRequest(None, identifier, CAPABILITIES)
    async with road.connection(device) as session:
        answer = await session.serverkeygen(asking_for(session, request))
    assert answer.protected
    key = unseal(answer.key, device.key).key
    assert spki_der(key.public_key()) == spki_der(answer.certificates[0].public_key())


async def test_encryption_for_a_key_that_the_server_was_given(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    own = make_key("decryption")
    world.known_keys.public[b"dk", device.udid] = own.public_key()
    request = ProtectionRequest(None, b"dk", CAPABILITIES)
    async with road.connection(device) as session:
        answer = await session.serverkeygen(asking_for(session, request))
    unseal(answer.key, own)


@pytest.mark.parametrize(
    ("modulus", "exponent", "words"),
    [
        (2**1024 - 105, 65537, "too weak"),
        (2**2048 - 1942289, 3, "unsound"),
        (3 * 2**2046 + 3, 65537, "unsound"),
    ],
)
async def test_no_key_is_encrypted_for_one_that_can_be_broken(
    world: World, road: Road, modulus: int, exponent: int, words: str
) -> None:
    device = await world.list_device("a", born=True)
    weak = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    world.known_keys.public[b"dk", device.udid] = weak
    request = ProtectionRequest(None, b"dk", CAPABILITIES)
    async with road.connection(device) as session:
        with pytest.raises(ServerRefused, match=words):
            await session.serverkeygen(asking_for(session, request))


@pytest.mark.conformance("SKG-19")
async def test_a_key_whose_use_is_restricted_is_refused(world: World, road: Road) -> None:
    device, identifier = recipient(await world.list_device("a", born=True), usable=False)
    request = ProtectionRequest(None, identifier, CAPABILITIES)
    async with road.connection(device) as session:
        refusal = await refusal_of(session, asking_for(session, request))
    assert refusal.status == road.forbidden
    assert world.last_refusal == RefusalReason.KEY_PROTECTION_IMPOSSIBLE
    assert world.issued_count() == 0


@pytest.mark.conformance("SKG-13")
@pytest.mark.parametrize("symmetric", [True, False])
async def test_an_unknown_key_identifier_is_no_reason_for_the_clear(
    world: World, road: Road, symmetric: bool
) -> None:
    device = await world.list_device("a", born=True)
    # Somebody else's key is as good as none.
    world.known_keys.symmetric[b"x", "udid-b"] = SHARED.key
    world.known_keys.public[b"x", "udid-b"] = make_key("b").public_key()
    request = ProtectionRequest(
        b"x" if symmetric else None, None if symmetric else b"x", CAPABILITIES
    )
    async with road.connection(device) as session:
        refusal = await refusal_of(session, asking_for(session, request))
        assert refusal.status == road.forbidden
        assert world.last_refusal == RefusalReason.DECRYPT_KEY_UNKNOWN
        # The refusal cost nothing.
        check_pair(await session.serverkeygen())


async def test_nothing_in_common_is_no_reason_for_the_clear(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    world.known_keys.symmetric[SHARED.identifier, device.udid] = SHARED.key
    request = ProtectionRequest(SHARED.identifier, None, (AES128_CBC,))
    async with road.connection(device) as session:
        await refusal_of(session, asking_for(session, request))
    assert world.last_refusal == RefusalReason.KEY_PROTECTION_IMPOSSIBLE
    assert world.issued_count() == 0


@pytest.mark.conformance("SKG-21")
async def test_where_encryption_is_required_the_clear_is_refused(world: World, road: Road) -> None:
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        refusal = await refusal_of(session, label=SEALED_KEYS)
    assert refusal.status == road.forbidden
    assert world.last_refusal == RefusalReason.KEY_PROTECTION_REQUIRED
    assert world.issued_count() == 0


@pytest.mark.conformance("TLS-14")
async def test_a_stronger_key_wants_a_stronger_suite_or_encryption(
    world: World, road: Road
) -> None:
    """The default suites of CoAPS have AES-128."""
    device = await world.list_device("a", born=True)
    world.known_keys.symmetric[SHARED.identifier, device.udid] = SHARED.key
    strong = generate_key("ec-p384")
    async with road.connection(device) as session:
        weak = "AES128" in session.cipher or "AES_128" in session.cipher
        if weak:
            await refusal_of(session, session.csr(strong, x509.Name([])).der)
            assert world.last_refusal == RefusalReason.KEY_PROTECTION_REQUIRED
        request = ProtectionRequest(SHARED.identifier, None, CAPABILITIES)
        answer = await session.serverkeygen(asking_for(session, request, kind="ec-p384"))
    assert key_kind(answer.certificates[0].public_key()) == "ec-p384"
    assert unseal(answer.key, SHARED).signer == world.generator.chain[0]


# -- Never written down --------------------------------------------------------------------------


@pytest.mark.conformance("SKG-24")
async def test_the_key_is_neither_logged_nor_stored(
    world: World, road: Road, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    device = await world.list_device("a", born=True)
    async with road.connection(device) as session:
        answer = await session.serverkeygen()
    key = decode_private_key(answer.key)
    secret = key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    written = caplog.text.encode() + world.octets_at_rest()
    for form in (secret, secret.hex().encode(), answer.key, repr(answer.key).encode()):
        assert form not in written
    assert answer.certificates[0].fingerprint(hashes.SHA256()) in written

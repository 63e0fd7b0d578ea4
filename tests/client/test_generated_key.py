"""A key that the server makes, as the client asks for it and takes it or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from est_client import EstClient, LocalCredentials, TrustDatabase
from est_protocol import decrypt_key, protected_key
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.errors import (
    CertificateRejected,
    ConfigurationError,
    EstError,
    MessageError,
    PeerNotTrusted,
)
from est_protocol.key_package import KeyGenerator, encode_private_key
from est_protocol.key_recipients import Recipient, RecipientKey, SymmetricKey, key_identifiers
from est_protocol.keys import SigningKey, key_kind, spki_der
from est_protocol.messages import EstRequest, EstResponse, GeneratedKeyResponse
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest, build
from tests.client.memory import MemoryConnection, MemoryServer, issue
from tests.pki import make_ca, make_key, make_leaf, make_name, make_server

ROOT = make_ca("root")
CA = make_ca("issuing", ROOT)
SERVER = make_server(CA)
GENERATED = make_key("made by the server")
SHARED = SymmetricKey(b"k1", bytes(range(16)))

Seal = Callable[[SigningKey, ProtectionRequest], bytes]


def device() -> LocalCredentials:
    """An identity whose certificate does not restrict the use of its key."""
    key = make_key("device")
    csr = build(key, make_name("device"))
    return LocalCredentials(key, (issue(CA, csr), CA.certificate))


def client_of(
    server: MemoryServer,
    identity: LocalCredentials | None = None,
    trust: TrustDatabase | None = None,
) -> EstClient:
    return EstClient(
        server,
        trust=trust or TrustDatabase(explicit=(ROOT.certificate,)),
        identity=identity or device(),
    )


def seal_for(recipient: Recipient, signer: LocalCredentials = SERVER) -> Seal:
    def seal(key: SigningKey, request: ProtectionRequest) -> bytes:
        generator = KeyGenerator(signer.key, signer.chain)
        return protected_key.seal(key, recipient, request, generator)

    return seal


def serving(
    seal: Seal | None = None, *, key: SigningKey = GENERATED, delivered: SigningKey | None = None
) -> MemoryServer:
    """A server that makes ``key``; what it delivers may be another."""

    async def handler(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        assert request.operation is Operation.SERVERKEYGEN
        csr = CertificationRequest.decode(request.body)
        certificate = issue(CA, build(key, csr.subject, subject_alt_names=csr.subject_alt_names))
        wish = decrypt_key.read(request.body)
        sent = delivered or key
        if seal is None or wish is None:
            return GeneratedKeyResponse((certificate,), encode_private_key(sent), protected=False)
        return GeneratedKeyResponse((certificate,), seal(sent, wish), protected=True)

    return MemoryServer(CA, SERVER, handlers=[handler])


def own_key(identity: LocalCredentials) -> RecipientKey:
    identifier = key_identifiers(identity.chain[0])[0]
    return RecipientKey(identifier, identity.key.public_key())


async def test_a_key_in_the_clear() -> None:
    server = serving()
    async with client_of(server) as client:
        generated = await client.serverkeygen(encrypted=False, subject=make_name("pump"))
        assert client.identity is not None
        assert spki_der(client.identity.key.public_key()) == spki_der(device().key.public_key())
    assert spki_der(generated.key.public_key()) == spki_der(GENERATED.public_key())
    assert spki_der(generated.chain[0].public_key()) == spki_der(GENERATED.public_key())
    assert generated.chain[1:] == (CA.certificate,)
    assert generated.chain[0].subject == make_name("pump")
    [(connection, csr)] = server.enrollments
    assert csr.proves_possession()
    binding = connection.server.channel_binding
    assert binding is not None
    assert csr.challenges.challenge_password == binding.challenge_password()


@pytest.mark.conformance("SKG-11", "SKG-12")
async def test_encryption_is_asked_for_where_the_identity_can_decrypt() -> None:
    identity = device()
    server = serving(seal_for(own_key(identity)))
    async with client_of(server, identity) as client:
        generated = await client.serverkeygen()
    assert spki_der(generated.key.public_key()) == spki_der(GENERATED.public_key())
    [(_, csr)] = server.enrollments
    wish = decrypt_key.read(csr.der)
    assert wish is not None
    assert wish.asymmetric == key_identifiers(identity.chain[0])[0]


async def test_a_shared_key_is_preferred() -> None:
    server = serving(seal_for(SHARED))
    async with client_of(server) as client:
        await client.serverkeygen(shared_key=SHARED)
    [(_, csr)] = server.enrollments
    wish = decrypt_key.read(csr.der)
    assert wish is not None
    assert wish.symmetric == SHARED.identifier


async def test_an_identity_that_may_only_sign_asks_for_no_encryption() -> None:
    server = serving()
    async with client_of(server, make_leaf(CA, "device")) as client:
        await client.serverkeygen()
    [(_, csr)] = server.enrollments
    assert decrypt_key.read(csr.der) is None


async def test_the_kind_of_key_is_said_by_the_key_of_the_csr() -> None:
    server = serving()
    async with client_of(server) as client:
        await client.serverkeygen(kind="ec-p384", encrypted=False)
    [(_, csr)] = server.enrollments
    assert key_kind(csr.public_key) == "ec-p384"


@pytest.mark.parametrize(
    ("server", "options", "expected"),
    [
        (lambda: serving(), {"shared_key": SHARED}, CertificateRejected),
        (
            lambda: serving(lambda key, wish: encode_private_key(key)),
            {"shared_key": SHARED},
            MessageError,
        ),
        (
            lambda: serving(seal_for(SymmetricKey(b"k1", bytes(16)))),
            {"shared_key": SHARED},
            MessageError,
        ),
        (
            lambda: serving(seal_for(SHARED, make_leaf(make_ca("other"), "generator"))),
            {"shared_key": SHARED},
            CertificateRejected,
        ),
        (lambda: serving(delivered=make_key("x")), {"encrypted": False}, CertificateRejected),
    ],
    ids=["in the clear", "not CMS", "another key", "signed by a stranger", "not a pair"],
)
async def test_what_is_not_as_it_should_be_is_not_taken(
    server: Callable[[], MemoryServer],
    options: dict[str, SymmetricKey | bool],
    expected: type[EstError],
) -> None:
    async with client_of(server()) as client:
        with pytest.raises(expected):
            await client.serverkeygen(**options)  # type: ignore[arg-type]


async def test_a_generator_of_the_same_ca_may_sign() -> None:
    server = serving(seal_for(SHARED, make_leaf(CA, "generator")))
    async with client_of(server) as client:
        await client.serverkeygen(shared_key=SHARED)


@pytest.mark.conformance("SKG-02")
async def test_no_key_is_taken_from_a_server_that_implicit_anchors_verify() -> None:
    server = serving()
    trust = TrustDatabase(implicit=(ROOT.certificate,))
    client = EstClient(
        server, trust=trust, identity=device(), adopt_trust=False, fetch_ca_certificates=False
    )
    async with client:
        with pytest.raises(PeerNotTrusted, match="Explicit"):
            await client.serverkeygen()
    assert not server.enrollments


async def test_anchors_that_were_fetched_are_explicit() -> None:
    server = serving()
    trust = TrustDatabase(implicit=(ROOT.certificate,))
    async with client_of(server, trust=trust) as client:
        await client.serverkeygen(encrypted=False)
    assert len(server.connections) == 2


async def test_without_an_identity_there_is_nothing_to_ask_with() -> None:
    trust = TrustDatabase(explicit=(ROOT.certificate,))
    async with EstClient(serving(), trust=trust) as client:
        with pytest.raises(ConfigurationError):
            await client.serverkeygen()

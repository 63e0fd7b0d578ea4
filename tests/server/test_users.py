"""HTTP authentication and one-time secrets, from the request to the ledger."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from est_protocol import digest_authentication
from est_protocol.credentials import AnchorSet, PeerCredentials, VerificationFailure
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.http_authentication import (
    BasicCredentials,
    DigestAlgorithm,
    DigestCredentials,
    parse_challenges,
)
from est_protocol.keys import spki_sha256
from est_protocol.messages import EstRequest, Transport
from est_protocol.operations import Operation
from est_server.authorization.http_user import AnyDevice, HttpUserAuthorizer
from est_server.authorization.names import grant_for
from est_server.device_records import ListedDevice
from est_server.guesses import GuessLimits
from est_server.interfaces import ClientIdentity, EnrollmentRequest, IssuanceGrant
from est_server.user_credentials import HttpAuthentication, UserProof, UserRequirement
from est_server.users import UserLimits
from tests.pki import make_key, make_leaf
from tests.server.users import ANONYMOUS, BINDING, Clerk, Users, clerk, refused

ALICE = BasicCredentials("alice", "s3cret \u00fc")
WRONG = BasicCredentials("alice", "hunter2")
SELF_SIGNED = PeerCredentials(
    make_leaf(None, "device").chain, channel_binding=BINDING, address="127.0.0.1:4711"
)


class Recorder:
    """An authorizer that grants everything and remembers whom it saw."""

    def __init__(self) -> None:
        self.seen: list[ClientIdentity] = []

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant:
        self.seen.append(client)
        return grant_for(request, device=request.csr.key_sha256.hex())


def http(required: UserRequirement = UserRequirement.EITHER, **more: object) -> HttpAuthentication:
    return replace(HttpAuthentication(Users(), required), **more)  # type: ignore[arg-type]


def digest(
    challenge: str,
    password: str = ALICE.password,
    *,
    user: str = "alice",
    count: int = 1,
    method: str = "POST",
    algorithm: DigestAlgorithm | None = None,
) -> DigestCredentials:
    """The answer of a client to a Digest challenge."""
    (asked,) = parse_challenges(challenge)
    parameters = asked.parameters
    chosen = algorithm or DigestAlgorithm(parameters["algorithm"])
    secret = digest_authentication.user_secret(chosen, user, parameters["realm"], password)
    response = digest_authentication.response(
        secret,
        chosen,
        method=method,
        uri="/",
        nonce=parameters["nonce"],
        nonce_count=count,
        cnonce="c",
    )
    return DigestCredentials(
        user, parameters["realm"], parameters["nonce"], "/", "c", count, chosen, response
    )


# -- Who is asked, and for what -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("required", "certificate", "credentials", "status"),
    [
        (None, False, False, 403),
        (None, False, True, 403),
        (None, True, False, 200),
        (UserRequirement.HTTP, False, False, 401),
        (UserRequirement.HTTP, False, True, 200),
        (UserRequirement.HTTP, True, False, 401),
        (UserRequirement.HTTP, True, True, 200),
        (UserRequirement.BOTH, False, False, 401),
        (UserRequirement.BOTH, False, True, 403),
        (UserRequirement.BOTH, True, False, 401),
        (UserRequirement.BOTH, True, True, 403),
        (UserRequirement.EITHER, False, False, 401),
        (UserRequirement.EITHER, False, True, 200),
        (UserRequirement.EITHER, True, False, 200),
        (UserRequirement.EITHER, True, True, 200),
    ],
)
@pytest.mark.conformance("AUTH-01", "AUTH-04", "AUTH-05")
async def test_the_policies(
    tmp_path: Path,
    required: UserRequirement | None,
    certificate: bool,
    credentials: bool,
    status: int,
) -> None:
    recorder = Recorder()
    policy = http(required) if required else None
    async with clerk(tmp_path, http=policy, authorizer=recorder) as server:
        attempt = server.enroll(
            "device",
            peer=SELF_SIGNED if certificate else ANONYMOUS,
            credentials=ALICE if credentials else None,
        )
        if status == 200:
            await attempt
            asked = credentials and required is not None
            assert (recorder.seen[0].http_user is not None) == asked
            return
        refusal = await refused(attempt)
    assert refusal.status.http == status
    assert bool(refusal.challenges) == (status == 401)
    assert not recorder.seen


TRUSTED = replace(SELF_SIGNED, anchor_set=AnchorSet.MANUFACTURER, failures=())
EXPIRED = replace(TRUSTED, failures=(VerificationFailure(10, 0, "certificate has expired"),))


@pytest.mark.conformance("AUTH-05")
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    ("peer", "linked", "known"),
    [
        (SELF_SIGNED, False, False),
        (EXPIRED, False, False),
        (ANONYMOUS, True, False),
        (TRUSTED, False, True),
    ],
)
async def test_both_means_a_key_that_says_something(
    tmp_path: Path, peer: PeerCredentials, linked: bool, known: bool, listed: bool
) -> None:
    policy = http(UserRequirement.BOTH)
    async with clerk(tmp_path, http=policy, authorizer=Recorder()) as server:
        if listed:
            await server.list_device("device")
        attempt = server.enroll("device", peer=peer, credentials=ALICE, linked=linked)
        if known or listed:
            assert await attempt
        else:
            assert (await refused(attempt)).reason is RefusalReason.CERTIFICATE_NOT_TRUSTED


async def test_who_was_let_in_by_a_secret_has_no_listed_key(tmp_path: Path) -> None:
    policy = http(UserRequirement.BOTH)
    async with clerk(tmp_path, http=policy, authorizer=Recorder()) as server:
        key = spki_sha256(make_key("device").public_key())
        let_in = ListedDevice("device", key, {"unlisted": "one-time-secret"})
        await server.store.add_devices([let_in], now=server.clock.now())
        attempt = server.enroll("device", peer=SELF_SIGNED, credentials=ALICE)
        assert (await refused(attempt)).reason is RefusalReason.CERTIFICATE_NOT_TRUSTED


@pytest.mark.parametrize("required", UserRequirement)
async def test_coaps_is_no_way_around_http_credentials(
    tmp_path: Path, required: UserRequirement
) -> None:
    """Neither with a listed key, which is enough for the device list alone."""
    async with clerk(tmp_path, http=http(required), otp=True, authorizer=Recorder()) as server:
        await server.list_device("device")
        await server.add_secret("batch", "s3cret")
        otp = "batch:s3cret"
        for given in (None, otp):
            attempt = server.enroll(
                "device", transport=Transport.COAPS, peer=SELF_SIGNED, otp=given
            )
            if required is UserRequirement.EITHER:
                assert await attempt
            else:
                # The secret is one of another verifier.
                refusal = await refused(attempt)
                assert refusal.reason is RefusalReason.AUTHENTICATION_REQUIRED
                assert not refusal.challenges


async def test_the_same_secret_may_come_over_coaps(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, otp=True) as server:
        labels = server.service._labels
        policy = labels[None].http
        assert policy is not None
        required = replace(policy, required=UserRequirement.BOTH)
        labels[None] = replace(labels[None], http=required)
        await server.list_device("device")
        await server.add_secret("batch", "s3cret")
        assert await server.enroll(
            "device", transport=Transport.COAPS, peer=SELF_SIGNED, otp="batch:s3cret"
        )


@pytest.mark.parametrize("required", list(UserRequirement))
async def test_wrong_credentials_are_never_as_good_as_none(
    tmp_path: Path, required: UserRequirement
) -> None:
    recorder = Recorder()
    async with clerk(tmp_path, http=http(required), authorizer=recorder) as server:
        refusal = await refused(server.enroll("device", peer=SELF_SIGNED, credentials=WRONG))
    assert refusal.reason is RefusalReason.CREDENTIALS_WRONG
    assert refusal.status.http == 401
    assert not recorder.seen


@pytest.mark.conformance("AUTH-07")
async def test_what_a_client_is_asked(tmp_path: Path) -> None:
    policy = http(realm='the "plant"', digest=(DigestAlgorithm.SHA_256, DigestAlgorithm.MD5))
    async with clerk(tmp_path, http=policy) as server:
        refusal = await refused(server.enroll("device"))
    found = [parse_challenges(text)[0] for text in refusal.challenges]
    assert [c.scheme for c in found] == ["Digest", "Digest", "Basic"]
    assert [c.parameters.get("algorithm") for c in found] == ["SHA-256", "MD5", None]
    assert {c.parameters["realm"] for c in found} == {'the "plant"'}
    assert {c.parameters.get("qop") for c in found[:2]} == {"auth"}


async def test_an_empty_body_is_a_question_where_http_is_offered(tmp_path: Path) -> None:
    request = EstRequest(Operation.SIMPLEENROLL, Transport.HTTPS)
    async with clerk(tmp_path / "a", http=http()) as server:
        refusal = await refused(server.service.respond(request, ANONYMOUS))
        assert refusal.status.http == 401
    async with clerk(tmp_path / "b") as server:
        refusal = await refused(server.service.respond(request, ANONYMOUS))
        assert refusal.status.http == 400


@pytest.mark.conformance("AUTH-02")
async def test_nobody_is_asked_for_the_ca_certificates(tmp_path: Path) -> None:
    async with clerk(tmp_path, http=http(UserRequirement.HTTP)) as server:
        request = EstRequest(Operation.CACERTS, Transport.HTTPS)
        assert await server.service.respond(request, ANONYMOUS)


@pytest.mark.conformance("CD-09")
async def test_coaps_has_no_http_authentication(tmp_path: Path) -> None:
    recorder = Recorder()
    async with clerk(tmp_path, http=http(), authorizer=recorder) as server:
        refusal = await refused(server.enroll("device", transport=Transport.COAPS))
        assert not refusal.challenges
        await server.enroll(
            "device", transport=Transport.COAPS, peer=SELF_SIGNED, credentials=WRONG
        )
    assert recorder.seen[0].http_user is None


async def test_a_renewal_is_not_asked_unless_it_is_wanted(tmp_path: Path) -> None:
    users = Users()
    for name, renewals in (("a", False), ("b", True)):
        policy = HttpAuthentication(users, UserRequirement.HTTP, renewals=renewals)
        recorder = Recorder()
        async with clerk(tmp_path / name, http=policy, authorizer=recorder) as server:
            first = await server.enroll("device", credentials=ALICE)
            peer = PeerCredentials((first,), AnchorSet.OPERATIONAL, channel_binding=BINDING)
            again = server.enroll("device", peer=peer, operation=Operation.SIMPLEREENROLL)
            if renewals:
                assert (await refused(again)).status.http == 401
            else:
                assert await again


async def test_credentials_prove_no_key(tmp_path: Path) -> None:
    recorder = Recorder()
    async with clerk(tmp_path, http=http(), authorizer=recorder) as server:
        await server.enroll("device", credentials=ALICE)
        await server.enroll("other", credentials=ALICE, linked=True)
    assert recorder.seen[0].proven_keys == frozenset()
    assert recorder.seen[1].proven_keys == {spki_sha256(make_key("other").public_key())}
    assert str(recorder.seen[0].http_user) == "user 'alice' by basic"


async def test_the_device_list_is_not_moved_by_credentials(tmp_path: Path) -> None:
    async with clerk(tmp_path, http=http()) as server:
        await server.list_device("device")
        refusal = await refused(server.enroll("device", credentials=ALICE))
        assert refusal.reason is RefusalReason.AUTHENTICATION_REQUIRED
        assert not refusal.challenges
        await server.enroll("device", credentials=ALICE, linked=True)


async def test_an_unlisted_key_is_asked_for_credentials_that_might_help(tmp_path: Path) -> None:
    async with clerk(tmp_path, http=http()) as server:
        refusal = await refused(server.enroll("device", linked=True))
    assert refusal.reason is RefusalReason.UNKNOWN_DEVICE
    assert refusal.status.http == 401


# -- Digest ---------------------------------------------------------------------------------------


async def asked(server: Clerk) -> tuple[str, ...]:
    return (await refused(server.enroll("nobody"))).challenges


@pytest.mark.parametrize("algorithm", list(DigestAlgorithm))
async def test_digest(tmp_path: Path, algorithm: DigestAlgorithm) -> None:
    recorder = Recorder()
    policy = http(digest=(algorithm,))
    async with clerk(tmp_path, http=policy, authorizer=recorder) as server:
        challenge = (await asked(server))[0]
        await server.enroll("device", credentials=digest(challenge))
        await server.enroll("device", credentials=digest(challenge, count=2))
        for wrong in (
            digest(challenge, "hunter2", count=3),
            digest(challenge, user="bob", count=3),
            digest(challenge, count=3, method="GET"),
            replace(digest(challenge, count=3), realm="elsewhere"),
        ):
            refusal = await refused(server.enroll("device", credentials=wrong))
            assert refusal.reason is RefusalReason.CREDENTIALS_WRONG
            assert "stale" not in refusal.challenges[0]
    user = recorder.seen[0].http_user
    assert user is not None
    proofs = {
        DigestAlgorithm.SHA_256: UserProof.DIGEST_SHA_256,
        DigestAlgorithm.MD5: UserProof.DIGEST_MD5,
    }
    assert user.proof is proofs[algorithm]


async def test_a_replayed_or_old_nonce_is_stale(tmp_path: Path) -> None:
    async with clerk(tmp_path, http=http(), authorizer=Recorder()) as server:
        challenge = (await asked(server))[0]
        given = digest(challenge)
        await server.enroll("device", credentials=given)
        refusal = await refused(server.enroll("device", credentials=given))
        assert parse_challenges(refusal.challenges[0])[0].parameters["stale"] == "true"
        server.clock.advance(minutes=6)
        refusal = await refused(server.enroll("device", credentials=digest(challenge, count=2)))
        assert parse_challenges(refusal.challenges[0])[0].parameters["stale"] == "true"
        await server.enroll("device", credentials=digest(refusal.challenges[0]))


async def test_md5_only_where_it_is_allowed(tmp_path: Path) -> None:
    users = Users()
    async with clerk(tmp_path, http=HttpAuthentication(users)) as server:
        challenge = (await asked(server))[0]
        given = digest(challenge, algorithm=DigestAlgorithm.MD5)
        refusal = await refused(server.enroll("device", credentials=given))
    assert refusal.reason is RefusalReason.CREDENTIALS_WRONG
    assert users.asked == 0


async def test_basic_only_where_it_is_allowed(tmp_path: Path) -> None:
    users = Users()
    async with clerk(tmp_path, http=HttpAuthentication(users, basic=False)) as server:
        refusal = await refused(server.enroll("device", credentials=ALICE))
    assert users.asked == 0
    assert not any(challenge.startswith("Basic") for challenge in refusal.challenges)


@pytest.mark.parametrize("old", [False, True])
async def test_challenges_are_quoted_throughout_only_where_it_is_asked_for(
    tmp_path: Path, *, old: bool
) -> None:
    policy = HttpAuthentication(Users(), quoted_challenges=old)
    async with clerk(tmp_path, http=policy, authorizer=Recorder()) as server:
        challenge, basic = await asked(server)
        await server.enroll("device", credentials=digest(challenge))
    assert ('algorithm="SHA-256"' in challenge) == old
    assert ("algorithm=SHA-256" in challenge) != old
    assert ("charset" not in challenge) == old
    assert 'charset="UTF-8"' in basic


# -- Guessing -------------------------------------------------------------------------------------


async def test_guesses_are_bounded_by_user(tmp_path: Path) -> None:
    users, recorder = Users(), Recorder()
    limits = UserLimits(guesses=GuessLimits(per_user=3, window=timedelta(minutes=1)))
    policy = HttpAuthentication(users)
    async with clerk(tmp_path, http=policy, authorizer=recorder, limits=limits) as server:
        for number in range(3):
            peer = replace(ANONYMOUS, address=f"192.0.2.{number}:1")
            await refused(server.enroll("device", credentials=WRONG, peer=peer))
        refusal = await refused(server.enroll("device", credentials=ALICE))
        assert refusal.reason is RefusalReason.TOO_MANY_ATTEMPTS
        assert refusal.status == (429, (4, 29))
        assert refusal.retry_after == 60
        assert users.asked == 3
        server.clock.advance(minutes=1)
        await server.enroll("device", credentials=ALICE)


@pytest.mark.parametrize(
    ("processes", "each"), [(1, (10, 30)), (2, (5, 15)), (4, (3, 8)), (256, (1, 1))]
)
def test_processes_share_what_may_be_guessed(processes: int, each: tuple[int, int]) -> None:
    part = GuessLimits().shared_by(processes)
    assert (part.per_user, part.per_address) == each


async def test_guesses_are_bounded_by_address(tmp_path: Path) -> None:
    limits = UserLimits(guesses=GuessLimits(per_address=3))
    async with clerk(tmp_path, http=http(), authorizer=Recorder(), limits=limits) as server:
        for number in range(3):
            guess = BasicCredentials(f"user {number}", "x")
            await refused(server.enroll("device", credentials=guess))
        refusal = await refused(server.enroll("device", credentials=ALICE))
        assert refusal.reason is RefusalReason.TOO_MANY_ATTEMPTS
        peer = replace(ANONYMOUS, address="192.0.2.1:1")
        await server.enroll("device", credentials=ALICE, peer=peer)


@pytest.mark.parametrize(
    ("addresses", "one_guesser"),
    [
        (["[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8::3]:3"], True),
        (["[2001:db8::1]:1", "[2001:db8:0:1::1]:2", "[2001:db8:0:2::1]:3"], False),
        (["somewhere", "somewhere", "somewhere"], True),
        (["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"], True),
    ],
)
async def test_who_counts_as_one_address(
    tmp_path: Path, addresses: list[str], one_guesser: bool
) -> None:
    limits = UserLimits(guesses=GuessLimits(per_address=2))
    async with clerk(tmp_path, http=http(), limits=limits) as server:
        for number, address in enumerate(addresses):
            guess = BasicCredentials(f"user {number}", "x")
            peer = replace(ANONYMOUS, address=address)
            refusal = await refused(server.enroll("device", credentials=guess, peer=peer))
    assert (refusal.reason is RefusalReason.TOO_MANY_ATTEMPTS) is one_guesser


async def test_many_guesses_at_one_time_are_bounded_too(tmp_path: Path) -> None:
    class Slow(Users):
        async def check_password(self, user: str, password: str) -> bool:
            await asyncio.sleep(0)
            return await super().check_password(user, password)

    users = Slow()
    limits = UserLimits(guesses=GuessLimits(per_user=3))
    async with clerk(tmp_path, http=HttpAuthentication(users), limits=limits) as server:
        guesses = [server.enroll("device", credentials=WRONG) for _ in range(20)]
        await asyncio.gather(*map(refused, guesses))
    assert users.asked == 3


async def test_a_fleet_with_one_secret_comes_at_once(tmp_path: Path) -> None:
    """Nobody is told to come back in minutes because the others have not been answered yet."""

    class Busy(Users):
        working = most_working = 0

        async def check_password(self, user: str, password: str) -> bool:
            self.working += 1
            self.most_working = max(self.most_working, self.working)
            await asyncio.sleep(0)
            self.working -= 1
            return await super().check_password(user, password)

    users, authorizer = Busy(), Recorder()
    limits = UserLimits(guesses=GuessLimits(per_user=3, per_address=2))
    policy = HttpAuthentication(users)
    async with clerk(tmp_path, http=policy, authorizer=authorizer, limits=limits) as server:
        fleet = [server.enroll(f"device {number}", credentials=ALICE) for number in range(20)]
        assert len(set(await asyncio.gather(*fleet))) == 20
    assert users.most_working == 2


async def test_a_guess_that_nobody_judged_is_none(tmp_path: Path) -> None:
    class Away(Users):
        async def check_password(self, user: str, password: str) -> bool:
            if self.asked < 5:
                self.asked += 1
                raise RequestRefused(RefusalReason.TRY_LATER, "busy")
            return await super().check_password(user, password)

    limits = UserLimits(guesses=GuessLimits(per_user=1))
    policy = HttpAuthentication(Away())
    async with clerk(tmp_path, http=policy, authorizer=Recorder(), limits=limits) as server:
        for _ in range(5):
            refusal = await refused(server.enroll("device", credentials=ALICE))
            assert refusal.reason is RefusalReason.TRY_LATER
        await server.enroll("device", credentials=ALICE)


async def test_right_credentials_are_not_counted(tmp_path: Path) -> None:
    limits = UserLimits(guesses=GuessLimits(per_user=2, per_address=2))
    async with clerk(tmp_path, http=http(), authorizer=Recorder(), limits=limits) as server:
        for _ in range(5):
            await server.enroll("device", credentials=ALICE)


async def test_nothing_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with clerk(tmp_path, http=http(), otp=True) as server:
        await refused(server.enroll("device", credentials=WRONG))
        await refused(server.enroll("device", otp="batch:hunter2"))
    records = [str(record.__dict__) for record in caplog.records]
    assert any("credentials-wrong" in record for record in records)
    assert not any("hunter2" in record for record in records)
    assert not any(b"hunter2" in octets for octets in stored(tmp_path))


def stored(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.iterdir()]


async def test_a_verifier_that_takes_too_long_refuses(tmp_path: Path) -> None:
    class Stuck(Users):
        async def check_password(self, user: str, password: str) -> bool:
            await asyncio.Event().wait()
            return True

    async with clerk(tmp_path, http=HttpAuthentication(Stuck())) as server:
        server.service._decider._timeout = 0.01
        refusal = await refused(server.enroll("device", credentials=ALICE))
    assert refusal.reason is RefusalReason.AUTHORIZER_UNAVAILABLE


# -- Users and their devices ----------------------------------------------------------------------


@pytest.mark.conformance("AUTH-10")
async def test_users_enroll_their_devices(tmp_path: Path) -> None:
    users = Users({"line": "p", "a": "p", "ghost": "p", "": "p", "new": "p"})
    policy = HttpAuthentication(users)

    async with clerk(tmp_path, http=policy, authorizer=Recorder()) as server:
        await server.list_device("a")
        await server.list_device("b")
        devices: dict[str, str | AnyDevice] = {
            "line": AnyDevice.LISTED,
            "a": "udid-a",
            "": "udid-b",
            "new": "udid-new",
        }

        async def granted(user: str, key: str, *, unlisted: bool = False) -> bool:
            authorizer = HttpUserAuthorizer(server.store, users, devices, unlisted=unlisted)
            server.use(authorizer)
            await server.enroll(key, credentials=BasicCredentials(user, "p"))
            return True

        assert await granted("line", "a")
        assert (await refused(granted("line", "x"))).reason is RefusalReason.UNKNOWN_DEVICE
        assert (await refused(granted("line", "x", unlisted=True))).reason is (
            RefusalReason.UNKNOWN_DEVICE
        )
        assert (await refused(granted("a", "b"))).reason is RefusalReason.IDENTITY_MISMATCH
        assert (await refused(granted("a", "x"))).reason is RefusalReason.KEY_NOT_ALLOWED
        assert (await refused(granted("ghost", "a"))).reason is RefusalReason.NOT_AUTHORIZED
        assert await granted("", "b")
        assert (await refused(granted("new", "x"))).reason is RefusalReason.UNKNOWN_DEVICE
        assert await granted("new", "x", unlisted=True)

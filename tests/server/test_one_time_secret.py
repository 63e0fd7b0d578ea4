"""One-time secrets: by HTTP Basic and by otpChallenge, used up exactly once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.http_authentication import BasicCredentials
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_server.authorization.combinators import all_of, first_of
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.authorization.secret_hashes import SlowChecks, hash_secret, matches
from est_server.interfaces import IssuanceGrant
from est_server.ledger_records import EnrollmentIntent
from est_server.life_cycle import LifeCycleStep
from est_server.profiles import CertificateProfile, OperationalKey
from est_server.stores.sqlite import SqliteStore
from est_server.user_credentials import EnrollmentSecret
from tests.pki import make_leaf
from tests.server.ledger_values import FakeClock, certificate, first_enrollment, order
from tests.server.users import BINDING, COST, Clerk, clerk, refused

SECRET = BasicCredentials("batch", "open sesame")
HOUR = timedelta(hours=1)
SELF_SIGNED = PeerCredentials(make_leaf(None, "device").chain, channel_binding=BINDING)


async def reason(attempt: object) -> RefusalReason:
    return (await refused(attempt)).reason


async def uses(server: Clerk, name: str = "batch") -> int:
    secret = await server.store.find_secret(name)
    assert secret is not None
    return secret.uses


@pytest.mark.parametrize("way", ["http", "otp-https", "otp-coaps"])
async def test_a_secret_enrolls_a_listed_device(tmp_path: Path, way: str) -> None:
    async def enroll(server: Clerk, text: str) -> x509.Certificate:
        if way == "http":
            return await server.enroll("device", credentials=BasicCredentials("batch", text))
        if way == "otp-https":
            return await server.enroll("device", otp=f"batch:{text}")
        return await server.enroll(
            "device", otp=f"batch:{text}", peer=SELF_SIGNED, transport=Transport.COAPS
        )

    async with clerk(tmp_path, secret_http=way == "http", otp=way != "http") as server:
        await server.list_device("device")
        await server.add_secret("batch", "open sesame")
        assert await reason(enroll(server, "open barley")) is RefusalReason.CREDENTIALS_WRONG
        assert await uses(server) == 0
        certificate = await enroll(server, "open sesame")
        assert certificate.subject.rfc4514_string() == "CN=udid-device"
        assert await uses(server) == 1


async def test_over_coaps_a_secret_does_not_replace_the_key(tmp_path: Path) -> None:
    async with clerk(tmp_path, otp=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame")
        attempt = server.enroll("device", otp="batch:open sesame", transport=Transport.COAPS)
        assert await reason(attempt) is RefusalReason.AUTHENTICATION_REQUIRED


async def test_a_retry_gets_the_same_certificate_though_the_secret_is_used_up(
    tmp_path: Path,
) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame", expires_at=server.clock.now() + HOUR)
        first = await server.enroll("device", credentials=SECRET)
        server.clock.advance(hours=2)
        assert await server.enroll("device", credentials=SECRET) == first
        assert await reason(server.enroll("other", credentials=SECRET)) is (
            RefusalReason.SECRET_USED_UP
        )
        assert await uses(server) == 1


async def test_after_a_reset_the_same_request_takes_another_secret(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True) as server:
        await server.list_device("device")
        await server.add_secret("batch", "open sesame")
        first = await server.enroll("device", credentials=SECRET)
        reset = order(LifeCycleStep.RESET, "udid-device")
        await server.store.change_device(reset, now=server.clock.now())
        assert await reason(server.enroll("device", credentials=SECRET)) is (
            RefusalReason.SECRET_USED_UP
        )
        await server.add_secret("again", "open barley")
        again = BasicCredentials("again", "open barley")
        second = await server.enroll("device", credentials=again)
        assert second != first
        assert await server.enroll("device", credentials=again) == second
        assert await uses(server, "again") == 1


async def test_a_secret_ends(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame", expires_at=server.clock.now() + HOUR)
        server.clock.advance(hours=1)
        assert await reason(server.enroll("device", credentials=SECRET)) is (
            RefusalReason.SECRET_USED_UP
        )


async def test_a_shared_secret_is_used_so_often_and_not_more(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame", max_uses=3)
        attempts = [server.enroll(f"device {n}", credentials=SECRET) for n in range(8)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        issued = [outcome for outcome in outcomes if isinstance(outcome, x509.Certificate)]
        refusals = [outcome for outcome in outcomes if isinstance(outcome, RequestRefused)]
        assert len(issued) == 3
        assert {refusal.reason for refusal in refusals} == {RefusalReason.SECRET_USED_UP}
        assert await uses(server) == 3


async def test_whose_secret_it_is(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True) as server:
        await server.list_device("a")
        await server.list_device("b")
        await server.add_secret("batch", "open sesame", device="udid-a")
        assert await reason(server.enroll("b", credentials=SECRET)) is (
            RefusalReason.IDENTITY_MISMATCH
        )
        assert await reason(server.enroll("fresh", credentials=SECRET)) is (
            RefusalReason.KEY_NOT_ALLOWED
        )
        await server.enroll("a", credentials=SECRET)


async def test_devices_off_the_list_only_where_it_is_allowed(tmp_path: Path) -> None:
    for unlisted in (False, True):
        async with clerk(tmp_path / str(unlisted), secret_http=True, unlisted=unlisted) as server:
            await server.add_secret("batch", "open sesame", device="udid-new")
            attempt = server.enroll("fresh", credentials=SECRET)
            if unlisted:
                assert (await attempt).subject.rfc4514_string() == "CN=udid-new"
            else:
                assert await reason(attempt) is RefusalReason.UNKNOWN_DEVICE


async def test_a_device_off_the_list_is_reset_and_comes_with_another_key(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame", device="pump-17")
        first = await server.enroll("one", credentials=SECRET)
        assert await server.enroll("one", credentials=SECRET) == first
        await server.add_secret("again", "open barley", device="pump-17")
        again = BasicCredentials("again", "open barley")
        assert await reason(server.enroll("two", credentials=again)) is (
            RefusalReason.ALREADY_CLAIMED
        )
        for step in (LifeCycleStep.SUSPEND, LifeCycleStep.RESUME, LifeCycleStep.RESET):
            await server.store.change_device(order(step, "pump-17"), now=server.clock.now())
            if step is LifeCycleStep.SUSPEND:
                assert await reason(server.enroll("two", credentials=again)) is (
                    RefusalReason.DEVICE_NOT_ACTIVE
                )
        assert await reason(server.enroll("two", credentials=SECRET)) is (
            RefusalReason.SECRET_USED_UP
        )
        second = await server.enroll("two", credentials=again)
        assert second.subject.rfc4514_string() == "CN=pump-17"
        assert (await uses(server), await uses(server, "again")) == (1, 1)


async def test_a_device_off_the_list_may_need_fresh_keys(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        labels = server.service._labels
        fresh = CertificateProfile(operational_key=OperationalKey.FRESH)
        labels[None] = replace(labels[None], profile=fresh)
        await server.add_secret("batch", "open sesame")
        first = await server.enroll("device", credentials=SECRET)
        assert await server.enroll("device", credentials=SECRET) == first


async def test_a_device_off_the_list_is_refused_once_that_is_not_allowed_any_more(
    tmp_path: Path,
) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame", max_uses=2)
        first = await server.enroll("device", credentials=SECRET)
        peer = PeerCredentials((first,), AnchorSet.OPERATIONAL, channel_binding=BINDING)
        server.secrets._unlisted = False
        for attempt in (
            server.enroll("device", credentials=SECRET),
            server.enroll("device", peer=peer, operation=Operation.SIMPLEREENROLL),
        ):
            assert await reason(attempt) is RefusalReason.UNKNOWN_DEVICE
        server.use(DeviceListAuthorizer(server.store))
        for attempt in (
            server.enroll("device", linked=True),
            server.enroll("device", peer=peer, operation=Operation.SIMPLEREENROLL),
        ):
            assert await reason(attempt) is RefusalReason.UNKNOWN_DEVICE


async def test_what_can_be_no_identifier_is_not_registered(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame", device="x" * 129)
        labels = server.service._labels
        labels[None] = replace(labels[None], profile=CertificateProfile(subject="CN=device"))
        assert await reason(server.enroll("device", credentials=SECRET)) is (
            RefusalReason.NOT_AUTHORIZED
        )


async def test_a_listed_device_stays_what_its_list_says(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.list_device("device")
        listed = await server.store.find_by_udid("udid-device")
        await server.add_secret("batch", "open sesame", max_uses=2)
        await server.enroll("device", credentials=SECRET)
        enrolled = await server.store.find_by_udid("udid-device")
        assert listed is not None
        assert enrolled is not None
        assert enrolled.listed == listed.listed
        await server.add_secret("own", "open barley", device="udid-device")
        own = BasicCredentials("own", "open barley")
        assert await reason(server.enroll("fresh", credentials=own)) is (
            RefusalReason.KEY_NOT_ALLOWED
        )


async def test_a_suspended_device_has_no_use_of_a_secret(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True) as server:
        await server.list_device("device")
        await server.add_secret("batch", "open sesame")
        suspend = order(LifeCycleStep.SUSPEND, "udid-device")
        await server.store.change_device(suspend, now=server.clock.now())
        assert await reason(server.enroll("device", credentials=SECRET)) is (
            RefusalReason.DEVICE_NOT_ACTIVE
        )
        assert await uses(server) == 0


@pytest.mark.conformance("POP-19")
async def test_every_challenge_has_to_be_right(tmp_path: Path) -> None:
    """RFC 7894 section 4."""
    async with clerk(tmp_path, secret_http=True, otp=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame")
        await server.add_secret("other", "open sesame")
        wrong = server.enroll("device", credentials=SECRET, otp="batch:wrong")
        assert await reason(wrong) is RefusalReason.CREDENTIALS_WRONG
        shapeless = server.enroll("device", credentials=SECRET, otp="no colon")
        assert await reason(shapeless) is RefusalReason.MALFORMED_CSR
        two = server.enroll("device", credentials=SECRET, otp="other:open sesame")
        assert await reason(two) is RefusalReason.IDENTITY_MISMATCH
        elsewhere = PeerCredentials()
        linked = server.enroll("device", otp="batch:open sesame", linked=True, peer=elsewhere)
        assert await reason(linked) is RefusalReason.POP_LINKING_FAILED
        await server.enroll("device", credentials=SECRET, otp="batch:open sesame", linked=True)


@pytest.mark.conformance("POP-19")
async def test_a_challenge_that_nobody_judges_is_refused(tmp_path: Path) -> None:
    async with clerk(tmp_path) as server:
        await server.list_device("device")
        attempt = server.enroll("device", linked=True, otp="batch:open sesame")
        assert await reason(attempt) is RefusalReason.CREDENTIALS_WRONG


async def test_a_certificate_is_enough_to_renew_it(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame")
        first = await server.enroll("device", credentials=SECRET)
        peer = PeerCredentials((first,), AnchorSet.OPERATIONAL, channel_binding=BINDING)
        await server.enroll("device", peer=peer, operation=Operation.SIMPLEREENROLL)
        assert await uses(server) == 1


async def test_the_list_and_a_secret_together(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True) as server:
        await server.list_device("device")
        await server.add_secret("batch", "open sesame")
        server.use(all_of(DeviceListAuthorizer(server.store), server.secrets))
        assert await reason(server.enroll("device", credentials=SECRET)) is (
            RefusalReason.AUTHENTICATION_REQUIRED
        )
        await server.enroll("device", credentials=SECRET, linked=True)
        assert await uses(server) == 1


async def test_the_list_or_a_secret(tmp_path: Path) -> None:
    async with clerk(tmp_path, secret_http=True) as server:
        await server.list_device("a")
        await server.list_device("b")
        await server.add_secret("batch", "open sesame")
        server.use(first_of(DeviceListAuthorizer(server.store), server.secrets))
        await server.enroll("a", linked=True)
        assert await uses(server) == 0
        await server.enroll("b", credentials=SECRET)
        assert await uses(server) == 1


async def test_a_user_of_another_verifier_has_no_secret(tmp_path: Path) -> None:
    """Equal names at two verifiers are two users."""
    async with clerk(tmp_path / "a", secret_http=True, unlisted=True) as server:
        await server.add_secret("batch", "open sesame")
        async with clerk(tmp_path / "b", secret_http=True, unlisted=True) as other:
            await other.add_secret("batch", "open sesame")
            server.use(other.secrets)
            assert await reason(server.enroll("device", credentials=SECRET)) is (
                RefusalReason.AUTHENTICATION_REQUIRED
            )


async def test_one_certificate_does_not_use_up_two_secrets(tmp_path: Path) -> None:
    def granting(number: int | None) -> object:
        async def authorize(*_: object) -> IssuanceGrant:
            return IssuanceGrant("device", x509.Name([]), secret=number)

        return authorize

    async with clerk(tmp_path) as server:
        for one, other in ((1, 2), (1, None)):
            server.use(all_of(granting(one), granting(other)))  # type: ignore[arg-type]
            expected = RefusalReason.NOT_AUTHORIZED if other else RefusalReason.SECRET_USED_UP
            assert await reason(server.enroll("device", linked=True)) is expected


# -- The ledger's part ----------------------------------------------------------------------------


async def test_an_abandoned_attempt_gives_its_use_back(tmp_path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(tmp_path / "store.db", clock=clock) as store:
        secret = await store.add_secret(EnrollmentSecret("s", "hash"), now=clock.now())
        first = _with_secret(first_enrollment("device-1"), secret.number)
        second = _with_secret(first_enrollment("device-2"), secret.number)
        ticket = await store.begin(first)
        assert await reason(store.begin(second)) is RefusalReason.SECRET_USED_UP
        await store.abandon(ticket, reason="test", now=clock.now())  # type: ignore[arg-type]
        other = await store.begin(second)
        await store.complete(other, certificate(), now=clock.now())  # type: ignore[arg-type]
        assert await reason(store.begin(first)) is RefusalReason.SECRET_USED_UP


async def test_a_removed_secret_is_gone_for_good(tmp_path: Path, clock: FakeClock) -> None:
    async with SqliteStore.open(tmp_path / "store.db", clock=clock) as store:
        old = await store.add_secret(EnrollmentSecret("s", "hash"), now=clock.now())
        with pytest.raises(KeyError):
            await store.add_secret(EnrollmentSecret("s", "hash"), now=clock.now())
        assert await store.remove_secret("s")
        assert not await store.remove_secret("s")
        new = await store.add_secret(EnrollmentSecret("s", "hash"), now=clock.now())
        assert new.number != old.number
        assert await store.secrets() == [new]
        intent = _with_secret(first_enrollment(), old.number)
        assert await reason(store.begin(intent)) is RefusalReason.SECRET_USED_UP


def _with_secret(intent: EnrollmentIntent, number: int) -> EnrollmentIntent:
    return replace(intent, secret=number)


# -- Slow hashes ----------------------------------------------------------------------------------


def test_a_hash_tells_its_secret_from_others_and_shows_neither() -> None:
    kept = hash_secret("caf\u00e9", cost=COST)
    assert matches("cafe\u0301", kept)
    assert not matches("cafe", kept)
    assert hash_secret("caf\u00e9", cost=COST) != kept
    assert "scrypt" not in repr(EnrollmentSecret("s", kept))
    with pytest.raises(ValueError, match="md5"):
        matches("x", "md5$1$$")


async def test_checks_are_few_at_one_time() -> None:
    checks = SlowChecks(concurrent=1, waiting=1)
    kept = hash_secret("x", cost=COST)
    outcomes = await asyncio.gather(
        *(checks.matches("x", kept) for _ in range(3)), return_exceptions=True
    )
    assert outcomes[:2] == [True, True]
    assert isinstance(outcomes[2], RequestRefused)
    assert not await checks.matches("x", None)

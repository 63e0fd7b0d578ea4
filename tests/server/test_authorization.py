"""Who gets what from the device list, and what combinations of authorizers make of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from est_protocol import pkcs10
from est_protocol.credentials import AnchorSet, PeerCredentials, VerificationFailure
from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_protocol.keys import spki_sha256
from est_protocol.messages import Pending, Transport
from est_protocol.operations import Operation
from est_server.authorization.combinators import all_of, first_of
from est_server.authorization.device_list import DeviceListAuthorizer
from est_server.authorization.names import check_profile, grant_for
from est_server.device_records import Device, DeviceState, ListedDevice, Registration
from est_server.interfaces import Authorizer, ClientIdentity, EnrollmentRequest, IssuanceGrant
from est_server.ledger_records import CertificateState, IssuedCertificate
from est_server.profiles import CertificateProfile, OperationalKey
from tests.pki import make_ca, make_key, make_leaf, make_name

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UNKNOWN_ISSUER = VerificationFailure(20, 0, "unable to get local issuer certificate")
EXPIRED = VerificationFailure(VerificationFailure.EXPIRED, 0, "certificate has expired")


@dataclass
class Devices:
    """The part of a registry that authorizers ask."""

    listed: dict[str, Device] = field(default_factory=dict)

    async def find_by_key(self, spki_sha256: bytes) -> Device | None:
        found = [d for d in self.listed.values() if d.listed.spki_sha256 == spki_sha256]
        return found[0] if found else None

    async def find_by_udid(self, udid: str) -> Device | None:
        return self.listed.get(udid)

    def add(self, name: str, state: DeviceState = DeviceState.LISTED, **attributes: str) -> None:
        key_hash = spki_sha256(make_key(name).public_key())
        self.listed[name] = Device(ListedDevice(name, key_hash, attributes), state, NOW)


@pytest.fixture
def devices() -> Devices:
    devices = Devices()
    devices.add("a", owner="Example")
    devices.add("b")
    return devices


@pytest.fixture
def authorize(devices: Devices) -> Authorizer:
    return DeviceListAuthorizer(devices)  # type: ignore[arg-type]


def request(
    key: str,
    *,
    linked: bool = True,
    operation: Operation = Operation.SIMPLEENROLL,
    profile: CertificateProfile | None = None,
) -> EnrollmentRequest:
    return EnrollmentRequest(
        operation=operation,
        transport=Transport.HTTPS,
        label=None,
        csr=pkcs10.build(make_key(key), make_name("a wish")),
        pop_linked=linked,
        profile=profile or CertificateProfile(),
        received_at=NOW,
    )


def client(
    key: str | None = None,
    anchor: AnchorSet | None = None,
    *failures: VerificationFailure,
    issued_to: str | None = None,
) -> ClientIdentity:
    """A client with a certificate over ``key``, or with none."""
    if key is None:
        return ClientIdentity(PeerCredentials())
    chain = make_leaf(make_ca("any"), key).chain
    issued = None
    if issued_to is not None:
        issued = IssuedCertificate(
            chain[0], b"", issued_to, None, b"", CertificateState.ACTIVE, NOW
        )
    credentials = PeerCredentials(chain=chain, anchor_set=anchor, failures=failures)
    return ClientIdentity(credentials, issued=issued)


async def granted(
    authorize: Authorizer, wish: EnrollmentRequest, who: ClientIdentity
) -> IssuanceGrant:
    decision = await authorize(wish, who)
    assert isinstance(decision, IssuanceGrant)
    return decision


async def refused(
    authorize: Authorizer, wish: EnrollmentRequest, who: ClientIdentity
) -> RefusalReason:
    with pytest.raises(RequestRefused) as refusal:
        await authorize(wish, who)
    return refusal.value.reason


# -- The device list ---------------------------------------------------------------------------


async def test_a_linked_request_of_a_listed_key_is_granted_for_that_key(
    authorize: Authorizer,
) -> None:
    grant = await granted(authorize, request("a"), client())
    assert grant.device == "a"
    assert grant.key_sha256 == spki_sha256(make_key("a").public_key())


@pytest.mark.conformance("AUTH-01")
async def test_a_request_that_is_linked_to_nothing_is_not(authorize: Authorizer) -> None:
    reason = await refused(authorize, request("a", linked=False), client())
    assert reason is RefusalReason.AUTHENTICATION_REQUIRED


@pytest.mark.parametrize("failure", [UNKNOWN_ISSUER, EXPIRED])
async def test_a_listed_key_shows_itself_in_a_certificate_of_no_worth(
    authorize: Authorizer, failure: VerificationFailure
) -> None:
    grant = await granted(authorize, request("a", linked=False), client("a", None, failure))
    assert grant.device == "a"
    assert grant.key_sha256 is not None


async def test_a_birth_certificate_may_have_any_key_certified(authorize: Authorizer) -> None:
    grant = await granted(authorize, request("fresh"), client("a", AnchorSet.MANUFACTURER))
    assert grant.device == "a"
    assert grant.key_sha256 is None


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (client(), RefusalReason.UNKNOWN_DEVICE),
        (client("x", None, UNKNOWN_ISSUER), RefusalReason.CERTIFICATE_NOT_TRUSTED),
        (client("x", AnchorSet.MANUFACTURER, EXPIRED), RefusalReason.CERTIFICATE_EXPIRED),
        (client("x", AnchorSet.MANUFACTURER), RefusalReason.UNKNOWN_DEVICE),
    ],
    ids=["bare", "untrusted", "expired", "overproduced"],
)
async def test_who_is_not_listed_is_told_why(
    authorize: Authorizer, who: ClientIdentity, reason: RefusalReason
) -> None:
    assert await refused(authorize, request("x"), who) is reason


@pytest.mark.parametrize(
    "who",
    [
        client("b", None, UNKNOWN_ISSUER),
        client("b", AnchorSet.MANUFACTURER),
        client("b", AnchorSet.OPERATIONAL, issued_to="b"),
    ],
    ids=["bare", "born", "enrolled"],
)
@pytest.mark.parametrize("linked", [True, False])
async def test_nobody_gets_a_certificate_for_the_key_of_another_device(
    authorize: Authorizer, who: ClientIdentity, linked: bool
) -> None:
    reason = await refused(authorize, request("a", linked=linked), who)
    assert reason is RefusalReason.IDENTITY_MISMATCH


async def test_who_is_not_listed_does_not_borrow_a_listed_key(authorize: Authorizer) -> None:
    """A certificate says who the client is, even if the CSR were for a listed key."""
    reason = await refused(authorize, request("a"), client("x", None, UNKNOWN_ISSUER))
    assert reason is RefusalReason.CERTIFICATE_NOT_TRUSTED


@pytest.mark.parametrize(
    "state", [DeviceState.SUSPENDED, DeviceState.REVOKED, DeviceState.DECOMMISSIONED]
)
@pytest.mark.parametrize(
    ("wish", "who"),
    [
        (request("a"), client()),
        (request("fresh"), client("a", AnchorSet.MANUFACTURER)),
        (
            request("a", operation=Operation.SIMPLEREENROLL),
            client("a", AnchorSet.OPERATIONAL, issued_to="a"),
        ),
    ],
    ids=["bare", "born", "renewal"],
)
async def test_a_device_that_is_not_active_gets_nothing(
    devices: Devices,
    authorize: Authorizer,
    state: DeviceState,
    wish: EnrollmentRequest,
    who: ClientIdentity,
) -> None:
    devices.add("a", state)
    assert await refused(authorize, wish, who) is RefusalReason.DEVICE_NOT_ACTIVE


async def test_renewal_is_for_the_device_of_the_certificate(authorize: Authorizer) -> None:
    wish = request("fresh", operation=Operation.SIMPLEREENROLL)
    grant = await granted(authorize, wish, client("any", AnchorSet.OPERATIONAL, issued_to="a"))
    assert grant.device == "a"
    assert grant.key_sha256 is None


async def test_renewal_needs_a_certificate_of_ours_and_a_listed_device(
    authorize: Authorizer,
) -> None:
    wish = request("a", operation=Operation.SIMPLEREENROLL)
    nobody = await refused(authorize, wish, client("a", AnchorSet.MANUFACTURER))
    assert nobody is RefusalReason.CERTIFICATE_UNKNOWN
    gone = await refused(authorize, wish, client("a", AnchorSet.OPERATIONAL, issued_to="gone"))
    assert gone is RefusalReason.UNKNOWN_DEVICE


async def test_what_is_accepted_can_be_narrowed_and_widened(devices: Devices) -> None:
    born = client("a", AnchorSet.MANUFACTURER)
    no_bare = DeviceListAuthorizer(devices, bare_keys=False)  # type: ignore[arg-type]
    assert await refused(no_bare, request("a"), client()) is RefusalReason.CERTIFICATE_NOT_TRUSTED
    assert (await granted(no_bare, request("fresh"), born)).key_sha256 is None
    no_birth = DeviceListAuthorizer(devices, birth_certificates=False)  # type: ignore[arg-type]
    assert (await granted(no_birth, request("a"), born)).key_sha256 is not None


@pytest.mark.conformance("AUTH-20", "CD-10")
@pytest.mark.parametrize(
    ("failures", "accepted", "free_key"),
    [
        ((EXPIRED,), True, True),
        ((EXPIRED,), False, False),
        ((EXPIRED, UNKNOWN_ISSUER), True, False),
    ],
    ids=["allowed", "not-allowed", "not-only-expired"],
)
async def test_an_expired_birth_certificate_counts_only_where_it_may(
    devices: Devices,
    failures: tuple[VerificationFailure, ...],
    accepted: bool,
    free_key: bool,
) -> None:
    authorize = DeviceListAuthorizer(devices, expired_birth_certificates=accepted)  # type: ignore[arg-type]
    who = client("a", AnchorSet.MANUFACTURER, *failures)
    grant = await granted(authorize, request("fresh"), who)
    assert (grant.key_sha256 is None) is free_key
    # The ledger and its journal keep why.
    why = "expired birth certificate and list" if free_key else "listed key"
    assert grant.reasons == (why,)


@pytest.mark.conformance("AUTH-20")
async def test_an_expired_birth_certificate_counts_for_nothing_unless_told(
    authorize: Authorizer,
) -> None:
    who = client("a", AnchorSet.MANUFACTURER, EXPIRED)
    assert (await granted(authorize, request("fresh"), who)).reasons == ("listed key",)


@pytest.mark.parametrize(
    ("rule", "listed_allowed", "fresh_allowed"),
    [
        (OperationalKey.LISTED, True, False),
        (OperationalKey.FRESH, False, True),
        (OperationalKey.ANY, True, True),
    ],
)
async def test_the_profile_says_which_key(
    authorize: Authorizer, rule: OperationalKey, listed_allowed: bool, fresh_allowed: bool
) -> None:
    profile = CertificateProfile(operational_key=rule)
    born = client("a", AnchorSet.MANUFACTURER)
    for key, allowed in (("a", listed_allowed), ("fresh", fresh_allowed)):
        wish = request(key, profile=profile)
        if rule is OperationalKey.FRESH and not allowed:
            assert await refused(authorize, wish, born) is RefusalReason.KEY_NOT_ALLOWED
            continue
        grant = await granted(authorize, wish, born)
        assert (grant.key_sha256 in (None, wish.csr.key_sha256)) is allowed


# -- Names -------------------------------------------------------------------------------------


async def test_names_come_from_the_record_and_its_profile(authorize: Authorizer) -> None:
    profile = CertificateProfile(
        subject="CN={udid},O={owner},C=DE",
        subject_alt_names=("dns:{udid}.devices.example", "uri:urn:dev:{udid}", "ip:192.0.2.1"),
    )
    grant = await granted(authorize, request("a", profile=profile), client())
    assert grant.subject.rfc4514_string() == "CN=a,O=Example,C=DE"
    assert [type(name) for name in grant.subject_alt_names] == [
        x509.DNSName,
        x509.UniformResourceIdentifier,
        x509.IPAddress,
    ]
    assert grant.subject_alt_names[0].value == "a.devices.example"


@pytest.mark.parametrize(
    "owner", ["x,CN=root", "x+CN=root", 'x",O="y', "{udid}", "#0500", " x ", "\\2C", "日本"]
)
def test_a_record_cannot_change_the_shape_of_a_name(owner: str) -> None:
    wish = request("a", profile=CertificateProfile(subject="CN={udid},O={owner}"))
    grant = grant_for(wish, device="a", attributes={"owner": owner})
    assert [attribute.oid for attribute in grant.subject] == [
        x509.NameOID.ORGANIZATION_NAME,
        x509.NameOID.COMMON_NAME,
    ]
    (organization,) = grant.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    assert organization.value == owner


@pytest.mark.parametrize(
    "profile",
    [
        CertificateProfile(subject="O={owner}"),
        CertificateProfile(subject="CN={udid}{udid}"),
        CertificateProfile(subject_alt_names=("dns:{owner}",)),
        CertificateProfile(subject_alt_names=("ip:{udid}",)),
    ],
    ids=["absent", "too-long", "absent-san", "no-address"],
)
def test_a_name_that_cannot_be_made_is_refused_with_the_detail(
    profile: CertificateProfile,
) -> None:
    with pytest.raises(RequestRefused) as refusal:
        grant_for(request("a", profile=profile), device="x" * 40)
    assert refusal.value.reason is RefusalReason.NOT_AUTHORIZED
    assert refusal.value.detail


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("dns:{name}.example", "bank.example\0"),
        ("dns:{name}.example", "*"),
        ("dns:{name}.example", "a b"),
        ("dns:{name}.example", "-"),
        ("dns:{name}", "192.0.2.1"),
        ("dns:{name}", "bücher.example"),
        ("dns:{name}.example", "x" * 64),
        ("email:{name}@example", "a@bank.example\n"),
        ("email:{name}@example", "a@bank"),
        ("email:{name}@example", "<a>"),
        ("ip:{name}", "192.0.2.0/24"),
        ("uri:{name}", "no scheme"),
        ("uri:{name}", "urn:a\nb"),
        ("uri:{name}", "urn:"),
    ],
)
def test_a_record_cannot_change_the_kind_of_an_alternative_name(template: str, name: str) -> None:
    wish = request("a", profile=CertificateProfile(subject_alt_names=(template,)))
    with pytest.raises(RequestRefused) as refusal:
        grant_for(wish, device="a", attributes={"name": name})
    assert refusal.value.reason is RefusalReason.NOT_AUTHORIZED
    assert template in refusal.value.detail


@pytest.mark.parametrize(
    ("template", "name", "value"),
    [
        ("uri:https://{name}.example/", "bank/", "https://bank%2F.example/"),
        ("uri:https://{name}.example/", "a@bank#", "https://a%40bank%23.example/"),
        ("uri:urn:dev:mac:{name}", "00:24:be", "urn:dev:mac:00:24:be"),
        ("uri:urn:dev:{name}", "a b\n", "urn:dev:a%20b%0A"),
        ("uri:{name}", "https://device.example/1?a=b#c", "https://device.example/1?a=b#c"),
        ("dns:{name}.devices.example", "hall.a-1", "hall.a-1.devices.example"),
        ("email:{name}@devices.example", "a+b", "a+b@devices.example"),
    ],
)
def test_a_record_stays_in_its_place_in_an_alternative_name(
    template: str, name: str, value: str
) -> None:
    wish = request("a", profile=CertificateProfile(subject_alt_names=(template,)))
    (made,) = grant_for(wish, device="a", attributes={"name": name}).subject_alt_names
    assert made.value == value


@pytest.mark.parametrize("owner", ["a\0b", "a\nb", "\x1b[31m", "\u202eb"])
def test_a_name_that_cannot_be_printed_is_refused(owner: str) -> None:
    wish = request("a", profile=CertificateProfile(subject="CN={udid},O={owner}"))
    with pytest.raises(RequestRefused):
        grant_for(wish, device="a", attributes={"owner": owner})


@pytest.mark.parametrize(
    "profile",
    [
        CertificateProfile(subject="no name"),
        CertificateProfile(subject="C={udid}"),
        CertificateProfile(subject_alt_names=("host:{udid}",)),
        CertificateProfile(subject_alt_names=("dns:",)),
        CertificateProfile(subject_alt_names=("{udid}",)),
    ],
)
def test_a_wrong_template_shows_before_the_server_starts(profile: CertificateProfile) -> None:
    with pytest.raises(ConfigurationError):
        check_profile(profile)


# -- Combinations ------------------------------------------------------------------------------

WISH, WHO = request("a"), client()
GRANT = IssuanceGrant(device="a", subject=make_name("a"), reasons=("first",))


def says(answer: IssuanceGrant | Pending | Exception) -> Authorizer:
    async def authorize(
        request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant | Pending:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return authorize


def refusal(reason: RefusalReason, detail: str = "") -> RequestRefused:
    return RequestRefused(reason, "no", detail=detail)


async def test_all_of_grants_what_all_grant() -> None:
    other = replace(
        GRANT,
        validity=timedelta(days=1),
        key_sha256=b"k",
        subject=make_name("x"),
        reasons=("second",),
    )
    longer = replace(GRANT, validity=timedelta(days=2), reasons=())
    merged = await granted(all_of(says(GRANT), says(other), says(longer)), WISH, WHO)
    assert merged == replace(
        GRANT, validity=timedelta(days=1), key_sha256=b"k", reasons=("first", "second")
    )


async def test_all_of_registers_by_the_birth_certificate_where_there_is_one() -> None:
    def registering(**attributes: str) -> IssuanceGrant:
        new = ListedDevice(GRANT.device, bytes(32), attributes)
        return replace(GRANT, registration=Registration(new, DeviceState.LISTED))

    born, let_in = registering(just_in_time="acme"), registering(unlisted="one-time-secret")
    for combination in (all_of(says(born), says(let_in)), all_of(says(let_in), says(born))):
        assert (await granted(combination, WISH, WHO)).registration == born.registration
    assert (await granted(all_of(says(let_in), says(GRANT)), WISH, WHO)).registration == (
        let_in.registration
    )


async def test_all_of_refuses_what_one_refuses() -> None:
    no = refusal(RefusalReason.UNKNOWN_DEVICE)
    for combination in (all_of(says(no), says(GRANT)), all_of(says(GRANT), says(no))):
        assert await refused(combination, WISH, WHO) is RefusalReason.UNKNOWN_DEVICE


async def test_all_of_refuses_grants_that_contradict_each_other() -> None:
    other_device = replace(GRANT, device="b")
    assert (
        await refused(all_of(says(GRANT), says(other_device)), WISH, WHO)
        is RefusalReason.IDENTITY_MISMATCH
    )
    one_key, other_key = replace(GRANT, key_sha256=b"1"), replace(GRANT, key_sha256=b"2")
    assert (
        await refused(all_of(says(one_key), says(other_key)), WISH, WHO)
        is RefusalReason.KEY_NOT_ALLOWED
    )


@pytest.mark.conformance("AUTH-18")
async def test_all_of_waits_for_who_is_not_ready() -> None:
    assert await all_of(says(GRANT), says(Pending(5)))(WISH, WHO) == Pending(5)


async def test_first_of_goes_on_after_a_refusal_only() -> None:
    no = refusal(RefusalReason.UNKNOWN_DEVICE)
    assert await first_of(says(no), says(GRANT))(WISH, WHO) == GRANT
    assert await first_of(says(Pending(5)), says(GRANT))(WISH, WHO) == Pending(5)
    with pytest.raises(ZeroDivisionError):
        await first_of(says(ZeroDivisionError()), says(GRANT))(WISH, WHO)


async def test_first_of_gives_the_most_telling_refusal_with_all_details() -> None:
    combination = first_of(
        says(refusal(RefusalReason.AUTHENTICATION_REQUIRED, "one")),
        says(refusal(RefusalReason.DEVICE_NOT_ACTIVE, "two")),
        says(refusal(RefusalReason.UNKNOWN_DEVICE, "three")),
    )
    with pytest.raises(RequestRefused) as info:
        await combination(WISH, WHO)
    assert info.value.reason is RefusalReason.DEVICE_NOT_ACTIVE
    assert all(word in info.value.detail for word in ("one", "two", "three"))


def test_a_combination_of_nothing_grants_nothing() -> None:
    for combine in (all_of, first_of):
        with pytest.raises(ConfigurationError):
            combine()


async def test_an_authorizer_that_returns_no_grant_has_granted_nothing() -> None:
    async def forgets(request: EnrollmentRequest, client: ClientIdentity, /) -> None:
        return None

    with pytest.raises(TypeError):
        await all_of(forgets)(WISH, WHO)  # type: ignore[arg-type]

"""The CoAP resources without a network: paths, options, content-formats and blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiocoap import GET, POST, PUT, Message
from aiocoap.numbers import Code
from aiocoap.numbers.types import CON
from aiocoap.options import Options
from aiocoap.optiontypes import OpaqueOption
from cryptography import x509

from est_protocol import certs_only, multipart_core
from est_protocol.coap.octets import encode, parse
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Pending,
    Transport,
)
from est_protocol.operations import Operation
from est_server.coaps.messages import UNDERSTOOD, Request, Response
from est_server.coaps.site import EstSite, SiteLimits
from tests.pki import make_ca, make_leaf

ROOT = make_ca("root").certificate
ISSUING = make_ca("issuing", make_ca("root")).certificate
LEAF = make_leaf(make_ca("issuing", make_ca("root")), "leaf").chain[0]

CERTS_ONLY, PKIX_CERT, PKCS10, LINK_FORMAT, CSR_ATTRIBUTES = 281, 287, 286, 40, 285
#: RFC 8951 section 4: challengePassword, and nothing else.
CSR_ATTRIBUTES_DER = bytes.fromhex("300b06092a864886f70d010907")


class Remote:
    """Stands for one DTLS session."""

    def __init__(self) -> None:
        self.peer = PeerCredentials(address="[::1]:1234")


class RecordingService:
    """Answers every request and remembers it."""

    labels = (None, "a b/c")
    served: tuple[Operation, ...] = (
        Operation.CACERTS,
        Operation.SIMPLEENROLL,
        Operation.SIMPLEREENROLL,
    )

    def __init__(self) -> None:
        self.requests: list[EstRequest] = []
        self.refusals: list[RequestRefused] = []
        self.answer: EstResponse | RequestRefused | None = None

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """The same under every label."""
        return self.served

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        self.requests.append(request)
        if isinstance(self.answer, RequestRefused):
            raise self.answer
        if self.answer is not None:
            return self.answer
        cacerts = request.operation is Operation.CACERTS
        return CertificatesResponse((ROOT, ISSUING) if cacerts else (LEAF,))

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        self.refusals.append(refused)


@pytest.fixture
def service() -> RecordingService:
    return RecordingService()


@pytest.fixture
def remote() -> Remote:
    return Remote()


class Site:
    """The site under test, asked and heard in octets."""

    def __init__(
        self, service: RecordingService, limits: SiteLimits, *, now: Callable[[], float]
    ) -> None:
        self.tested = EstSite(service, limits, now=now)
        self.transfers = self.tested.transfers

    async def respond(self, message: Message) -> Message:
        """The answer to ``message``, both as aiocoap has them."""
        message.mtype, message.mid = CON, 1
        parsed = parse(message.encode(), UNDERSTOOD)
        answer = self.tested.answer(Request.of(parsed, message.remote))
        if not isinstance(answer, Response):
            answer = await answer
        return Message.decode(encode(2, answer.code, 1, b"", answer.options(), answer.payload))


@pytest.fixture
def site(service: RecordingService) -> Site:
    return Site(service, SiteLimits(max_body=2000), now=Clock())


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def get(remote: Remote, path: str, **options: Any) -> Message:
    return request(remote, GET, path, b"", **options)


def post(remote: Remote, path: str, payload: bytes = b"csr", **options: Any) -> Message:
    return request(remote, POST, path, payload, **{"content_format": PKCS10, **options})


def request(remote: Remote, code: Code, path: str, payload: bytes, **options: Any) -> Message:
    message = Message(code=code, payload=payload, uri_path=path.split("/"), **options)
    # As it comes off the wire, options decoded from their octets.
    decoded = Options()
    decoded.decode(message.opt.encode())
    message.opt = decoded
    message.remote = remote
    return message


def status(response: Message) -> str:
    return str(response.code).split()[0]


# -- Paths and methods -------------------------------------------------------------------------


@pytest.mark.conformance("CU-01", "CU-02", "CR-01", "CF-03")
@pytest.mark.parametrize("root", ["est", ".well-known/est"])
async def test_ca_certificates_are_at_both_roots(
    site: Site, service: RecordingService, remote: Remote, root: str
) -> None:
    response = await site.respond(get(remote, f"{root}/crts"))
    assert status(response) == "2.05"
    assert int(response.opt.content_format) == CERTS_ONLY
    assert set(certs_only.decode(response.payload)) == {ROOT, ISSUING}
    assert service.requests == [EstRequest(Operation.CACERTS, Transport.COAPS)]


@pytest.mark.conformance("CR-02", "CF-05", "CF-01", "CU-01", "CU-10")
@pytest.mark.parametrize(
    ("name", "operation"),
    [("sen", Operation.SIMPLEENROLL), ("sren", Operation.SIMPLEREENROLL)],
)
async def test_enrollment_is_answered_changed(
    site: Site, service: RecordingService, remote: Remote, name: str, operation: Operation
) -> None:
    response = await site.respond(post(remote, f"est/a b/c/{name}".replace("a b/c", "label")))
    assert status(response) == "2.04"
    assert certs_only.decode(response.payload) == (LEAF,)
    assert service.requests == [EstRequest(operation, Transport.COAPS, "label", b"csr")]


async def test_the_short_root_can_be_another_or_none(
    service: RecordingService, remote: Remote
) -> None:
    other = Site(service, SiteLimits(short_root="e/s"), now=Clock())
    assert status(await other.respond(get(remote, "e/s/crts"))) == "2.05"
    assert status(await other.respond(get(remote, "est/crts"))) == "4.04"
    none = Site(service, SiteLimits(short_root=""), now=Clock())
    assert status(await none.respond(get(remote, "est/crts"))) == "4.04"
    assert status(await none.respond(get(remote, ".well-known/est/crts"))) == "2.05"


@pytest.mark.parametrize(
    "path",
    ["", "est", "est/cacerts", "est/skg", "est/skc", "est/att", "est/a/b/crts", "crts", "est/"],
)
async def test_other_paths_are_not_found(
    site: Site, service: RecordingService, remote: Remote, path: str
) -> None:
    response = await site.respond(get(remote, path))
    assert status(response) == "4.04"
    assert response.payload.decode()
    assert response.opt.content_format is None
    assert not service.requests
    assert [refused.reason for refused in service.refusals] == [RefusalReason.UNKNOWN_OPERATION]


@pytest.mark.conformance("CR-04")
@pytest.mark.parametrize(
    ("code", "path"), [(POST, "est/crts"), (GET, "est/sen"), (PUT, "est/sren")]
)
async def test_other_methods_are_not_allowed(
    site: Site, service: RecordingService, remote: Remote, code: Code, path: str
) -> None:
    response = await site.respond(request(remote, code, path, b"csr", content_format=PKCS10))
    assert status(response) == "4.05"
    assert not service.requests


# -- Content-formats and options ---------------------------------------------------------------


@pytest.mark.conformance("CF-02")
@pytest.mark.parametrize("content_format", [None, 0, 281, 60])
async def test_a_csr_needs_its_content_format(
    site: Site, service: RecordingService, remote: Remote, content_format: int | None
) -> None:
    response = await site.respond(post(remote, "est/sen", content_format=content_format))
    assert status(response) == "4.15"
    assert not service.requests


@pytest.mark.conformance("CF-17")
async def test_a_body_for_ca_certificates_is_refused(site: Site, remote: Remote) -> None:
    response = await site.respond(get(remote, "est/crts", content_format=PKCS10))
    assert status(response) == "4.15"


@pytest.mark.conformance("CF-04")
async def test_one_certificate_can_be_had_bare(site: Site, remote: Remote) -> None:
    response = await site.respond(post(remote, "est/sen", accept=PKIX_CERT))
    assert int(response.opt.content_format) == PKIX_CERT
    assert x509.load_der_x509_certificate(response.payload) == LEAF


@pytest.mark.conformance("CF-06")
async def test_several_certificates_cannot_be_had_bare(site: Site, remote: Remote) -> None:
    response = await site.respond(get(remote, "est/crts", accept=PKIX_CERT))
    assert status(response) == "4.06"


@pytest.mark.conformance("CF-06")
async def test_an_unknown_accept_is_refused_before_anything_is_issued(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    assert status(await site.respond(post(remote, "est/sen", accept=60))) == "4.06"
    assert not service.requests
    assert [refused.reason for refused in service.refusals] == [RefusalReason.NOT_ACCEPTABLE]


@pytest.mark.conformance("CR-11", "BW-13")
@pytest.mark.parametrize(
    ("number", "refused"),
    [(9, True), (19, True), (31, True), (35, True), (2049, True), (2048, False)],
)
async def test_unknown_critical_options_are_refused_and_elective_ones_ignored(
    site: Site, remote: Remote, number: int, refused: bool
) -> None:
    message = get(remote, "est/crts")
    message.opt.add_option(OpaqueOption(number, b"x"))
    assert status(await site.respond(message)) == ("4.02" if refused else "2.05")


@pytest.mark.conformance("CU-11", "CR-11")
async def test_a_client_may_name_the_host_and_the_port(site: Site, remote: Remote) -> None:
    response = await site.respond(get(remote, "est/crts", uri_host="est.example", uri_port=5684))
    assert status(response) == "2.05"


@pytest.mark.conformance("CR-11")
async def test_a_critical_option_that_comes_twice_is_refused(site: Site, remote: Remote) -> None:
    message = get(remote, "est/crts", accept=CERTS_ONLY)
    message.opt.add_option(OpaqueOption(17, b"\x01\x19"))
    assert status(await site.respond(message)) == "4.02"


# -- Refusals ----------------------------------------------------------------------------------


@pytest.mark.conformance("CR-04", "CR-16")
async def test_a_refusal_has_its_code_and_its_sentence(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    service.answer = RequestRefused(RefusalReason.UNKNOWN_DEVICE, "not on the list", detail="x")
    response = await site.respond(post(remote, "est/sen"))
    assert status(response) == "4.03"
    assert response.payload == b"not on the list"
    assert response.opt.content_format is None
    # The service has noted it; it must not be noted twice.
    assert not service.refusals


@pytest.mark.conformance("CR-06")
async def test_not_yet_is_service_unavailable_with_max_age(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    service.answer = Pending(retry_after=300)
    response = await site.respond(post(remote, "est/sen"))
    assert status(response) == "5.03"
    assert response.opt.max_age == 300


async def test_a_diagnostic_fits_into_the_clients_blocks(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    service.answer = RequestRefused(RefusalReason.UNKNOWN_DEVICE, "ü" * 500)
    response = await site.respond(post(remote, "est/sen", block2=(0, False, 2)))
    assert response.payload.decode() == "ü" * 32


# -- Block-wise transfer -----------------------------------------------------------------------


def blocks(payload: bytes, szx: int) -> list[tuple[tuple[int, bool, int], bytes]]:
    size = 1 << (szx + 4)
    count = -(-len(payload) // size)
    return [
        ((number, number < count - 1, szx), payload[number * size : (number + 1) * size])
        for number in range(count)
    ]


@pytest.mark.conformance("BW-01", "BW-06", "BW-07", "BW-08")
@pytest.mark.parametrize("szx", range(7))
async def test_a_request_and_its_answer_in_blocks(
    site: Site, service: RecordingService, remote: Remote, szx: int
) -> None:
    csr = bytes(range(256)) * 5
    *first, last = blocks(csr, szx)
    for block1, payload in first:
        response = await site.respond(post(remote, "est/sen", payload, block1=block1))
        assert status(response) == "2.31"
        assert tuple(response.opt.block1) == block1
        assert not service.requests
    block1, payload = last
    response = await site.respond(post(remote, "est/sen", payload, block1=block1))
    assert status(response) == "2.04"
    assert tuple(response.opt.block1) == (block1[0], False, szx)
    body, etag = response.payload, response.opt.etag
    while response.opt.block2 is not None and response.opt.block2.more:
        number = response.opt.block2.block_number + 1
        response = await site.respond(post(remote, "est/sen", b"", block2=(number, False, szx)))
        assert status(response) == "2.04"
        assert response.opt.etag == etag
        body += response.payload
    assert certs_only.decode(body) == (LEAF,)
    assert service.requests == [EstRequest(Operation.SIMPLEENROLL, Transport.COAPS, None, csr)]


@pytest.mark.conformance("CR-13")
async def test_a_last_block_that_comes_again_enrolls_once(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    *first, (block1, payload) = blocks(b"x" * 100, 2)
    for block, part in first:
        await site.respond(post(remote, "est/sen", part, block1=block))
    once = await site.respond(post(remote, "est/sen", payload, block1=block1))
    again = await site.respond(post(remote, "est/sen", payload, block1=block1))
    assert once.payload == again.payload
    assert status(again) == "2.04"
    assert len(service.requests) == 1


@pytest.mark.conformance("CR-13")
async def test_a_block_in_between_that_comes_again_is_taken_once(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    csr = bytes(range(200))
    for number, (block1, payload) in enumerate(blocks(csr, 2)):
        for _ in range(2 if number == 1 else 1):
            await site.respond(post(remote, "est/sen", payload, block1=block1))
    assert [r.body for r in service.requests] == [csr]


@pytest.mark.conformance("BW-09")
async def test_a_gap_is_incomplete(site: Site, service: RecordingService, remote: Remote) -> None:
    first, _, third = blocks(b"x" * 192, 2)
    await site.respond(post(remote, "est/sen", first[1], block1=first[0]))
    response = await site.respond(post(remote, "est/sen", third[1], block1=third[0]))
    assert status(response) == "4.08"
    assert not service.requests


@pytest.mark.conformance("BW-09")
async def test_a_block_without_its_beginning_is_incomplete(site: Site, remote: Remote) -> None:
    response = await site.respond(post(remote, "est/sen", b"x" * 64, block1=(3, True, 2)))
    assert status(response) == "4.08"


async def test_a_block_of_the_wrong_length_is_malformed(site: Site, remote: Remote) -> None:
    response = await site.respond(post(remote, "est/sen", b"x" * 63, block1=(0, True, 2)))
    assert status(response) == "4.00"


@pytest.mark.conformance("BW-10")
@pytest.mark.parametrize("option", ["block1", "block2"])
async def test_block_size_7_is_malformed(site: Site, remote: Remote, option: str) -> None:
    response = await site.respond(post(remote, "est/sen", b"csr", **{option: (0, False, 7)}))
    assert status(response) == "4.00"


@pytest.mark.conformance("BW-09", "BW-04")
async def test_too_large_a_body_is_refused_with_the_size_that_is_not(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    whole = await site.respond(post(remote, "est/sen", b"x" * 2001))
    announced = await site.respond(post(remote, "est/sen", b"x" * 16, size1=2001))
    for block1, payload in blocks(b"x" * 2001, 6):
        in_blocks = await site.respond(post(remote, "est/sen", payload, block1=block1))
    for response in (whole, announced, in_blocks):
        assert status(response) == "4.13"
        assert response.opt.size1 == 2000
    assert not service.requests
    assert site.transfers.octets == 0


@pytest.mark.conformance("BW-11")
async def test_sessions_do_not_share_transfers(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    first, second = blocks(b"x" * 100, 2)
    await site.respond(post(remote, "est/sen", first[1], block1=first[0]))
    response = await site.respond(post(Remote(), "est/sen", second[1], block1=second[0]))
    assert status(response) == "4.08"
    assert not service.requests


async def test_a_session_that_ends_frees_its_transfers(site: Site) -> None:
    remote = Remote()
    await site.respond(post(remote, "est/sen", b"x" * 1024, block1=(0, True, 6)))
    assert site.transfers.octets == 1024
    site.transfers.forget(remote)
    assert site.transfers.octets == 0


@pytest.mark.conformance("BW-11")
async def test_transfers_expire(service: RecordingService, remote: Remote) -> None:
    clock = Clock()
    site = Site(service, SiteLimits(transfer_lifetime=10), now=clock)
    first, second = blocks(b"x" * 100, 2)
    await site.respond(post(remote, "est/sen", first[1], block1=first[0]))
    clock.seconds = 10
    response = await site.respond(post(remote, "est/sen", second[1], block1=second[0]))
    assert status(response) == "4.08"
    assert site.transfers.octets == 0


@pytest.mark.conformance("BW-11")
async def test_all_sessions_together_are_bounded(service: RecordingService, remote: Remote) -> None:
    site = Site(service, SiteLimits(max_transfer_octets=2000), now=Clock())
    for number in (0, 1):
        response = await site.respond(
            post(remote, "est/sen", bytes([number]) * 1024, block1=(number, True, 6))
        )
    assert status(response) == "5.03"
    assert response.opt.max_age
    assert site.transfers.octets == 1024


@pytest.mark.conformance("BW-11")
async def test_who_is_silent_keeps_nobody_out(service: RecordingService, remote: Remote) -> None:
    site = Site(service, SiteLimits(max_transfer_octets=2100), now=Clock())
    silent, busy = Remote(), Remote()
    for other in (silent, busy):
        await site.respond(post(other, "est/sen", b"x" * 1024, block1=(0, True, 6)))
    # Whoever goes on is not silent.
    await site.respond(post(silent, "est/sen", b"y" * 16, block1=(64, True, 0)))
    await site.respond(post(busy, "est/sen", b"y" * 16, block1=(64, True, 0)))
    response = await site.respond(post(remote, "est/sen", b"x" * 1024, block1=(0, True, 6)))
    assert status(response) == "2.31"
    assert site.transfers.octets == 1040 + 1024
    response = await site.respond(post(busy, "est/sen", b"z" * 16, block1=(65, True, 0)))
    assert status(response) == "2.31"
    response = await site.respond(post(silent, "est/sen", b"z" * 16, block1=(65, True, 0)))
    assert status(response) == "4.08"


@pytest.mark.conformance("BW-11")
async def test_one_session_has_only_so_many_transfers(
    service: RecordingService, remote: Remote
) -> None:
    site = Site(service, SiteLimits(max_transfers=2), now=Clock())
    for label in "abc":
        await site.respond(post(remote, f"est/{label}/sen", b"x" * 64, block1=(0, True, 2)))
    assert site.transfers.octets == 128


@pytest.mark.conformance("BW-01", "BW-04", "BW-08")
async def test_an_answer_in_blocks_is_asked_for_without_asking_the_service_again(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    response = await site.respond(get(remote, "est/crts", block2=(0, False, 2), size2=0))
    body = response.payload
    assert response.opt.size2 is not None
    while response.opt.block2.more:
        number = response.opt.block2.block_number + 1
        response = await site.respond(get(remote, "est/crts", block2=(number, False, 2)))
        body += response.payload
    assert set(certs_only.decode(body)) == {ROOT, ISSUING}
    assert len(service.requests) == 1


@pytest.mark.conformance("BW-10")
async def test_a_client_may_go_on_in_smaller_blocks(site: Site, remote: Remote) -> None:
    first = await site.respond(get(remote, "est/crts", block2=(0, False, 4)))
    second = await site.respond(get(remote, "est/crts", block2=(4, False, 2)))
    whole = await site.respond(get(remote, "est/crts"))
    assert first.payload == whole.payload[:256]
    assert second.payload == whole.payload[256:320]


@pytest.mark.conformance("BW-10")
async def test_a_server_that_wants_smaller_blocks_says_so(
    service: RecordingService, remote: Remote
) -> None:
    site = Site(service, SiteLimits(block_size_exponent=2), now=Clock())
    response = await site.respond(post(remote, "est/sen", b"x" * 1024, block1=(0, True, 6)))
    assert tuple(response.opt.block1) == (0, True, 2)
    response = await site.respond(post(remote, "est/sen", b"y" * 10, block1=(16, False, 2)))
    assert status(response) == "2.04"
    assert [r.body for r in service.requests] == [b"x" * 1024 + b"y" * 10]


@pytest.mark.conformance("BW-08")
async def test_a_later_block_of_an_answer_that_is_gone(
    site: Site, service: RecordingService, remote: Remote
) -> None:
    gone = await site.respond(post(remote, "est/sen", b"", block2=(1, False, 2)))
    assert status(gone) == "4.08"
    assert not service.requests
    beyond = await site.respond(get(remote, "est/crts", block2=(500, False, 2)))
    assert status(beyond) == "4.00"


# -- CSR attributes ----------------------------------------------------------------------------


@pytest.fixture
def asking(service: RecordingService) -> Site:
    """A site whose service asks for linking."""
    service.served = (*service.served, Operation.CSRATTRS)
    service.answer = CsrAttributesResponse(CSR_ATTRIBUTES_DER)
    return Site(service, SiteLimits(), now=Clock())


@pytest.mark.conformance("CF-07", "CU-01", "ATT-28")
@pytest.mark.parametrize("options", [{}, {"accept": CSR_ATTRIBUTES}])
async def test_csr_attributes_have_a_content_format_of_their_own(
    asking: Site, service: RecordingService, remote: Remote, options: dict[str, int]
) -> None:
    response = await asking.respond(get(remote, "est/att", **options))
    assert status(response) == "2.05"
    assert int(response.opt.content_format) == CSR_ATTRIBUTES
    assert response.payload == CSR_ATTRIBUTES_DER
    assert service.requests == [EstRequest(Operation.CSRATTRS, Transport.COAPS)]


async def test_csr_attributes_are_to_be_had_in_no_other(
    asking: Site, service: RecordingService, remote: Remote
) -> None:
    assert status(await asking.respond(get(remote, "est/att", accept=CERTS_ONLY))) == "4.06"
    assert status(await asking.respond(post(remote, "est/att"))) == "4.05"
    assert not service.requests


@pytest.mark.conformance("CR-03")
async def test_no_csr_attributes_is_not_found(
    asking: Site, service: RecordingService, remote: Remote
) -> None:
    """RFC 9148 section 4.5; and that is an answer, not a refusal to be noted."""
    service.answer = CsrAttributesResponse(None)
    assert status(await asking.respond(get(remote, "est/att"))) == "4.04"
    assert not service.refusals


@pytest.mark.conformance("CU-05")
async def test_csr_attributes_are_discovered_where_there_are_any(asking: Site) -> None:
    assert '</est/att>;rt="ace.est.att";ct=285' in await discover(asking)


# -- Discovery ---------------------------------------------------------------------------------

LINKS = [
    '</est/crts>;rt="ace.est.crts";ct="281 287"',
    '</est/sen>;rt="ace.est.sen";ct="281 287"',
    '</est/sren>;rt="ace.est.sren";ct="281 287"',
]


async def discover(site: Site, *queries: str) -> list[str]:
    response = await site.respond(get(Remote(), ".well-known/core", uri_query=list(queries)))
    assert status(response) == "2.05"
    assert int(response.opt.content_format) == LINK_FORMAT
    return response.payload.decode().split(",") if response.payload else []


@pytest.mark.conformance("CU-03", "CU-04", "CU-05", "CU-06", "CU-13")
async def test_discovery_lists_what_is_served(site: Site) -> None:
    assert await discover(site) == [
        *LINKS,
        *(link.replace("/est/", "/est/a%20b%2Fc/") for link in LINKS),
    ]


@pytest.mark.conformance("CU-07")
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("rt=ace.est*", 6),
        ("rt=ace.est.crts", 2),
        ("rt=ace.est", 0),
        ("ct=281", 6),
        ("ct=285", 0),
        ("href=/est/sen", 1),
        ("href=/est/s*", 2),
        ("unknown=1", 0),
    ],
)
async def test_discovery_filters(site: Site, query: str, count: int) -> None:
    assert len(await discover(site, query)) == count


async def test_discovery_speaks_link_format_only(site: Site, remote: Remote) -> None:
    refused = await site.respond(get(remote, ".well-known/core", accept=50))
    assert status(refused) == "4.06"


# -- Generated keys ------------------------------------------------------------------------------


@pytest.fixture
def generating(service: RecordingService) -> Site:
    """A site whose service generates keys."""
    service.served = (*service.served, Operation.SERVERKEYGEN)
    service.answer = GeneratedKeyResponse((LEAF,), b"key", protected=False)
    return Site(service, SiteLimits(), now=Clock())


async def test_key_generation_is_discovered_where_it_is_served(
    generating: Site, site: Site
) -> None:
    found = await discover(generating)
    assert '</est/skg>;rt="ace.est.skg";ct=62' in found
    assert '</est/skc>;rt="ace.est.skc";ct=62' in found
    assert not [
        link
        for link in await discover(Site(RecordingService(), SiteLimits(), now=Clock()))
        if "/sk" in link
    ]


@pytest.mark.conformance("CF-08", "CF-11", "CU-01")
@pytest.mark.parametrize(("name", "certificate"), [("skg", 281), ("skc", 287)])
@pytest.mark.parametrize("options", [{}, {"accept": 62}])
async def test_both_names_of_key_generation(
    generating: Site,
    service: RecordingService,
    remote: Remote,
    name: str,
    certificate: int,
    options: dict[str, int],
) -> None:
    response = await generating.respond(post(remote, f"est/{name}", b"csr", **options))
    assert status(response) == "2.04"
    assert int(response.opt.content_format) == 62
    formats = [part.content_format for part in multipart_core.decode(bytes(response.payload))]
    assert formats == [284, certificate]
    [request] = service.requests
    assert request.operation is Operation.SERVERKEYGEN


async def test_a_generated_key_in_another_format_is_not_to_be_had(
    generating: Site, service: RecordingService, remote: Remote
) -> None:
    response = await generating.respond(post(remote, "est/skg", b"csr", accept=281))
    assert status(response) == "4.06"
    assert not service.requests


async def test_key_generation_is_not_there_unless_it_is_served(site: Site, remote: Remote) -> None:
    for name in ("skg", "skc"):
        assert status(await site.respond(post(remote, f"est/{name}", b"csr"))) == "4.04"

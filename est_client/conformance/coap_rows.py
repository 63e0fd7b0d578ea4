"""EST over CoAP and DTLS (RFC 9148 sections 3 and 4)."""

from __future__ import annotations

import base64
from collections.abc import Callable

from aiocoap import Message
from aiocoap.numbers import Code, OptionNumber
from aiocoap.numbers.types import RST
from aiocoap.optiontypes import OpaqueOption
from cryptography import x509

from est_client.conformance.bench import Bench, Channel, Sender
from est_client.conformance.coap_channel import CoapChannel, options_of
from est_client.conformance.reply import Reply
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol.errors import ChannelError
from est_protocol.media_types import ContentFormat
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.policy import DtlsPolicy

COAPS = Transport.COAPS

_CCM8 = DtlsPolicy(ciphers="ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0")
_P256 = DtlsPolicy(groups="P-256")
_SMALL = DtlsPolicy(mtu=256)
_WEAK = DtlsPolicy(ciphers="eNULL:aNULL:EXPORT:DES:3DES:RC4:@SECLEVEL=0")

#: Of the numbers for experiments (RFC 7252 section 12.2), an odd and an even one.
_UNKNOWN_CRITICAL, _UNKNOWN_ELECTIVE = 65001, 65000
#: Reserved for experiments too; no server can answer in it.
_UNKNOWN_FORMAT = 65001


def request_for(bench: Bench, operation: Operation | str, code: Code = Code.GET) -> Message:
    """A request without a body."""
    message = Message(code=code)
    message.opt.uri_path = bench.coap_path(operation)
    return message


def coap_sender(bench: Bench, change: Callable[[Message], None]) -> Sender:
    """Sends a CSR in a request that is changed first."""

    async def send(channel: Channel, operation: Operation, der: bytes) -> Reply:
        assert isinstance(channel, CoapChannel)
        message = bench.coap_post(operation, der)
        change(message)
        return await bench.ask_coap(channel, message)

    return send


# -- DTLS -----------------------------------------------------------------------------------------


async def _shakes_hands(bench: Bench, policy: DtlsPolicy) -> str:
    async with bench.coap(dtls=policy) as channel:
        reply = await bench.get(channel, Operation.CACERTS)
    return f"{channel.server.cipher}, /crts {reply.status}"


@row("CD-01", Level.MUST, "RFC 9148 3", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", COAPS)
async def mandatory_suite(bench: Bench) -> str:
    return await _shakes_hands(bench, _CCM8)


@row("CD-02", Level.MUST, "RFC 9148 3", "secp256r1", COAPS)
async def mandatory_group(bench: Bench) -> str:
    return await _shakes_hands(bench, _P256)


@row("CD-05", Level.MUST, "RFC 9148 3", "the server authenticates by certificate", COAPS)
async def server_certificate(bench: Bench) -> str:
    async with bench.coap() as channel:
        certificate = channel.server.certificate
    if certificate is None:
        raise Failed("the server has none")
    return certificate.subject.rfc4514_string()


@row("CD-07", Level.MUST, "RFC 9148 4", "every function wants an authenticated client", COAPS)
async def no_anonymous_clients(bench: Bench) -> str:
    try:
        async with bench.anonymous_coap() as channel:
            return await _refuses_anonymous(bench, channel)
    except ChannelError as error:
        return f"no session without a client certificate: {error}"


async def _refuses_anonymous(bench: Bench, channel: CoapChannel) -> str:
    seen = []
    for operation in (Operation.CACERTS, Operation.CSRATTRS):
        reply = await bench.get(channel, operation, anonymous=True)
        missing = operation is Operation.CSRATTRS and reply.code == 404
        what = f"/{operation.short_name} without a client certificate"
        require(missing or reply.code in (401, 403), f"{what} is answered {reply}")
        seen.append(f"/{operation.short_name} {reply.status}")
    return f"without a client certificate: {', '.join(seen)}"


@row("CD-12", Level.MUST, "RFC 9148 3, RFC 6347 4.2.6", "fragments do not change Finished", COAPS)
async def fragments(bench: Bench) -> str:
    await bench.require_granted("a CSR linked to a handshake in fragments", dtls=_SMALL)
    return "a CSR linked to a handshake in datagrams of 256 octets is granted"


@row("CD-14", Level.SHOULD, "RFC 9148 9.1, RFC 7627", "extended master secret", COAPS)
async def extended_master_secret(bench: Bench) -> str:
    async with bench.coap() as channel:
        require(channel.extended_master_secret, "it is not negotiated")
    return "negotiated"


@row("CD-15", Level.MAY, "RFC 9148 3", "one session carries several requests", COAPS)
async def several_requests(bench: Bench) -> str:
    async with bench.coap() as channel:
        replies = [await bench.get(channel, Operation.CACERTS) for _ in range(2)]
    require(replies[0].body == replies[1].body, "two answers differ")
    return ", ".join(reply.status for reply in replies)


@row("CD-24", Level.MUST_NOT, "RFC 9148 9.1", "no NULL, anonymous, EXPORT, DES suites", COAPS)
async def weak_suites(bench: Bench) -> str:
    try:
        async with bench.coap(dtls=_WEAK) as channel:
            raise Failed(f"{channel.server.cipher} is negotiated")
    except ChannelError as error:
        return f"none taken: {error}"


# -- Content-formats ------------------------------------------------------------------------------


@row("CF-01", Level.MUST, "RFC 9148 4.3", "payloads are DER, not base64", COAPS)
async def binary(bench: Bench) -> str:
    async with bench.coap() as channel:
        reply = await bench.get(channel, Operation.CACERTS)
    require(reply.body[:1] == b"\x30", "the answer to /crts is no DER")

    def encode(message: Message) -> None:
        message.payload = base64.b64encode(message.payload)

    try:
        refusal = await bench.require_refused("a CSR in base64", send=coap_sender(bench, encode))
    except NotApplicable:
        return "/crts is DER"
    return f"/crts is DER, a CSR in base64 {refusal.status}"


@row("CF-02", Level.MUST, "RFC 9148 4.3", "a CSR has content-format 286", COAPS)
async def request_format(bench: Bench) -> str:
    seen = []
    for wrong in (None, 60, ContentFormat.CERTS_ONLY):

        def change(message: Message, wrong: int | None = wrong) -> None:
            message.opt.content_format = wrong

        reply = await bench.submit(send=coap_sender(bench, change))
        if wrong is not None:
            require(reply.refused, f"a CSR as content-format {wrong} is answered {reply}")
        seen.append(f"{wrong or 'none'} {reply.status}")
    return ", ".join(seen)


@row("CF-03", Level.MUST, "RFC 9148 4.3", "answers as content-format 281", COAPS)
async def answer_format(bench: Bench) -> str:
    def accept(message: Message) -> None:
        message.opt.accept = ContentFormat.CERTS_ONLY

    async with bench.coap() as channel:
        message = request_for(bench, Operation.CACERTS)
        accept(message)
        count = len((await bench.ask_coap(channel, message)).certificates())
    try:
        await bench.require_granted("Accept: 281", send=coap_sender(bench, accept))
    except NotApplicable:
        return f"/crts: {count} certificates"
    return f"/crts: {count} certificates; an enrollment with Accept: 281 is granted"


@row("CF-04", Level.MAY, "RFC 9148 4.3", "a single certificate as content-format 287", COAPS)
async def single_certificate(bench: Bench) -> str:
    def accept(message: Message) -> None:
        message.opt.accept = ContentFormat.PKIX_CERT

    wish = await bench.wish()
    if wish.operation is not Operation.SIMPLEENROLL:
        raise NotApplicable("the server grants this device renewals only")
    reply = await bench.submit(send=coap_sender(bench, accept))
    if reply.code == 406:
        return "not offered: 4.06"
    require(reply.content_format == 287, f"the content-format is {reply.content_format}")
    x509.load_der_x509_certificate(reply.body)
    return "one DER certificate"


@row("CF-05", Level.SHOULD, "RFC 9148 4.3", "281 where nothing is asked for", COAPS)
async def default_format(bench: Bench) -> str:
    async with bench.coap() as channel:
        reply = await bench.get(channel, Operation.CACERTS)
    require(reply.content_format == 281, f"the content-format is {reply.content_format}")
    return "281"


@row("CF-06", Level.MUST, "RFC 7252 5.10.4", "what cannot be had is 4.06", COAPS)
async def not_acceptable(bench: Bench) -> str:
    message = request_for(bench, Operation.CACERTS)
    message.opt.accept = _UNKNOWN_FORMAT
    async with bench.coap() as channel:
        reply = await bench.ask_coap(channel, message)
    require(reply.code == 406, f"Accept: {_UNKNOWN_FORMAT} is answered {reply}")
    return f"Accept: {_UNKNOWN_FORMAT} is answered {reply}"


@row("CF-17", Level.MUST, "RFC 9148 4.3", "path and content-format have to fit", COAPS)
async def misplaced(bench: Bench) -> str:
    message = request_for(bench, Operation.CACERTS, Code.POST)
    message.payload, message.opt.content_format = b"\x30\x00", ContentFormat.PKCS10
    async with bench.coap() as channel:
        reply = await bench.ask_coap(channel, message)
    require(reply.refused, f"286 to /crts is answered {reply}")
    return f"286 to /crts: {reply}"


@row("CF-18", Level.MUST, "RFC 7252 3.2, RFC 9148 A.1", "numbers are as short as can be", COAPS)
async def minimal(bench: Bench) -> str:
    async with bench.coap() as channel:
        received = await channel.exchange(request_for(bench, Operation.CACERTS))
    numbers = (OptionNumber.CONTENT_FORMAT, OptionNumber.BLOCK2, OptionNumber.SIZE2)
    found = [(n, v) for n, v in options_of(received.octets) if n in numbers]
    for number, value in found:
        require(not value.startswith(b"\x00"), f"option {number} is {value.hex()}")
    return ", ".join(f"option {number} is {value.hex()}" for number, value in found)


# -- Codes and messages ---------------------------------------------------------------------------


@row("CR-01", Level.MUST, "RFC 9148 4.5", "/crts is answered 2.05", COAPS)
async def content(bench: Bench) -> str:
    async with bench.coap() as channel:
        reply = await bench.get(channel, Operation.CACERTS)
    require(reply.status == "2.05", f"the answer is {reply}")
    return reply.status


@row("CR-02", Level.MUST, "RFC 9148 4.5", "an enrollment is answered 2.04", COAPS)
async def changed(bench: Bench) -> str:
    reply = await bench.require_granted("the plain request")
    require(reply.status == "2.04", f"the answer is {reply}")
    require(reply.content_format is not None and bool(reply.body), "there is nothing in it")
    return f"2.04, {len(reply.body)} octets of content-format {reply.content_format}"


@row("CR-03", Level.MUST, "RFC 9148 4.5", "nothing to be had is 4.04", COAPS)
async def nothing(bench: Bench) -> str:
    async with bench.coap() as channel:
        reply = await bench.get(channel, Operation.CSRATTRS)
    if reply.accepted and reply.body:
        raise NotApplicable("there are CSR attributes")
    require(reply.code == 404, f"/att is answered {reply}")
    return f"/att: {reply.status}"


@row("CR-04", Level.MUST, "RFC 9148 4.5", "refusals have the codes of RFC 9148", COAPS)
async def codes(bench: Bench) -> str:
    async with bench.coap() as channel:
        unknown = await bench.ask_coap(channel, request_for(bench, "nothing"))
        method = await bench.ask_coap(channel, request_for(bench, Operation.SIMPLEENROLL))
    require(unknown.code == 404, f"an unknown path is answered {unknown}")
    require(method.refused, f"GET /sen is answered {method}")
    return f"an unknown path {unknown.status}, GET /sen {method.status}"


@row("CR-11", Level.MUST, "RFC 9148 4.4, RFC 7252 5.4.1", "options that are known, and not", COAPS)
async def unknown_options(bench: Bench) -> str:
    seen = []
    for number in (_UNKNOWN_CRITICAL, _UNKNOWN_ELECTIVE):
        message = request_for(bench, Operation.CACERTS)
        message.opt.add_option(OpaqueOption(OptionNumber(number), b"x"))
        async with bench.coap() as channel:
            seen.append(await bench.ask_coap(channel, message))
    message = request_for(bench, Operation.CACERTS)
    message.opt.uri_host, message.opt.uri_port = bench.location.host, bench.location.port
    async with bench.coap() as channel:
        named = await bench.ask_coap(channel, message)
    require(named.accepted, f"with Uri-Host and Uri-Port /crts is answered {named}")
    require(seen[0].code == 402, f"an unknown critical option is answered {seen[0]}")
    require(seen[1].accepted, f"an unknown elective option is answered {seen[1]}")
    return f"unknown critical {seen[0].status}, elective {seen[1].status}; Uri-Host {named.status}"


@row("CR-12", Level.MUST, "RFC 7252 4.2, 4.5", "a message that comes twice enrolls once", COAPS)
async def duplicates(bench: Bench) -> str:
    async def twice(channel: Channel, operation: Operation, der: bytes) -> Reply:
        assert isinstance(channel, CoapChannel)
        octets, token = channel.encode(bench.coap_post(operation, der))
        return await _same_answer_twice(bench, channel, operation, octets, token)

    reply = await bench.require_granted("a request that comes twice", send=twice)
    return f"both are answered {reply.status} with the same octets"


async def _same_answer_twice(
    bench: Bench, channel: CoapChannel, operation: Operation, octets: bytes, token: bytes
) -> Reply:
    first = await channel.exchange_octets(octets, token)
    channel.send(octets)
    second = await channel.next(min(2.0, bench.limits.patience))
    # A server that has forgotten, or waits, says nothing: then there is no second certificate.
    if second is not None and second.message.code.is_response():
        same = second.message.payload == first.message.payload
        require(same, "the second answer is another one")
    return await bench.complete(channel, operation, first)


@row("CR-13", Level.MUST, "RFC 7252 4.5, RFC 7959 2.5", "the last block that comes twice", COAPS)
async def duplicate_blocks(bench: Bench) -> str:
    async def last_twice(channel: Channel, operation: Operation, der: bytes) -> Reply:
        assert isinstance(channel, CoapChannel)
        blocks = channel.blocks(bench.coap_post(operation, der), 2)
        for block in blocks[:-1]:
            await channel.exchange(block)
        octets, token = channel.encode(blocks[-1])
        return await _same_answer_twice(bench, channel, operation, octets, token)

    reply = await bench.require_granted("a last block that comes twice", send=last_twice)
    return f"both are answered {reply.status} with the same octets"


@row("CR-15", Level.MAY, "RFC 7252 4.3", "an empty message is answered with Reset", COAPS)
async def ping(bench: Bench) -> str:
    async with bench.coap() as channel:
        channel.send(b"\x40\x00\x12\x34")
        received = await channel.next(min(2.0, bench.limits.patience))
    if received is None:
        raise Failed("it is not answered")
    require(received.message.mtype is RST, f"it is answered with a {received.message.mtype.name}")
    return "Reset"


@row("CR-16", Level.MAY, "RFC 7252 5.5.2", "refusals explain themselves in UTF-8", COAPS)
async def diagnostics(bench: Bench) -> str:
    async with bench.coap() as channel:
        reply = await bench.ask_coap(channel, request_for(bench, "nothing"))
    require(reply.content_format is None, f"the content-format is {reply.content_format}")
    try:
        words = reply.body.decode()
    except UnicodeDecodeError as error:
        raise Failed("the diagnostic payload is no UTF-8") from error
    return words or "no words"

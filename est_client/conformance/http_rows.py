"""General HTTP layer (RFC 7030 section 3.2, RFC 8951 section 3)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.serialization import Encoding

from est_client.conformance.bench import Bench, Channel, Sender
from est_client.conformance.http_channel import HttpChannel
from est_client.conformance.reply import Reply
from est_client.conformance.requests import linked, unlinked
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol import base64_body, certs_only
from est_protocol.errors import ChannelClosed
from est_protocol.messages import Transport
from est_protocol.operations import RESERVED_SEGMENTS, WELL_KNOWN_PATH, Operation

HTTPS = Transport.HTTPS

_ENROLLING = (Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL)
_PKCS10 = "application/pkcs10"
#: Far more than any CSR, and little enough to be sent quickly.
_OVERSIZE = 4 * 1024 * 1024


def sender(
    bench: Bench,
    encode: Callable[[bytes], bytes | Iterable[bytes]] = base64_body.encode,
    **headers: str,
) -> Sender:
    """Sends a CSR in another shape: an underscore in a header's name stands for a dash."""
    fields = {"Content-Type": _PKCS10, **{n.replace("_", "-"): v for n, v in headers.items()}}

    async def send(channel: Channel, operation: Operation, der: bytes) -> Reply:
        assert isinstance(channel, HttpChannel)
        given = {name: value for name, value in fields.items() if value}
        path = bench.path(operation)
        return bench.note(await channel.exchange("POST", path, given, encode(der)))

    return send


@row("HTTP-01", Level.MUST, "RFC 7030 3.3", "no EST without TLS", HTTPS)
async def no_cleartext(bench: Bench) -> str:
    bench.spend()
    location = bench.location
    reader, writer = await asyncio.open_connection(location.host, location.port)
    path = bench.path(Operation.CACERTS)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {location.host}\r\n\r\n".encode())
    try:
        async with asyncio.timeout(bench.limits.patience):
            answer = await reader.read(64)
    except (TimeoutError, ConnectionError):
        answer = b""
    finally:
        writer.close()
    require(not answer.startswith(b"HTTP/1.1 2"), "cleartext HTTP is answered with success")
    return "a request without TLS gets no EST answer"


@row("HTTP-02", Level.MUST, "RFC 7030 3.2.2", "operations stand below /.well-known/est", HTTPS)
async def well_known(bench: Bench) -> str:
    reply = await bench.http("GET", bench.path(Operation.CACERTS))
    require(reply.accepted, f"GET {bench.path(Operation.CACERTS)} is answered {reply}")
    return f"GET {bench.path(Operation.CACERTS)}: {reply}"


@row("HTTP-03", Level.MUST, "RFC 7030 3.2.2", "the three mandatory operations are there", HTTPS)
async def mandatory_operations(bench: Bench) -> str:
    found = [str((await bench.http("GET", bench.path(Operation.CACERTS))).code)]
    for operation in _ENROLLING:
        reply = await bench.http("POST", bench.path(operation), {"Content-Type": _PKCS10}, b"")
        missing = reply.code in (404, 405, 501)
        require(not missing, f"POST /{operation.path_segment} is answered {reply}")
        found.append(str(reply.code))
    return "cacerts, simpleenroll, simplereenroll: " + ", ".join(found)


@row("HTTP-04", Level.MAY, "RFC 7030 3.2.2", "a label selects a CA", HTTPS)
async def label(bench: Bench) -> str:
    if bench.location.label is None:
        raise NotApplicable("no label was given")
    reply = await bench.http("GET", bench.path(Operation.CACERTS))
    return f"label {bench.location.label!r}: {len(reply.certificates())} CA certificates"


@row("HTTP-05", Level.MUST_NOT, "RFC 7030 3.2.2", "a label is none of the operations", HTTPS)
async def reserved_labels(bench: Bench) -> str:
    names = sorted(operation.path_segment for operation in Operation)
    async with bench.channel() as channel:
        assert isinstance(channel, HttpChannel)
        for name in names:
            path = bench.path(Operation.CACERTS, label=name)
            reply = bench.note(await channel.exchange("GET", path))
            require(not reply.accepted, f"GET {path} is answered {reply.status}")
    return f"{', '.join(names)} are no labels"


@row("HTTP-06", Level.MUST, "RFC 7030 3.2.2", "the service is there without a label too", HTTPS)
async def without_label(bench: Bench) -> str:
    reply = await bench.http("GET", f"{WELL_KNOWN_PATH}/cacerts")
    return f"without a label: {len(reply.certificates())} CA certificates"


@row("HTTP-07", Level.MUST, "RFC 7030 4.1.2, 4.2, 4.5.1", "GET and POST as RFC 7030 says", HTTPS)
async def methods(bench: Bench) -> str:
    seen = []
    wrong = [("GET", o) for o in _ENROLLING] + [("PUT", o) for o in _ENROLLING]
    wrong += [("POST", Operation.CACERTS), ("DELETE", Operation.CACERTS)]
    for method, operation in wrong:
        body = None if method in ("GET", "DELETE") else b""
        reply = await bench.http(method, bench.path(operation), {"Content-Type": _PKCS10}, body)
        what = f"{method} /{operation.path_segment}"
        require(reply.refused or reply.code == 501, f"{what} is answered {reply.status}")
        if reply.code == 405:
            require("Allow" in reply.headers, f"{what} is answered 405 without Allow")
        seen.append(f"{what} {reply.code}")
    return ", ".join(seen)


@row("HTTP-08", Level.MUST, "RFC 7030 3.2.4", "the Content-Type says what a message is", HTTPS)
async def content_types(bench: Bench) -> str:
    seen = []
    for wrong in ("text/plain", "application/pkcs7-mime", "application/json"):
        reply = await bench.require_refused(
            f"a CSR labelled {wrong}", send=sender(bench, Content_Type=wrong)
        )
        seen.append(f"{wrong} {reply.code}")
    await bench.require_granted(
        "the type in other case, with a parameter",
        send=sender(bench, Content_Type="Application/PKCS10; charset=binary"),
    )
    return f"refused: {', '.join(seen)}; Application/PKCS10 is granted"


@row("HTTP-09", Level.MUST, "RFC 8951 3", "bodies are base64 of DER", HTTPS)
async def base64_bodies(bench: Bench) -> str:
    reply = await bench.http("GET", bench.path(Operation.CACERTS))
    certs_only.decode(base64_body.decode(reply.body))
    evidence = f"/cacerts is the base64 of {len(reply.der())} octets of DER"
    shapes: dict[str, Callable[[bytes], bytes]] = {
        "raw DER": lambda der: der,
        "characters outside the alphabet": lambda der: b"*" + base64.b64encode(der),
        "base64 cut short": lambda der: base64.b64encode(der)[:-5],
    }
    try:
        for what, encode in shapes.items():
            refusal = await bench.require_refused(what, send=sender(bench, encode))
            evidence += f"; {what}: {refusal.status}"
    except NotApplicable:
        return evidence
    return evidence


@row("HTTP-10", Level.MUST, "RFC 8951 3", "Content-Transfer-Encoding is ignored", HTTPS)
async def transfer_encodings(bench: Bench) -> str:
    values = ("base64", "binary", "7bit", "8bit", "quoted-printable", "nonsense")
    for value in values:
        await bench.require_granted(
            f"Content-Transfer-Encoding: {value}",
            send=sender(bench, Content_Transfer_Encoding=value),
        )
    return f"the same with none, {', '.join(values)}"


def _lines(columns: int, end: bytes) -> Callable[[bytes], bytes]:
    def encode(der: bytes) -> bytes:
        text = base64.b64encode(der)
        return end.join(text[at : at + columns] for at in range(0, len(text), columns)) + end

    return encode


@row("HTTP-11", Level.SHOULD, "RFC 8951 3.1", "white space in base64 is tolerated", HTTPS)
async def white_space(bench: Bench) -> str:
    shapes = {
        "LF at 64": _lines(64, b"\n"),
        "CRLF at 76": _lines(76, b"\r\n"),
        "tabs": _lines(60, b"\t"),
        "spaces": _lines(70, b" \r\n "),
    }
    for what, encode in shapes.items():
        await bench.require_granted(what, send=sender(bench, encode))
    return f"granted: {', '.join(shapes)}"


@row("HTTP-12", Level.MAY, "RFC 8951 3.1", "base64 may be one line", HTTPS)
async def one_line(bench: Bench) -> str:
    await bench.require_granted("one line", send=sender(bench, base64.b64encode))
    return "one unbroken line is granted"


@row("HTTP-14", Level.MUST, "RFC 7030 4.5.2, RFC 8951 4", "no PEM armour", HTTPS)
async def no_armour(bench: Bench) -> str:
    answer = await bench.http("GET", bench.path(Operation.CACERTS))
    require(b"-----" not in answer.body, "/cacerts is answered in PEM")

    def armoured(der: bytes) -> bytes:
        kind = b"CERTIFICATE REQUEST-----\n"
        return b"-----BEGIN " + kind + base64_body.encode(der) + b"-----END " + kind

    try:
        reply = await bench.submit(send=sender(bench, armoured))
    except NotApplicable:
        return "the answer to /cacerts has none"
    require(reply.accepted or reply.refused, f"a CSR in PEM is answered {reply}")
    return f"the answer has none; a CSR in PEM is answered {reply}"


@row("HTTP-15", Level.MUST, "RFC 8951 3", "DER, not BER", HTTPS)
async def der_only(bench: Bench) -> str:
    reply = await bench.http("GET", bench.path(Operation.CACERTS))
    certs_only.decode(reply.der())

    def indefinite(server: object, wish: object) -> bytes:
        der = linked(server, wish)  # type: ignore[arg-type]
        header = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
        return b"\x30\x80" + der[header:] + b"\x00\x00"

    try:
        ber = await bench.submit(indefinite)
    except NotApplicable:
        return "/cacerts is DER"
    require(ber.accepted or ber.refused, f"a BER CSR is answered {ber}")
    return f"/cacerts is DER; a CSR of indefinite length is answered {ber.status}"


@row("HTTP-16", Level.MAY, "RFC 7030 3.2", "one connection or several, the answers agree", HTTPS)
async def persistent_connections(bench: Bench) -> str:
    path = bench.path(Operation.CACERTS)
    async with bench.channel() as channel:
        assert isinstance(channel, HttpChannel)
        first = bench.note(await channel.exchange("GET", path))
        try:
            second = bench.note(await channel.exchange("GET", path))
        except ChannelClosed:
            return f"the server closes after an answer; the first was {first.status}"
    require(first.body == second.body, "two answers on one connection differ")
    return "two requests on one connection get the same answer"


@row("HTTP-17", Level.SHOULD, "RFC 7030 6", "size and depth are bounded", HTTPS)
async def bounds(bench: Bench) -> str:
    path, headers = bench.path(Operation.SIMPLEENROLL), {"Content-Type": _PKCS10}
    try:
        reply = await bench.http("POST", path, headers, b"A" * _OVERSIZE)
        seen = str(reply.code)
        require(reply.refused, f"{_OVERSIZE} octets are answered {reply}")
    except ChannelClosed:
        seen = "a closed connection"
    nested = b""
    for _ in range(2000):
        nested = b"\x30\x84" + len(nested).to_bytes(4, "big") + nested
    deep = await bench.http("POST", path, headers, base64_body.encode(nested))
    require(deep.refused, f"2000 nested SEQUENCEs are answered {deep}")
    alive = await bench.http("GET", bench.path(Operation.CACERTS))
    require(alive.accepted, f"afterwards /cacerts is answered {alive}")
    return f"{_OVERSIZE} octets: {seen}; 2000 nested SEQUENCEs: {deep.code}"


@row("HTTP-21", Level.MUST, "RFC 9440 2, 4", "Client-Cert of anybody is no authentication", HTTPS)
async def client_cert_header(bench: Bench) -> str:
    identity = bench.operational or bench.identity
    if identity is None or not identity.chain:
        raise NotApplicable("needs a device certificate")
    der = identity.chain[0].public_bytes(Encoding.DER)
    value = f":{base64.b64encode(der).decode()}:"
    wish = await bench.wish()
    if wish.credentials is None and bench.granted is not None:
        plain = await bench.submit(unlinked)
        if plain.accepted:
            raise NotApplicable("the server grants what nobody authenticated")
    async with bench.channel() as channel:
        csr = unlinked(channel.server, wish)
        reply = await sender(bench, Client_Cert=value)(channel, wish.operation, csr)
    if reply.accepted:
        raise Failed("an unauthenticated request with a Client-Cert header is granted")
    return f"an unauthenticated request with a Client-Cert header: {reply}"


@row("STAT-12", Level.SHOULD, "RFC 7030 4.2.3", "statuses mean what HTTP says", HTTPS)
async def unknown_operation(bench: Bench) -> str:
    reply = await bench.http("GET", f"{WELL_KNOWN_PATH}/no-such-operation")
    require(reply.code == 404, f"an unknown operation is answered {reply}, not 404")
    unlabelled = "no-such-label-" + "-".join(sorted(RESERVED_SEGMENTS))[:8]
    other = await bench.http("GET", bench.path(Operation.CACERTS, label=unlabelled))
    require(not other.accepted, "an unknown label is served")
    return f"unknown operation {reply.code}, unknown label {other.code}"

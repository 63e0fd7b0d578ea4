"""Proof of possession, and its linking to the channel (RFC 7030 section 3.5, RFC 9266)."""

from __future__ import annotations

import base64

from est_client.conformance.bench import Bench
from est_client.conformance.requests import (
    CsrMaker,
    Wish,
    binding_text,
    challenge,
    linked,
    tampered,
    unlinked,
)
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol.credentials import PeerCredentials
from est_protocol.csr_attributes import CsrAttributes
from est_protocol.messages import Transport
from est_protocol.oid_names import CHALLENGE_PASSWORD
from est_protocol.operations import Operation
from est_protocol.secure_channel.policy import TlsPolicy, TlsVersion

HTTPS = Transport.HTTPS
TLS_1_2 = TlsPolicy(maximum_version=TlsVersion.TLS1_2)


def _like(change: bytes) -> CsrMaker:
    """Of the right length, and not the right value."""

    def make(server: PeerCredentials, wish: Wish) -> bytes:
        value = base64.b64decode(binding_text(server))
        wrong = bytes(a ^ b for a, b in zip(value, change * len(value), strict=False))
        return challenge(base64.b64encode(wrong).decode())(server, wish)

    return make


def _linked(server: PeerCredentials, wish: Wish) -> bytes:
    return challenge(binding_text(server))(server, wish)


@row("POP-01", Level.MUST, "RFC 7030 3.3, 3.5", "linking is implemented: right yes, wrong no")
async def implemented(bench: Bench) -> str:
    await bench.require_granted("a CSR linked to its channel", _linked)
    reply = await bench.require_refused("a CSR linked to nothing that is", _like(b"\x01"))
    return f"the right value is granted, a wrong one {reply}"


@row("POP-03", Level.MUST, "RFC 7030 3.5, 4.2", "a value is verified where there is one")
async def verified(bench: Bench) -> str:
    wish = await bench.wish()
    async with bench.channel(wish.credentials) as other:
        foreign = binding_text(other.server)
    stale = await bench.require_refused("a value of a connection before", challenge(foreign))
    empty = await bench.require_refused("the base64 of zeros", challenge("AAAAAAAAAAAAAAAA"))
    return f"of a connection before: {stale.status}; zeros: {empty.status}"


@row("POP-04", Level.MAY, "RFC 7030 3.5", "policy may refuse a CSR without linking")
async def required(bench: Bench) -> str:
    reply = await bench.submit(unlinked)
    return f"a CSR without challengePassword: {reply}"


@row(
    "POP-05", Level.MUST, "RFC 7030 4.5.2, RFC 8951 4", "where linking is required, /csrattrs says"
)
async def announced(bench: Bench) -> str:
    wish = await bench.wish()
    if wish.credentials is None:
        raise NotApplicable("a bare key has nothing but the linking to authenticate by")
    if (await bench.submit(unlinked)).accepted:
        raise NotApplicable("linking is not required")
    async with bench.channel(wish.credentials) as channel:
        reply = await bench.get(channel, Operation.CSRATTRS)
    if not reply.accepted:
        raise Failed(f"linking is required, and /csrattrs is answered {reply}")
    listed = {element.oid for element in CsrAttributes.decode(reply.der()).elements}
    require(CHALLENGE_PASSWORD in listed, "linking is required, and /csrattrs does not say so")
    return "challengePassword is in /csrattrs"


@row("POP-07", Level.MUST, "RFC 7030 3.5, RFC 2985 5.4.1", "either string type, canonical base64")
async def encodings(bench: Bench) -> str:
    def of_kind(printable: bool) -> CsrMaker:
        return lambda server, wish: challenge(binding_text(server), printable=printable)(
            server, wish
        )

    for what, printable in (("UTF8String", False), ("PrintableString", True)):
        await bench.require_granted(f"the value as {what}", of_kind(printable))
    return "UTF8String and PrintableString are granted"


@row("POP-08", Level.MUST, "RFC 5929 3.1", "TLS 1.2: tls-unique of the handshake", HTTPS)
async def tls_unique(bench: Bench) -> str:
    await bench.require_granted("tls-unique on TLS 1.2", _linked, tls=TLS_1_2)
    reply = await bench.require_refused("another value on TLS 1.2", _like(b"\x80"), tls=TLS_1_2)
    return f"tls-unique is granted, another value {reply.status}"


@row("POP-09", Level.MUST_NOT, "RFC 8446 C.5, RFC 9266 1", "TLS 1.3 has no tls-unique", HTTPS)
async def no_tls_unique(bench: Bench) -> str:
    def finished_like(server: PeerCredentials, wish: Wish) -> bytes:
        _require_tls_1_3(server)
        return challenge(base64.b64encode(bytes(range(12))).decode())(server, wish)

    reply = await bench.require_refused("12 octets on TLS 1.3", finished_like)
    return f"12 octets, as of tls-unique, on TLS 1.3: {reply.status}"


@row("POP-10", Level.SHOULD, "RFC 9266 2", "TLS 1.3: tls-exporter", HTTPS)
async def tls_exporter(bench: Bench) -> str:
    def exported(server: PeerCredentials, wish: Wish) -> bytes:
        _require_tls_1_3(server)
        return linked(server, wish)

    await bench.require_granted("tls-exporter on TLS 1.3", exported)
    return "32 octets of tls-exporter are granted on TLS 1.3"


def _require_tls_1_3(server: PeerCredentials) -> None:
    if server.protocol != "TLSv1.3":
        raise NotApplicable(f"the server speaks {server.protocol}")


@row("POP-15", Level.SHOULD, "RFC 7030 3.5", "a refusal says that linking is what is missing")
async def explained(bench: Bench) -> str:
    reply = await bench.require_refused("a CSR linked to nothing that is", _like(b"\x02"))
    words = reply.text.lower()
    mentioned = any(word in words for word in ("link", "possession", "pop", "challenge", "unique"))
    require(mentioned, f"the refusal says {reply.text!r}")
    return reply.text[:100]


@row(
    "POP-17", Level.MUST, "RFC 7030 3.5, RFC 7894 3", "challengePassword is no secret to enroll by"
)
async def no_password(bench: Bench) -> str:
    reply = await bench.require_refused("a password", challenge("correct horse battery staple"))
    return f"a password in challengePassword: {reply.status}"


@row("POP-21", Level.MUST, "RFC 7030 3.4, 4.2.1", "the signature of a CSR is verified")
async def signature(bench: Bench) -> str:
    reply = await bench.require_refused("a CSR whose signature is off by one bit", tampered)
    return f"a signature that is off by one bit: {reply}"


@row("CD-11", Level.MAY, "RFC 9148 3", "POP linking over DTLS", Transport.COAPS)
async def dtls_linking(bench: Bench) -> str:
    reply = await bench.require_granted("tls-unique on DTLS 1.2", _linked)
    return f"tls-unique on DTLS 1.2: {reply.status}"

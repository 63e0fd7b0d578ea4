"""/serverkeygen, /skg and /skc (RFC 7030 section 4.4, RFC 9148 section 4.8).

Where the server generates keys at all; that it does so for nobody unknown is row AUTH-01. The
certificate of a generated key takes the place of the one that asked for it, so the run goes on
with the generated key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from cryptography.hazmat.primitives.serialization import load_der_private_key

from est_client.conformance.bench import Bench, Channel, renewal
from est_client.conformance.coap_channel import CoapChannel
from est_client.conformance.reply import Reply
from est_client.conformance.requests import CsrMaker, Wish, linked, tampered
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol import key_delivery, multipart_core, multipart_mixed
from est_protocol.keys import SigningKey, generate_key, spki_der
from est_protocol.media_types import CERTS_ONLY, MULTIPART_MIXED, PKCS8, ContentFormat
from est_protocol.messages import GeneratedKeyResponse, Transport
from est_protocol.operations import SERVERKEYGEN_BARE, Operation
from est_protocol.secure_channel.context import LocalCredentials

HTTPS, COAPS = Transport.HTTPS, Transport.COAPS

#: Takes the key out of an answer; raises Failed or MessageError if it came otherwise.
Unpack = Callable[[GeneratedKeyResponse], SigningKey]

#: Codes that say that there is no such operation.
_ABSENT = (404, 405, 501)


async def generate(
    bench: Bench,
    csr: CsrMaker = linked,
    *,
    name: str | None = None,
    kind: str = "ec-p256",
    unpack: Unpack | None = None,
) -> Reply:
    """Ask for a key with the certificate of the run, and go on with what comes.

    :param name: the path segment on CoAPS, where it is not /skg.
    :param kind: the kind of key to ask for, which is a hint.
    :param unpack: takes the key out of the answer; by default it has to be in the clear.
    :raises NotApplicable: the server generates no keys.
    """

    async def send(channel: Channel, operation: Operation, der: bytes) -> Reply:
        if name is None:
            return await bench.post(channel, operation, der)
        message = bench.coap_post(operation, der)
        message.opt.uri_path = bench.coap_path(name)
        return await bench.ask_coap(cast(CoapChannel, channel), message)

    holder = await bench.renewable()
    asked = renewal(holder)
    wish = Wish(Operation.SERVERKEYGEN, holder, generate_key(kind), asked.subject, asked.names)
    reply = await bench.submit(csr, send, wish=wish)
    if reply.code in _ABSENT:
        raise NotApplicable(f"the server generates no keys: {reply}")
    if reply.accepted:
        answer = delivered(reply)
        bench.operational = LocalCredentials((unpack or _key)(answer), answer.certificates[:1])
    return reply


async def _granted(bench: Bench, csr: CsrMaker = linked, *, name: str | None = None) -> Reply:
    reply = await generate(bench, csr, name=name)
    if not reply.accepted:
        raise NotApplicable(f"the server generates no key for this device: {reply}")
    return reply


def delivered(reply: Reply) -> GeneratedKeyResponse:
    """The key and the certificate in an answer, on either transport.

    :raises MessageError: it does not decode.
    """
    if reply.transport is HTTPS:
        return key_delivery.from_multipart_mixed(reply.media_type, reply.body)
    return key_delivery.from_multipart_core(reply.body)


def _key(answer: GeneratedKeyResponse) -> SigningKey:
    """The key, which nobody asked to have encrypted.

    :raises Failed: it is encrypted all the same, or no PKCS#8.
    """
    require(not answer.protected, "the key is encrypted although nobody asked for that")
    try:
        return cast(SigningKey, load_der_private_key(answer.key, None))
    except (ValueError, TypeError) as error:
        raise Failed(f"the key is no PKCS#8: {error}") from error


async def _require_signature_ignored(bench: Bench) -> str:
    await _granted(bench)
    reply = await generate(bench, tampered)
    require(reply.accepted, f"a CSR whose signature is off by one bit: {reply}")
    return f"a CSR whose signature is off by one bit: {reply}"


def _require_pair(reply: Reply) -> str:
    answer = delivered(reply)
    key = _key(answer)
    certified = answer.certificates[0].public_key()
    same = spki_der(key.public_key()) == spki_der(certified)
    require(same, "the certificate is for another key than the one that came with it")
    return f"PKCS#8 with {type(key).__name__.lstrip('_')}, and its certificate"


@row("SKG-04", Level.MUST, "RFC 7030 4.4.1", "key and signature of the CSR are ignored", HTTPS)
async def signature_ignored(bench: Bench) -> str:
    return await _require_signature_ignored(bench)


@row("SKG-06", Level.MUST, "RFC 7030 4.4.2", "success is multipart/mixed of two parts", HTTPS)
async def two_parts(bench: Bench) -> str:
    reply = await _granted(bench)
    require(reply.code == 200, f"a key is generated with status {reply.status}")
    name = reply.media_type.name
    require(name == MULTIPART_MIXED.name, f"the type is {name}")
    parts = multipart_mixed.decode(reply.media_type, reply.body)
    names = [part.media_type.name for part in parts]
    require(sorted(names) == sorted([PKCS8.name, CERTS_ONLY.name]), f"the parts are {names}")
    return f"200, {' and '.join(names)}"


@row("SKG-08", Level.MUST, "RFC 7030 4.4.2", "the key is the PKCS#8 of its certificate", HTTPS)
async def pair(bench: Bench) -> str:
    return _require_pair(await _granted(bench))


@row("CF-08", Level.MUST, "RFC 9148 4.3, 4.8", "/skg answers multipart-core of two parts", COAPS)
async def multipart(bench: Bench) -> str:
    reply = await _granted(bench)
    wanted = ContentFormat.MULTIPART_CORE
    got = reply.content_format
    require(got == wanted, f"the answer has content-format {got}, not {wanted}")
    return f"content-format {wanted} with {len(multipart_core.decode(reply.body))} parts"


@row("CF-11", Level.MUST, "RFC 9148 4.3, 4.8", "/skg holds 284 and 281, /skc 284 and 287", COAPS)
async def formats(bench: Bench) -> str:
    seen = []
    certificates = {None: ContentFormat.CERTS_ONLY, SERVERKEYGEN_BARE: ContentFormat.PKIX_CERT}
    for name, certificate in certificates.items():
        reply = await _granted(bench, name=name)
        found = [part.content_format for part in multipart_core.decode(reply.body)]
        wanted = {ContentFormat.PKCS8, certificate}
        path = name or Operation.SERVERKEYGEN.short_name
        require(set(found) == wanted, f"/{path} holds {found}")
        seen.append(f"/{path} {found}")
    return "; ".join(seen)


@row("CF-13", Level.MUST, "RFC 9148 4.8", "the key is the PKCS#8 of its certificate", COAPS)
async def coap_pair(bench: Bench) -> str:
    return _require_pair(await _granted(bench))


@row("CF-16", Level.MUST, "RFC 9148 4.8", "key and signature of the CSR are ignored", COAPS)
async def coap_signature_ignored(bench: Bench) -> str:
    return await _require_signature_ignored(bench)

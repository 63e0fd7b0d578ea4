"""Authentication and authorization (RFC 7030 sections 3.2.3 and 4)."""

from __future__ import annotations

from est_client.conformance.bench import Bench
from est_client.conformance.requests import CsrMaker, Wish, linked, unlinked
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_client.self_signed import udid_name
from est_protocol.keys import generate_key
from est_protocol.messages import Transport
from est_protocol.operations import Operation

HTTPS = Transport.HTTPS
_ENROLLING = (Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL, Operation.SERVERKEYGEN)


@row("AUTH-01", Level.MUST, "RFC 7030 4.2, 4.4", "nobody unknown gets a certificate")
async def strangers(bench: Bench) -> str:
    key = generate_key()
    name = udid_name(key.public_key())
    seen = []
    for operation in _ENROLLING:
        self_signed = Wish(operation, bench.self_signed(key), key, name)
        tries: list[tuple[str, Wish, CsrMaker]] = [("a key of its own", self_signed, linked)]
        if bench.transport is HTTPS:
            nobody = Wish(operation, None, key, name)
            tries += [("nothing", nobody, unlinked), ("a linked CSR", nobody, linked)]
        for what, wish, csr in tries:
            reply = await bench.submit(csr, wish=wish)
            who = f"a stranger with {what} at /{operation.path_segment}"
            require(not reply.accepted, f"{who} is granted a certificate")
            require(reply.refused or reply.code in (202, 501), f"{who} is answered {reply}")
            seen.append(reply.status)
    return f"strangers are answered {', '.join(seen)}"


@row("AUTH-02", Level.SHOULD_NOT, "RFC 7030 4.1.2", "/cacerts wants no authentication", HTTPS)
async def open_cacerts(bench: Bench) -> str:
    reply = await bench.http("GET", bench.path(Operation.CACERTS))
    require(reply.accepted, f"it is answered {reply}")
    return f"it is answered {reply}"


@row("AUTH-03", Level.SHOULD_NOT, "RFC 7030 4.5", "/csrattrs wants no authentication", HTTPS)
async def open_csrattrs(bench: Bench) -> str:
    reply = await bench.http("GET", bench.path(Operation.CSRATTRS))
    require(reply.code not in (401, 403), f"it is answered {reply}")
    return f"it is answered {reply.status}"


@row("AUTH-05", Level.MUST_NOT, "RFC 7030 3.2.3", "HTTP authentication is no condition", HTTPS)
async def no_http_authentication(bench: Bench) -> str:
    reply = await bench.submit()
    if not reply.accepted:
        raise NotApplicable(f"the server grants the plain request no more: {reply}")
    return "a request without an Authorization header is granted"


@row("AUTH-22", Level.SHOULD, "RFC 7030 2.2.1, 4.2.1", "the subject is the server's to choose")
async def other_subject(bench: Bench) -> str:
    wish = await bench.wish()
    if wish.operation is not Operation.SIMPLEENROLL:
        raise NotApplicable("the server grants this device renewals only")
    changed = Wish(wish.operation, wish.credentials, wish.key, _OTHER_NAME, wish.names)
    reply = await bench.submit(wish=changed)
    if not reply.accepted and not reply.refused:
        raise Failed(f"another subject is answered {reply}")
    return f"another subject: {reply}"


_OTHER_NAME = udid_name(generate_key().public_key())

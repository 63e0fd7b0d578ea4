"""What holds for every answer of the run (RFC 7030 section 4.2.3)."""

from __future__ import annotations

from est_client.conformance.bench import Bench
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol.messages import Transport

HTTPS = Transport.HTTPS


@row("HTTP-13", Level.SHOULD_NOT, "RFC 8951 1, 3", "no Content-Transfer-Encoding", HTTPS)
async def no_transfer_encoding(bench: Bench) -> str:
    found = {
        r.headers["Content-Transfer-Encoding"]
        for r in bench.replies
        if "Content-Transfer-Encoding" in r.headers
    }
    require(not found, f"there is: {', '.join(sorted(found))}")
    return f"in none of {len(bench.replies)} answers"


@row("HTTP-18", Level.MAY, "RFC 8951 5.1", "errors may be text/plain", HTTPS)
async def plain_errors(bench: Bench) -> str:
    kinds = {r.media_type.name or "none" for r in bench.replies if r.code >= 400}
    if not kinds:
        raise NotApplicable("there was no error")
    return f"the types of errors: {', '.join(sorted(kinds))}"


@row("HTTP-19", Level.MUST, "RFC 7030 4.2.3, RFC 8951 5", "an error without a type is text", HTTPS)
async def readable_errors(bench: Bench) -> str:
    untyped = [r for r in bench.replies if r.code >= 400 and "Content-Type" not in r.headers]
    for reply in untyped:
        try:
            readable = all(c.isprintable() or c.isspace() for c in reply.body.decode())
        except UnicodeDecodeError:
            readable = False
        require(readable, f"the body of a {reply.status} is no text")
    errors = sum(reply.code >= 400 for reply in bench.replies)
    return f"{len(untyped)} of {errors} errors are without a type, all of them text"


@row("AUTH-07", Level.MUST, "RFC 7030 3.2.3", "401 comes with WWW-Authenticate", HTTPS)
async def challenges(bench: Bench) -> str:
    found = [reply for reply in bench.replies if reply.code == 401]
    if not found:
        raise NotApplicable("there was no 401")
    missing = [reply for reply in found if "WWW-Authenticate" not in reply.headers]
    require(not missing, f"{len(missing)} of {len(found)} are without")
    return found[0].headers["WWW-Authenticate"]


@row("STAT-01", Level.MUST, "RFC 7030 4.2.3", "202 comes with Retry-After", HTTPS)
async def retry_after(bench: Bench) -> str:
    found = [reply for reply in bench.replies if reply.code == 202]
    if not found:
        raise NotApplicable("there was no 202")
    missing = [reply for reply in found if "Retry-After" not in reply.headers]
    require(not missing, f"{len(missing)} of {len(found)} are without")
    return f"Retry-After: {found[0].headers['Retry-After']}"


@row("STAT-07", Level.MUST, "RFC 7030 4.2.3", "a failure is a 4xx or a 5xx", HTTPS)
async def failures(bench: Bench) -> str:
    odd = {r.status for r in bench.replies if 300 <= r.code < 400 or r.code in (201, 203, 205, 206)}
    if odd:
        raise Failed(f"there was {', '.join(sorted(odd))}")
    broken = sum(500 <= reply.code != 501 for reply in bench.replies)
    codes = sorted({reply.status for reply in bench.replies})
    return f"seen: {', '.join(codes)}; {broken} of them the server's own failures"

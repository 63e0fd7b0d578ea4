"""/simpleenroll and /sen (RFC 7030 section 4.2.1)."""

from __future__ import annotations

from collections.abc import Callable

from asn1crypto import csr as asn1_csr
from asn1crypto import keys as asn1_keys
from cryptography.hazmat.primitives.asymmetric import x25519

from est_client.conformance.bench import Bench
from est_client.conformance.cms import require_certs_only
from est_client.conformance.requests import Wish, linked, tampered
from est_client.conformance.rows import Level, require, row
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import MessageError
from est_protocol.media_types import CERTS_ONLY
from est_protocol.messages import Transport


@row(
    "SE-02",
    Level.MUST,
    "RFC 7030 4.2.3",
    "success is 200 with application/pkcs7-mime; smime-type=certs-only",
    Transport.HTTPS,
)
async def success(bench: Bench) -> str:
    reply = await bench.submit()
    require(reply.code == 200, f"a request that was granted is now answered {reply}")
    kind = reply.media_type
    require(kind.name == CERTS_ONLY.name, f"the type is {kind}")
    smime_type = kind.parameters.get("smime-type", "")
    require(smime_type.lower() == "certs-only", f"the type is {reply.headers['Content-Type']!r}")
    return f"200, {reply.headers['Content-Type']}"


@row("SE-03", Level.MUST, "RFC 7030 4.2.3", "the answer holds the issued certificate alone")
async def alone(bench: Bench) -> str:
    reply = await bench.require_granted("the plain request")
    evidence = require_certs_only(reply.der())
    certificates = reply.certificates()
    names = ", ".join(c.subject.rfc4514_string() for c in certificates)
    require(len(certificates) == 1, f"the answer holds {len(certificates)} certificates: {names}")
    return evidence


def _damaged(change: Callable[[bytes], bytes]) -> Callable[[PeerCredentials, Wish], bytes]:
    return lambda server, wish: change(linked(server, wish))


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "an empty body": lambda _: b"",
    "a CSR cut short": lambda der: der[: len(der) // 2],
    "a CSR with octets after its end": lambda der: der + b"\x05\x00",
    "octets that are no CSR": lambda _: b"\x30\x03\x02\x01\x00",
}


@row("SE-11", Level.MUST, "RFC 7030 4.2.3", "what is malformed gets a 4xx that says why")
async def malformed(bench: Bench) -> str:
    seen = []
    for what, change in _DAMAGE.items():
        reply = await bench.require_refused(what, _damaged(change))
        require(bool(reply.text.strip()), f"{what} is answered {reply.status} without a word")
        seen.append(f"{what} {reply.status}")
    reply = await bench.require_refused("a tampered signature", tampered)
    seen.append(f"a tampered signature {reply.status}")
    return "; ".join(seen)


def cannot_sign(server: PeerCredentials, wish: Wish) -> bytes:
    """A CSR for an X25519 key, which can sign nothing, signed with the key of the wish."""
    try:
        request = asn1_csr.CertificationRequest.load(linked(server, wish))
    except ValueError as error:  # pragma: no cover - our own CSR
        raise MessageError(str(error)) from error
    raw = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
    info = asn1_keys.PublicKeyInfo({"algorithm": {"algorithm": "1.3.101.110"}, "public_key": raw})
    request["certification_request_info"]["subject_pk_info"] = info
    return bytes(request.dump(force=True))


@row("SE-07", Level.MUST, "RFC 7030 4.2.1", "a key that cannot sign proves nothing here")
async def key_that_cannot_sign(bench: Bench) -> str:
    reply = await bench.require_refused("a CSR for an X25519 key", cannot_sign)
    return f"a CSR for an X25519 key: {reply}"

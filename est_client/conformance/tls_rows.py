"""TLS (RFC 7030 section 3.3, RFC 8996, RFC 9325)."""

from __future__ import annotations

from OpenSSL import SSL

from est_client.conformance.bench import Bench
from est_client.conformance.requests import unlinked
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_client.conformance.tls_probe import Handshake, handshake, unverified_context
from est_client.server_identity import verify_server
from est_protocol.keys import generate_key
from est_protocol.messages import Transport
from est_protocol.operations import Operation

HTTPS = Transport.HTTPS

_OLD_VERSIONS = {"TLS 1.0": SSL.TLS1_VERSION, "TLS 1.1": SSL.TLS1_1_VERSION}
#: Suites without encryption or without a certificate, or whose cipher is broken.
_WEAK = "eNULL:aNULL:EXPORT:DES:3DES:RC4:@SECLEVEL=0"


@row("TLS-01", Level.MUST, "RFC 7030 3.3, RFC 8996", "no TLS before 1.2", HTTPS)
async def old_versions(bench: Bench) -> str:
    seen = []
    for name, version in _OLD_VERSIONS.items():
        context = unverified_context()
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        outcome = await handshake(bench, context)
        if isinstance(outcome, Handshake):
            raise Failed(f"{name} is negotiated, with {outcome.cipher}")
        seen.append(f"{name}: {outcome}")
    return "; ".join(seen)


@row("TLS-02", Level.SHOULD, "RFC 9325 3.1.1", "TLS 1.3 where both can", HTTPS)
async def newest_version(bench: Bench) -> str:
    async with bench.channel() as channel:
        server = channel.server
    require(server.protocol == "TLSv1.3", f"{server.protocol} is negotiated")
    return f"{server.protocol}, {server.cipher}"


@row("TLS-03", Level.MUST, "RFC 7030 3.3", "the server authenticates itself in the handshake")
async def server_authentication(bench: Bench) -> str:
    async with bench.channel() as channel:
        server = channel.server
    certificate = server.certificate
    require(certificate is not None and server.is_verified, server.why_unverified())
    assert certificate is not None
    return f"the chain of {certificate.subject.rfc4514_string()} verifies"


@row("TLS-04", Level.MUST, "RFC 7030 3.3.1, 3.6", "its certificate is one for this server")
async def server_certificate(bench: Bench) -> str:
    async with bench.channel() as channel:
        database = verify_server(channel.server, bench.location.host)
    return f"valid for {bench.location.host}, by the {database.value} trust anchors"


@row("TLS-05", Level.MUST, "RFC 7030 3.3.2", "clients are authenticated by certificate", HTTPS)
async def client_authentication(bench: Bench) -> str:
    identity = await bench.renewable()
    async with bench.channel(identity) as channel:
        reply = await bench.get(channel, Operation.CACERTS)
    require(reply.accepted, f"a client with a certificate of this CA is answered {reply}")
    wish = await bench.wish()
    stranger = bench.self_signed(generate_key())
    async with bench.channel(stranger) as channel:
        refusal = await bench.post(channel, wish.operation, unlinked(channel.server, wish))
    require(not refusal.accepted, "a certificate that anybody can make authenticates")
    return f"a certificate of this CA is taken, a self-signed one gets {refusal}"


@row("TLS-13", Level.MUST_NOT, "RFC 7030 3.2.3, 6", "no NULL, anonymous, EXPORT, DES suites", HTTPS)
async def weak_suites(bench: Bench) -> str:
    context = unverified_context()
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_WEAK.encode())
    outcome = await handshake(bench, context)
    if isinstance(outcome, Handshake):
        raise Failed(f"{outcome.cipher} is negotiated")
    offered = SSL.Connection(context, None).get_cipher_list()
    return f"{len(offered)} suites offered, none taken: {outcome}"


@row("TLS-16", Level.SHOULD, "RFC 7627", "extended master secret on TLS 1.2", HTTPS)
async def extended_master_secret(bench: Bench) -> str:
    outcome = await _on_tls_1_2(bench)
    require(outcome.extended_master_secret, "it is not negotiated")
    return f"negotiated with {outcome.cipher}"


@row("TLS-18", Level.SHOULD, "RFC 7030 3.3.2", "the CertificateRequest names CAs", HTTPS)
async def certificate_authorities(bench: Bench) -> str:
    outcome = await _on_tls_1_2(bench)
    require(outcome.asked_for > 0, "it names none")
    return f"it names {outcome.asked_for}"


async def _on_tls_1_2(bench: Bench) -> Handshake:
    context = unverified_context()
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    outcome = await handshake(bench, context)
    if not isinstance(outcome, Handshake):
        raise NotApplicable(f"no TLS 1.2: {outcome}")
    return outcome


@row("TLS-19", Level.SHOULD, "RFC 7030 2.1, 4.1.2", "a client certificate is optional", HTTPS)
async def optional_certificate(bench: Bench) -> str:
    async with bench.channel() as channel:
        reply = await bench.get(channel, Operation.CACERTS)
    require(reply.accepted, f"without a client certificate /cacerts is answered {reply}")
    return "a client without a certificate gets /cacerts"

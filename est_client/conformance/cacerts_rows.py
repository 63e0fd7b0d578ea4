"""/cacerts and /crts (RFC 7030 section 4.1, RFC 9148 section 4)."""

from __future__ import annotations

from cryptography import x509

from est_client.conformance.bench import Bench
from est_client.conformance.cms import require_certs_only
from est_client.conformance.reply import Reply
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol.chain import is_self_signed, verify_chain
from est_protocol.errors import CertificateRejected
from est_protocol.media_types import CERTS_ONLY
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_protocol.trust_anchors import is_ca, read_ca_certificates


async def _cacerts(bench: Bench) -> Reply:
    async with bench.channel() as channel:
        return await bench.get(channel, Operation.CACERTS)


@row("CA-01", Level.MUST, "RFC 7030 4.1.2", "the CA certificates are to be had")
async def there(bench: Bench) -> str:
    certificates = (await _cacerts(bench)).certificates()
    return "; ".join(c.subject.rfc4514_string() for c in certificates)


@row("CA-02", Level.MUST, "RFC 7030 4.1.3", "success is 200", Transport.HTTPS)
async def status(bench: Bench) -> str:
    reply = await _cacerts(bench)
    require(reply.code == 200, f"the answer is {reply}")
    return "200"


@row("CA-03", Level.MUST, "RFC 7030 4.1.3", "the answer is certs-only: no content, no signers")
async def structure(bench: Bench) -> str:
    return require_certs_only((await _cacerts(bench)).der())


@row("CA-04", Level.MUST, "RFC 7030 4.1.3", "the type is application/pkcs7-mime", Transport.HTTPS)
async def media_type(bench: Bench) -> str:
    reply = await _cacerts(bench)
    kind = reply.media_type
    require(kind.name == CERTS_ONLY.name, f"the type is {kind}")
    smime_type = kind.parameters.get("smime-type", "certs-only")
    require(smime_type.lower() == "certs-only", f"smime-type is {smime_type}")
    return reply.headers["Content-Type"]


@row("CA-05", Level.MUST, "RFC 7030 4.1.3", "the current root CA certificate is there")
async def root(bench: Bench) -> str:
    certificates = (await _cacerts(bench)).certificates()
    current = read_ca_certificates(certificates, now=bench.now()).current
    return current.subject.rfc4514_string()


@row("CA-06", Level.MUST, "RFC 7030 4.1.3", "and all between it and what is issued")
async def chain(bench: Bench) -> str:
    certificates = (await _cacerts(bench)).certificates()
    roots = [c for c in certificates if is_self_signed(c)]
    leaf = (await bench.renewable()).chain[0]
    try:
        path = verify_chain(leaf, anchors=roots, intermediates=certificates, now=bench.now())
    except CertificateRejected as error:
        raise Failed(f"an issued certificate does not chain to the root: {error}") from error
    return f"an issued certificate chains to the root over {len(path) - 2} intermediates"


@row("CA-07", Level.SHOULD, "RFC 7030 4.1.3", "roll-over certificates while the root is replaced")
async def roll_over(bench: Bench) -> str:
    certificates = (await _cacerts(bench)).certificates()
    if len(_roots(certificates)) < 2:
        raise NotApplicable("there is one root: no roll-over")
    crossed = [c for c in certificates if c.subject == c.issuer and not is_self_signed(c)]
    require(len(crossed) >= 2, f"two roots, and {len(crossed)} certificates of one by the other")
    return f"{len(crossed)} certificates of one root by the other"


@row("CA-17", Level.SHOULD, "RFC 4210 4.4, RFC 5280", "every one is a real CA certificate")
async def real(bench: Bench) -> str:
    certificates = (await _cacerts(bench)).certificates()
    for certificate in certificates:
        name = certificate.subject.rfc4514_string()
        require(is_ca(certificate), f"{name} does not say that it is a CA's")
        try:
            usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            continue
        require(usage.key_cert_sign, f"{name} may not sign certificates")
    return f"{len(certificates)} certificates of CAs that may sign certificates"


def _roots(certificates: tuple[x509.Certificate, ...]) -> list[x509.Certificate]:
    return [c for c in certificates if is_self_signed(c)]

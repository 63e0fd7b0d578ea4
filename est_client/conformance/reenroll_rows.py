"""/simplereenroll and /sren (RFC 7030 section 4.2.2)."""

from __future__ import annotations

from dataclasses import replace

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from est_client.conformance.bench import Bench, renewal
from est_client.conformance.cms import require_certs_only
from est_client.conformance.requests import Wish, linked, linked_with, tampered
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_client.self_signed import udid_name
from est_protocol import pkcs10
from est_protocol.keys import SigningKey, generate_key
from est_protocol.secure_channel.context import LocalCredentials
from est_protocol.trust_anchors import is_ca


async def _renewal(bench: Bench) -> Wish:
    return renewal(await bench.renewable())


@row("SR-05", Level.MUST, "RFC 7030 4.2.2", "renewal for the same key, or for a new one")
async def renew_and_rekey(bench: Bench) -> str:
    wish = await _renewal(bench)
    same = await bench.submit(wish=wish)
    require(same.accepted or same.refused, f"a renewal for the same key is answered {same}")
    wish = replace(await _renewal(bench), key=generate_key())
    rekeyed = await bench.submit(wish=wish)
    require(rekeyed.accepted or same.accepted, f"the same key: {same}; a new one: {rekeyed}")
    if rekeyed.accepted:
        found = rekeyed.certificate_of(wish.key)
        require(found is not None, "the certificate is for another key")
    return f"the same key: {same}; a new key: {rekeyed}"


async def _proven(bench: Bench) -> Wish:
    """A renewal of which this run has seen that the server grants such."""
    wish = await _renewal(bench)
    reply = await bench.submit(wish=wish)
    if not reply.accepted:
        raise NotApplicable(f"the server grants no renewal: {reply}")
    return await _renewal(bench)


@row("SR-08", Level.MUST, "RFC 7030 4.2.3", "the answer is as to a first enrollment")
async def same_answer(bench: Bench) -> str:
    reply = await bench.submit(wish=await _renewal(bench))
    if not reply.accepted:
        raise NotApplicable(f"the server grants no renewal: {reply}")
    count = len(reply.certificates())
    require(count == 1, f"the answer holds {count} certificates")
    evidence = require_certs_only(reply.der())
    wish = await _renewal(bench)
    refusal = await bench.require_refused("a signature off by one bit", tampered, wish=wish)
    return f"{evidence}; a signature off by one bit: {refusal.status}"


@row("SR-03", Level.MUST, "RFC 7030 4.2.2", "subject and subjectAltName stay as they are")
async def names_stay(bench: Bench) -> str:
    wish = await _proven(bench)
    other = x509.Name([*wish.subject.rdns, *udid_name(generate_key().public_key()).rdns])
    added = (*wish.names, x509.DNSName("conformance.example"))
    changes = {
        "another subject": replace(wish, subject=other),
        "another subjectAltName": replace(wish, names=added),
    }
    seen = []
    for what, changed in changes.items():
        reply = await bench.require_refused(what, wish=changed)
        seen.append(f"{what} {reply.status}")
    return "; ".join(seen)


@row("SR-06", Level.MUST, "RFC 7030 2.3, 3.3.2, 4.2.2", "nobody renews another's certificate")
async def not_anothers(bench: Bench) -> str:
    wish = await _proven(bench)
    key = generate_key()
    impostor = _impostor(bench, key, wish.subject)
    reply = await bench.submit(linked, wish=replace(wish, credentials=impostor, key=key))
    if reply.accepted:
        raise Failed("a self-signed certificate of the same name renews the certificate")
    require(reply.refused, f"a self-signed certificate of the same name is answered {reply}")
    other = udid_name(generate_key().public_key())
    foreign = await bench.require_refused(
        "a CSR in the name of another device", wish=replace(wish, subject=other, names=())
    )
    return f"a self-signed one of the same name: {reply.status}; another's name: {foreign.status}"


def _impostor(bench: Bench, key: SigningKey, name: x509.Name) -> LocalCredentials:
    own = bench.self_signed(key).chain[0]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .sign(key, pkcs10.signature_hash(key))
    )
    return LocalCredentials(key, (certificate,))


@row("SE-13", Level.MUST, "RFC 5280, CA policy", "the CA decides what is in a certificate")
async def not_copied(bench: Bench) -> str:
    await bench.wish()
    if bench.operational is None:
        raise Failed("the certificate is not for the key of the CSR")
    # A renewal for a new key: a server may answer the repetition of an enrollment from its store.
    wish = replace(await _proven(bench), key=generate_key())
    asking = linked_with(extensions=(_CA_CONSTRAINTS, _CA_USAGE, _OCSP_USAGE))
    reply = await bench.submit(asking, wish=wish)
    if not reply.accepted:
        require(reply.refused, f"a CSR that asks to be a CA is answered {reply}")
        return f"a CSR that asks to be a CA is refused: {reply}"
    certificate = reply.certificate_of(wish.key)
    if certificate is None:
        raise Failed("the certificate is not for the key of the CSR")
    _require_end_entity(certificate)
    return "a CSR that asks to be a CA gets a certificate of its own key, which is none"


_CA_CONSTRAINTS = x509.BasicConstraints(ca=True, path_length=5)
_OCSP_USAGE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
_CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _require_end_entity(certificate: x509.Certificate) -> None:
    require(not is_ca(certificate), "the certificate has CA:TRUE, as the CSR asked")
    extensions = certificate.extensions
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage):
            require(not value.key_cert_sign, "the certificate may sign certificates")
            require(not value.crl_sign, "the certificate may sign CRLs")
        if isinstance(value, x509.ExtendedKeyUsage):
            ocsp = ExtendedKeyUsageOID.OCSP_SIGNING in value
            require(not ocsp, "the certificate may sign OCSP answers, as the CSR asked")

"""Generated keys that are encrypted beside the channel (RFC 7030 section 4.4.1).

For a key that client and server share, if the run was given one, or else for the key of the
certificate that the run holds, if its key usage allows. Where neither does, these rows are not
applicable, but for those about what has to be refused.
"""

from __future__ import annotations

import secrets
from typing import Any

from asn1crypto import cms
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from est_client.conformance.bench import Bench
from est_client.conformance.generated_key_rows import Unpack, delivered, generate
from est_client.conformance.reply import Reply
from est_client.conformance.requests import CsrMaker, Wish, linked
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_client.generated_key import Protection, protection_by
from est_protocol import decrypt_key, multipart_core, multipart_mixed
from est_protocol.cms_algorithms import CAPABILITIES
from est_protocol.credentials import PeerCredentials
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.key_recipients import SymmetricKey, allows_decryption, key_identifiers
from est_protocol.keys import SigningKey, spki_der
from est_protocol.media_types import CERTS_ONLY, SERVER_GENERATED_KEY, ContentFormat
from est_protocol.messages import GeneratedKeyResponse, Transport
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.protected_key import unseal
from est_protocol.strict_asn1 import decoding

HTTPS, COAPS = Transport.HTTPS, Transport.COAPS


def _asking_for(request: ProtectionRequest) -> CsrMaker:
    def make(server: PeerCredentials, wish: Wish) -> bytes:
        csr = CertificationRequest.decode(linked(server, wish))
        return decrypt_key.write(csr, request, wish.key).der

    return make


def _unsealing(protection: Protection, seen: list[bytes]) -> Unpack:
    """Takes the key out of an encrypted answer, and notes the octets of the encryption."""

    def unpack(answer: GeneratedKeyResponse) -> SigningKey:
        require(answer.protected, "the key came in the clear although it was to be encrypted")
        signed = unseal(answer.key, protection.key)
        certified = answer.certificates[0].public_key()
        same = spki_der(signed.key.public_key()) == spki_der(certified)
        require(same, "the certificate is for another key than the one that came with it")
        seen.append(answer.key)
        return signed.key

    return unpack


async def _protection(bench: Bench, shared: SymmetricKey | None = None) -> Protection:
    """How a key can be encrypted for the run: for its certificate, or for ``shared``."""
    protection = protection_by(await bench.renewable(), shared)
    if protection is None:
        raise NotApplicable("the certificate is not for key transport or key agreement")
    return protection


async def _sealed(
    bench: Bench, protection: Protection, kind: str = "ec-p256"
) -> tuple[Reply, bytes]:
    """An encrypted key, and the CMS that it came in.

    :param kind: the kind to ask for, which is a hint.
    :raises Failed: it came otherwise.
    :raises NotApplicable: the server grants none.
    """
    seen: list[bytes] = []
    csr = _asking_for(protection.request)
    reply = await generate(bench, csr, kind=kind, unpack=_unsealing(protection, seen))
    if not reply.accepted:
        raise NotApplicable(f"the server generates no encrypted key for this device: {reply}")
    return reply, seen[0]


async def _recipient(bench: Bench, protection: Protection, name: str) -> Any:
    """The one RecipientInfo of an encrypted key, which has to be of the kind ``name``."""
    _, octets = await _sealed(bench, protection)

    def read() -> Any:
        infos = cms.ContentInfo.load(octets, strict=True)["content"]["recipient_infos"]
        require(len(infos) == 1, f"the key is encrypted for {len(infos)} recipients")
        return infos[0]

    info = decoding("the encrypted key", read)
    require(info.name == name, f"the RecipientInfo is {info.name}, not {name}")
    return info.chosen


async def _grants_any(bench: Bench, kind: str = "ec-p256") -> None:
    """Check that the server generates keys for this device, or a refusal says nothing.

    :param kind: the kind to ask for, which is a hint.
    :raises NotApplicable: it does not.
    """
    reply = await generate(bench, kind=kind)
    if not reply.accepted:
        await _sealed(bench, await _protection(bench, bench.shared_key), kind)


async def _require_refused(bench: Bench, what: str, request: ProtectionRequest) -> str:
    reply = await generate(bench, _asking_for(request), unpack=_must_not_come(what))
    require(reply.code >= 400, f"{what}: {reply}")
    return f"{what}: {reply}"


def _must_not_come(what: str) -> Unpack:
    def unpack(answer: GeneratedKeyResponse) -> SigningKey:
        raise Failed(f"{what}: a key came, {'encrypted' if answer.protected else 'in the clear'}")

    return unpack


@row("SKG-13", Level.MUST, "RFC 7030 4.4.1", "an unknown key identifier is an error")
async def unknown_identifier(bench: Bench) -> str:
    await _grants_any(bench)
    unknown = secrets.token_bytes(20)
    return "; ".join(
        [
            await _require_refused(
                bench, "unknown shared key", ProtectionRequest(unknown, None, CAPABILITIES)
            ),
            await _require_refused(
                bench, "unknown public key", ProtectionRequest(None, unknown, CAPABILITIES)
            ),
        ]
    )


@row("SKG-14", Level.MUST, "RFC 7030 4.4.2", "EnvelopedData of SignedData of the key")
async def signed_and_enveloped(bench: Bench) -> str:
    _, octets = await _sealed(bench, await _protection(bench, bench.shared_key))
    return f"{len(octets)} octets of CMS, decrypted, signature verified, key of the certificate"


@row("SKG-15", Level.MUST, "RFC 7030 4.4.2", "for a shared key: KEKRecipientInfo")
async def for_a_shared_key(bench: Bench) -> str:
    shared = bench.shared_key
    if shared is None:
        raise NotApplicable("no shared key was given (--decrypt-key)")
    info = await _recipient(bench, await _protection(bench, shared), "kekri")
    version, named = info["version"].native, info["kekid"]["key_identifier"].native
    require(version == "v4", f"the version is {version}, not v4")
    require(named == shared.identifier, "kekid is not the DecryptKeyIdentifier")
    return "KEKRecipientInfo v4, kekid as asked"


@row("SKG-16", Level.MUST, "RFC 7030 4.4.2", "for an RSA key: KeyTransRecipientInfo", HTTPS)
async def for_an_rsa_key(bench: Bench) -> str:
    for kind in ("rsa-2048", "rsa-3072"):
        await _grants_any(bench, kind)
        if isinstance((await bench.renewable()).key, rsa.RSAPrivateKey):
            break
    else:
        raise NotApplicable("the server generates no RSA keys for this device")
    info = await _recipient(bench, await _protection(bench), "ktri")
    by, version = info["rid"].name, info["version"].native
    wanted = "v2" if by == "subject_key_identifier" else "v0"
    require(version == wanted, f"the version is {version} with {by}, not {wanted}")
    return f"KeyTransRecipientInfo {version} by {by}"


@row("SKG-17", Level.MUST, "RFC 7030 4.4.2", "for an EC key: KeyAgreeRecipientInfo")
async def for_an_ec_key(bench: Bench) -> str:
    holder = await bench.renewable()
    if not isinstance(holder.key, ec.EllipticCurvePrivateKey):
        raise NotApplicable("the certificate of the run is not for an EC key")
    info = await _recipient(bench, await _protection(bench), "kari")
    version = info["version"].native
    require(version == "v3", f"the version is {version}, not v3")
    return "KeyAgreeRecipientInfo v3"


@row("SKG-18", Level.MUST, "RFC 7030 4.4.2", "the type of an encrypted key", HTTPS)
async def encrypted_type(bench: Bench) -> str:
    reply, _ = await _sealed(bench, await _protection(bench, bench.shared_key))
    types = [part.media_type for part in multipart_mixed.decode(reply.media_type, reply.body)]
    found = [(t.name, t.parameters.get("smime-type", "")) for t in types]
    wanted = {(t.name, t.parameters["smime-type"]) for t in (SERVER_GENERATED_KEY, CERTS_ONLY)}
    require(len(found) == 2 and set(found) == wanted, f"the parts are {found}")
    return " and ".join(f"{name}; smime-type={kind}" for name, kind in found)


@row("SKG-19", Level.MUST, "RFC 7030 4.4.1.2", "a key for signatures only is refused")
async def signing_key(bench: Bench) -> str:
    await _grants_any(bench)
    certificate = (await bench.renewable()).chain[0]
    if allows_decryption(certificate):
        raise NotApplicable("the certificate's key usage allows encryption")
    request = ProtectionRequest(None, key_identifiers(certificate)[0], CAPABILITIES)
    return await _require_refused(bench, "key usage without encryption", request)


@row("CF-14", Level.SHOULD, "RFC 9148 4.8", "a key can be had encrypted, as 280", COAPS)
async def coap_encrypted(bench: Bench) -> str:
    await _grants_any(bench)
    protection = await _protection(bench, bench.shared_key)
    csr = _asking_for(protection.request)
    reply = await generate(bench, csr, unpack=_unsealing(protection, []))
    require(reply.accepted, f"an encrypted key is asked for: {reply}")
    return "an encrypted key is granted"


@row("CF-15", Level.MUST, "RFC 9148 4.8", "280 exactly where encryption is asked for", COAPS)
async def coap_formats(bench: Bench) -> str:
    plain = await generate(bench)
    seen = []
    if plain.accepted:
        seen.append(_require_key_format(plain, ContentFormat.PKCS8))
    sealed, _ = await _sealed(bench, await _protection(bench, bench.shared_key))
    seen.append(_require_key_format(sealed, ContentFormat.SERVER_GENERATED_KEY))
    return "; ".join(seen)


def _require_key_format(reply: Reply, wanted: int) -> str:
    found = [part.content_format for part in multipart_core.decode(reply.body)]
    require(wanted in found, f"the parts are {found}, without {wanted}")
    return f"{'encrypted' if delivered(reply).protected else 'in the clear'}: {found}"

"""Keys that the server generates: of which kind, encrypted how, and made where.

RFC 7030 section 4.4, RFC 9148 section 4.8. A generated key exists in the memory of one request
only: it is not logged, not stored, and not in the ledger.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from est_protocol import decrypt_key, protected_key
from est_protocol.cms_algorithms import NothingInCommon
from est_protocol.credentials import PeerCredentials
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.errors import ConfigurationError, MessageError, RefusalReason, RequestRefused
from est_protocol.key_package import KeyGenerator, encode_private_key
from est_protocol.key_recipients import (
    Recipient,
    RecipientKey,
    SymmetricKey,
    allows_decryption,
    key_identifiers,
    recipient_info,
)
from est_protocol.keys import (
    KEY_KINDS,
    PublicKey,
    SigningKey,
    defect_of,
    generate_key,
    key_kind,
)
from est_protocol.messages import GeneratedKeyResponse
from est_protocol.pkcs10 import CertificationRequest
from est_server.key_protection import KeyGenerationPolicy
from est_server.profiles import CertificateProfile

#: Octets of the content key that tries out whether an encryption will work.
_TRIAL_KEY = bytes(32)


def check_policy(policy: KeyGenerationPolicy, profile: CertificateProfile) -> None:
    """Check that keys can be generated as ``policy`` says, and certified.

    :raises ConfigurationError: they cannot.
    """
    if not policy.kinds:
        raise ConfigurationError("keys are to be generated, but of no kind")
    for kind in policy.kinds:
        if kind not in KEY_KINDS:
            raise ConfigurationError(f"keys of kind {kind!r} cannot be generated")
        if kind not in profile.allowed_keys:
            raise ConfigurationError(f"keys of kind {kind!r} are generated, but not certified")
    if policy.require_protected_key and policy.generator is None:
        raise ConfigurationError("encrypted keys are required, but nobody signs them")


@dataclass(frozen=True, slots=True)
class DeliveredKey:
    """A generated key, packed for its client.

    :param public_key: its public half.
    :param octets: PKCS#8, or CMS if ``protected``; not in the ``repr``.
    """

    public_key: PublicKey
    octets: bytes = field(repr=False)
    protected: bool

    def answer(self, certificate: x509.Certificate) -> GeneratedKeyResponse:
        """The answer with the key and its certificate in it."""
        return GeneratedKeyResponse((certificate,), self.octets, self.protected)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one generated key travels.

    :param kind: the kind of key to generate.
    :param protection: who decrypts it, with what they are capable of, and who signs it; ``None``
        for the clear, within the channel.
    """

    kind: str
    protection: tuple[Recipient, ProtectionRequest, KeyGenerator] | None

    def pack(self, key: SigningKey) -> DeliveredKey:
        """Pack ``key`` as it is to travel."""
        if self.protection is None:
            return DeliveredKey(key.public_key(), encode_private_key(key), protected=False)
        sealed = protected_key.seal(key, *self.protection)
        return DeliveredKey(key.public_key(), sealed, protected=True)


def read_wish(csr: CertificationRequest) -> ProtectionRequest | None:
    """What the CSR says about the encryption of the key.

    :raises RequestRefused: it does not make sense.
    """
    try:
        return decrypt_key.read(csr.der)
    except MessageError as error:
        raise RequestRefused(RefusalReason.MALFORMED_CSR, str(error)) from error


async def plan_delivery(
    policy: KeyGenerationPolicy,
    csr: CertificationRequest,
    wish: ProtectionRequest | None,
    peer: PeerCredentials,
    device: str,
) -> Delivery:
    """Decide how the key for ``device`` is made and delivered, before anything is made.

    :raises RequestRefused: it has to be encrypted and cannot be. There is no falling back to the
        clear once encryption was asked for (RFC 7030 section 4.4.1).
    """
    asked = key_kind(csr.public_key)
    kind = asked if asked in policy.kinds else policy.kinds[0]
    if wish is None:
        _require_clear_allowed(policy, kind, peer)
        return Delivery(kind, None)
    if policy.generator is None:
        raise _impossible("generated keys cannot be had encrypted here")
    recipient = await _find_recipient(policy, wish, peer, device)
    try:
        recipient_info(recipient, _TRIAL_KEY, wish.capabilities)
    except (NothingInCommon, ValueError) as error:
        raise _impossible(f"the key cannot be encrypted as asked: {error}") from error
    return Delivery(kind, (recipient, wish, policy.generator))


def _require_clear_allowed(policy: KeyGenerationPolicy, kind: str, peer: PeerCredentials) -> None:
    if policy.require_protected_key:
        raise RequestRefused(
            RefusalReason.KEY_PROTECTION_REQUIRED,
            "the generated key has to be encrypted beside the channel: name a key to encrypt it "
            "with (RFC 7030 section 4.4.1)",
        )
    if channel_strength(peer.cipher) < _STRENGTHS.get(kind, 128):
        raise RequestRefused(
            RefusalReason.KEY_PROTECTION_REQUIRED,
            f"the cipher suite of the channel is too weak to carry a key of kind {kind} "
            "(RFC 7030 section 4.4)",
            detail=f"cipher suite {peer.cipher!r}",
        )


#: Bits of security of the kinds of key that have more than 128; see ``security_strength``.
_STRENGTHS = {"ec-p384": 192, "ec-p521": 256, "ed448": 224, "mldsa65": 192, "mldsa87": 256}


def channel_strength(cipher: str) -> int:
    """Bits of security of a cipher suite by OpenSSL's name of it; 0 if it is unknown."""
    if "AES_256" in cipher or "AES256" in cipher or "CHACHA20" in cipher:
        return 256
    return 128 if "AES_128" in cipher or "AES128" in cipher else 0


async def _find_recipient(
    policy: KeyGenerationPolicy, wish: ProtectionRequest, peer: PeerCredentials, device: str
) -> Recipient:
    if wish.symmetric is not None:
        shared = None
        if policy.protection is not None:
            shared = await policy.protection.symmetric_key(wish.symmetric, device)
        if shared is None:
            raise _unknown("DecryptKeyIdentifier", wish.symmetric)
        return SymmetricKey(wish.symmetric, shared)
    assert wish.asymmetric is not None
    found: x509.Certificate | PublicKey | None = _own_key(wish.asymmetric, peer)
    if found is None and policy.protection is not None:
        found = await policy.protection.recipient_key(wish.asymmetric, device)
    if found is None:
        raise _unknown("AsymmetricDecryptKeyIdentifier", wish.asymmetric)
    return _recipient(wish.asymmetric, found)


def _own_key(identifier: bytes, peer: PeerCredentials) -> x509.Certificate | None:
    """The certificate that the client presented, if ``identifier`` names its key.

    Whatever the certificate is worth, its private key is the client's.
    """
    certificate = peer.certificate
    if certificate is None:
        return None
    try:
        return certificate if identifier in key_identifiers(certificate) else None
    except MessageError:
        # Extensions that nobody can read name no key.
        return None


def _recipient(identifier: bytes, found: x509.Certificate | PublicKey) -> RecipientKey:
    key = found.public_key() if isinstance(found, x509.Certificate) else found
    _require_strong_recipient(key)
    if not isinstance(found, x509.Certificate):
        return RecipientKey(identifier, found)
    if not allows_decryption(found):
        raise _impossible(
            "the key usage of the certificate allows neither key transport nor key agreement "
            "(RFC 7030 section 4.4.1.2)"
        )
    return RecipientKey(identifier, found.public_key(), found)


def _require_strong_recipient(key: PublicKey) -> None:
    """Whoever can break the recipient's key gets at the generated one, at any later time."""
    shortest = 2048 if isinstance(key, rsa.RSAPublicKey) else 224
    size = getattr(key, "key_size", shortest)
    if size < shortest:
        raise _impossible(f"a key of {size} bits is too weak to encrypt another one for it")
    if defect := defect_of(key):
        raise _impossible(f"no key can be encrypted for one that is unsound: {defect}")


def _unknown(attribute: str, identifier: bytes) -> RequestRefused:
    return RequestRefused(
        RefusalReason.DECRYPT_KEY_UNKNOWN,
        f"the key that {attribute} names is not known here",
        detail=f"identifier {identifier.hex()}",
    )


def _impossible(sentence: str) -> RequestRefused:
    return RequestRefused(RefusalReason.KEY_PROTECTION_IMPOSSIBLE, sentence)


class KeyFactory:
    """Makes keys without holding up the event loop.

    :param workers: how many keys are made at once; an RSA key takes a core for a second or more.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._threads: ThreadPoolExecutor | None = None

    async def make(self, kind: str) -> SigningKey:
        """Make a key of ``kind``, one of :data:`est_protocol.keys.KEY_KINDS`."""
        if not kind.startswith("rsa-"):
            return generate_key(kind)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._workers, "key-generation")
        return await asyncio.get_running_loop().run_in_executor(self._threads, generate_key, kind)

    def close(self) -> None:
        """Let the threads go; a later key starts them again."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

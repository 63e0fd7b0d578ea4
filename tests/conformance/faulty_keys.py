"""Generated keys, as they should be or with one thing wrong, for the servers of these tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_protocol import decrypt_key
from est_protocol.credentials import PeerCredentials
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.key_package import KeyGenerator
from est_protocol.key_recipients import RecipientKey, SymmetricKey
from est_protocol.keys import PublicKey, generate_key
from est_protocol.messages import GeneratedKeyResponse
from est_protocol.pkcs10 import CertificationRequest
from est_server.key_generation import Delivery, plan_delivery
from est_server.key_protection import KeyGenerationPolicy
from tests.pki import PRESENT, Ca, make_key, make_server

SHARED = SymmetricKey(b"kek 7", bytes(range(32)))


class _Shared:
    async def symmetric_key(self, identifier: bytes, _device: str, /) -> bytes | None:
        return SHARED.key if identifier == SHARED.identifier else None

    async def recipient_key(self, _identifier: bytes, _device: str, /) -> PublicKey | None:
        return None


class FaultyKeys:
    """Generates keys for whoever asks; ``fault`` is what goes wrong."""

    def __init__(self, ca: Ca, fault: str) -> None:
        self._ca = ca
        self._fault = fault
        server = make_server(ca)
        signer = make_key("nobody") if fault == "keys signed by nobody" else server.key
        self._generator = KeyGenerator(signer, server.chain)
        self._policy = KeyGenerationPolicy(
            kinds=("ec-p256", "rsa-2048"),
            generator=None if fault == "keys in the clear only" else self._generator,
            protection=_Shared(),
        )

    async def answer(self, der: bytes, peer: PeerCredentials) -> GeneratedKeyResponse:
        """The key and its certificate.

        :raises RequestRefused: it cannot be encrypted as asked.
        """
        csr = CertificationRequest.decode(der)
        if self._fault == "keys for signed requests" and not csr.proves_possession():
            raise RequestRefused(RefusalReason.MALFORMED_CSR, "the signature is wrong")
        delivery = await self._delivery(csr, peer)
        key = generate_key(delivery.kind)
        packed = delivery.pack(key)
        other = self._fault == "keys of another certificate"
        public_key = make_key("another").public_key() if other else packed.public_key
        answer = packed.answer(self._certify(csr.subject, public_key))
        if self._fault == "keys numbered wrongly" and answer.protected:
            return replace(answer, key=_numbered_wrongly(answer.key))
        if self._fault == "keys labelled wrongly":
            return replace(answer, protected=False)
        return answer

    async def _delivery(self, csr: CertificationRequest, peer: PeerCredentials) -> Delivery:
        wish = decrypt_key.read(csr.der)
        if self._fault == "keys for signatures encrypted" and wish and wish.asymmetric:
            return Delivery("ec-p256", (_for_anybody(wish, peer), wish, self._generator))
        if self._fault == "keys never encrypted":
            wish = None
        try:
            return await plan_delivery(self._policy, csr, wish, peer, "device")
        except RequestRefused:
            if self._fault == "keys rather in the clear":
                return Delivery("ec-p256", None)
            raise

    def _certify(self, subject: x509.Name, public_key: PublicKey) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._ca.certificate.subject)
            .public_key(public_key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(PRESENT - timedelta(minutes=5))
            .not_valid_after(PRESENT + timedelta(hours=12))
        )
        if self._fault.startswith("keys for signatures"):
            builder = builder.add_extension(_signatures_only(), critical=True)
        return builder.sign(self._ca.key, hashes.SHA256())


def _for_anybody(wish: ProtectionRequest, peer: PeerCredentials) -> RecipientKey:
    assert wish.asymmetric is not None
    assert peer.certificate is not None
    key: Any = peer.certificate.public_key()
    return RecipientKey(wish.asymmetric, key)


def _signatures_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _numbered_wrongly(octets: bytes) -> bytes:
    info = cms.ContentInfo.load(octets)
    (recipient,) = info["content"]["recipient_infos"]
    recipient.chosen["version"] = "v1"
    return bytes(info.dump(force=True))

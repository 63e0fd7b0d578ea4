"""A signer over a private key in the memory of this process."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from est_protocol.keys import PublicKey, SigningKey
from est_protocol.pkcs10 import signature_hash

_PROMPT_KEYS = (EllipticCurvePrivateKey, Ed25519PrivateKey, Ed448PrivateKey)


class KeySigner:
    """Signs with a private key that is there; the hash is the one that fits the key.

    Protects the key in no way: whoever reads this process's memory has it.

    :param key: EC, RSA, Ed25519 or Ed448.
    """

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._public_key = key.public_key()

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self._public_key

    @property
    def is_prompt(self) -> bool:
        """Whether a signature takes a tenth of a millisecond or so; one by RSA takes several."""
        return isinstance(self._key, _PROMPT_KEYS)

    def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign a certificate whose other fields are set."""
        return builder.sign(self._key, signature_hash(self._key))

    def sign_crl(
        self, builder: x509.CertificateRevocationListBuilder
    ) -> x509.CertificateRevocationList:
        """Sign a CRL whose other fields are set."""
        return builder.sign(self._key, signature_hash(self._key))

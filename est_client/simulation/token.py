"""Device keys in a PKCS#11 token: made in it, and never out of it.

A simulated device's key store keeps a handle of such a key where another one has the key. The key
signs CSRs. It cannot authenticate a TLS or DTLS channel: OpenSSL, as pyOpenSSL gives it out, wants
the private key itself. So it is good for first enrollments with a bare key over HTTPS, where the
CSR, linked to the channel, is the proof of possession.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from est_protocol.errors import ConfigurationError


class TokenKey(ec.EllipticCurvePrivateKey):
    """A P-256 key in a token.

    :param handle: the private key's object.
    :param public_key: its public half.
    """

    def __init__(self, handle: Any, public_key: ec.EllipticCurvePublicKey) -> None:
        self._handle = handle
        self._public_key = public_key

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """Bits of the curve's order."""
        return self.curve.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Sign in the token; the digest is made here."""
        import pkcs11

        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, utils.Prehashed):
            digest = bytes(data)
        else:
            hasher = hashes.Hash(algorithm)
            hasher.update(data)
            digest = hasher.finalize()
        raw: bytes = self._handle.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        half = len(raw) // 2
        return utils.encode_dss_signature(
            int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        )

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Not offered."""
        raise ConfigurationError("a key in a token signs, and agrees on nothing")

    def private_numbers(self) -> NoReturn:
        """The key does not leave the token."""
        raise ConfigurationError("a key in a token does not leave it")

    def private_bytes(self, *_arguments: object, **_more: object) -> NoReturn:
        """The key does not leave the token."""
        raise ConfigurationError("a key in a token does not leave it")

    def __copy__(self) -> TokenKey:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> TokenKey:
        return self


class Token:
    """An open token; made by :func:`open_token`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._count = 0

    def make_key(self) -> TokenKey:
        """A new P-256 key pair in the token; gone with the session."""
        import pkcs11
        from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

        self._count += 1
        parameters = self._session.create_domain_parameters(
            pkcs11.KeyType.EC,
            {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        public, private = parameters.generate_keypair(label=f"device-{self._count}")
        key = load_der_public_key(encode_ec_public_key(public))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return TokenKey(private, key)


@contextmanager
def open_token(module: Path | str, label: str, pin: str) -> Iterator[Token]:
    """Open a token.

    :param module: the PKCS#11 library, such as ``/usr/lib/softhsm/libsofthsm2.so``.
    :param label: the token's.
    :param pin: the user's.
    :raises ConfigurationError: there is no such library or token, the PIN is wrong, or
        python-pkcs11 is not installed.
    """
    try:
        import pkcs11
    except ImportError as error:
        raise ConfigurationError("keys in a token need the extra 'pkcs11'") from error
    try:
        library = pkcs11.lib(str(module))
        session = library.get_token(token_label=label).open(rw=True, user_pin=pin)
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        what = str(error) or type(error).__name__
        raise ConfigurationError(f"{module}, token {label!r}: {what}") from error
    try:
        yield Token(session)
    finally:
        session.close()

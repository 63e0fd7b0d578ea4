"""A server-generated key encrypted for its client, beside TLS (RFC 7030 section 4.4.2)::

ContentInfo( EnvelopedData( SignedData( AsymmetricKeyPackage ) ) )   -- RFC 5652, RFC 5958
"""

from __future__ import annotations

import secrets
from typing import Any

from asn1crypto import cms
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap
from cryptography.hazmat.primitives.padding import PKCS7

from est_protocol import cms_algorithms, key_recipients
from est_protocol.decrypt_key import ProtectionRequest
from est_protocol.errors import MessageError
from est_protocol.key_package import (
    ID_SIGNED_DATA,
    KeyGenerator,
    SignedKey,
    open_package,
    sign_package,
)
from est_protocol.key_recipients import DecryptionKey, Recipient
from est_protocol.keys import SigningKey
from est_protocol.strict_asn1 import decoding

ID_ENVELOPED_DATA = "1.2.840.113549.1.7.3"
_BLOCK = 16

#: Octets of a protected key, and recipients of it: far above what a server sends.
MAX_OCTETS = 256 * 1024
MAX_RECIPIENTS = 16


def seal(
    key: SigningKey, recipient: Recipient, request: ProtectionRequest, generator: KeyGenerator
) -> bytes:
    """The DER ContentInfo with ``key``, signed by ``generator`` and encrypted for ``recipient``.

    :param request: says which algorithms the recipient knows.
    :raises NothingInCommon: they will not do.
    """
    strength = cms_algorithms.security_strength(key.public_key())
    cipher = cms_algorithms.content_cipher(request.capabilities, strength)
    content_key = secrets.token_bytes(cms_algorithms.CONTENT_CIPHERS[cipher])
    info = key_recipients.recipient_info(recipient, content_key, request.capabilities)
    iv = secrets.token_bytes(_BLOCK)
    # RFC 5652 section 6.1: 0 where every recipient's version is, else 2.
    version = "v0" if info.chosen["version"].native == "v0" else "v2"
    enveloped = cms.EnvelopedData(
        {
            "version": version,
            "recipient_infos": [info],
            "encrypted_content_info": {
                "content_type": ID_SIGNED_DATA,
                "content_encryption_algorithm": {"algorithm": cipher, "parameters": iv},
                "encrypted_content": _encrypt(content_key, iv, sign_package(key, generator)),
            },
        }
    )
    sealed: bytes = cms.ContentInfo(
        {"content_type": ID_ENVELOPED_DATA, "content": enveloped}
    ).dump()
    return sealed


def unseal(octets: bytes, key: DecryptionKey) -> SignedKey:
    """Decrypt what :func:`seal`, or another server, made, and verify its signature.

    :param key: the key that was named in the request.
    :return: the private key and who signed it; whether that signer may is for the caller to say.
    :raises MessageError: it does not decode, is for somebody else, or is not signed as it has
        to be.
    """
    if len(octets) > MAX_OCTETS:
        raise MessageError(f"the encrypted key is larger than {MAX_OCTETS} octets")
    signed = decoding("the fields of the encrypted key", lambda: _open(octets, key))
    return open_package(signed)


def _open(octets: bytes, key: DecryptionKey) -> bytes:
    info = cms.ContentInfo.load(octets, strict=True)
    if info["content_type"].dotted != ID_ENVELOPED_DATA:
        raise MessageError("the encrypted key is no EnvelopedData")
    enveloped = info["content"]
    recipients = enveloped["recipient_infos"]
    content = enveloped["encrypted_content_info"]
    if len(recipients) > MAX_RECIPIENTS:
        raise MessageError(f"the encrypted key has more than {MAX_RECIPIENTS} recipients")
    if content["content_type"].dotted != ID_SIGNED_DATA:
        raise MessageError("the encrypted key is not signed")
    try:
        return _decrypt(key_recipients.content_key(recipients, key), content)
    except (InvalidUnwrap, ValueError) as error:
        # One sentence for whatever went wrong in here.
        raise MessageError("the generated key cannot be decrypted") from error


def _encrypt(key: bytes, iv: bytes, octets: bytes) -> bytes:
    padder = PKCS7(_BLOCK * 8).padder()
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    padded = padder.update(octets) + padder.finalize()
    return encryptor.update(padded) + encryptor.finalize()


def _decrypt(key: bytes, content: Any) -> bytes:
    algorithm = content["content_encryption_algorithm"]
    size = cms_algorithms.CONTENT_CIPHERS.get(algorithm["algorithm"].dotted)
    if size is None or len(key) != size:
        raise MessageError("the key is encrypted with an unknown algorithm")
    decryptor = Cipher(AES(key), CBC(algorithm["parameters"].native)).decryptor()
    padded = decryptor.update(content["encrypted_content"].native) + decryptor.finalize()
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    return unpadder.update(padded) + unpadder.finalize()

"""The few OpenSSL calls that pyOpenSSL compiles in but does not wrap.

The only module that reaches for pyOpenSSL's low-level binding; when pyOpenSSL grows the public
method, the function here goes.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from est_protocol.keys import MlDsaKey, key_kind

_ffi: Any = ffi
_lib: Any = lib

#: SSL_MODE_NO_AUTO_CHAIN of OpenSSL's ssl.h.
MODE_NO_AUTO_CHAIN = 0x8
#: DTLS1_2_VERSION of OpenSSL's prov_ssl.h.
DTLS1_2_VERSION = 0xFEFD
#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h.
NO_CHECK_TIME = 0x200000


def set_groups(context: SSL.Context, groups: str) -> None:
    """Set the key exchange groups of ``context``, most wanted first.

    :raises ValueError: OpenSSL knows one of them not.
    """
    if _lib.SSL_CTX_set1_curves_list(context._context, groups.encode("ascii")) != 1:
        _lib.ERR_clear_error()
        raise ValueError(f"unknown group in {groups!r}")


def set_signature_algorithms(context: SSL.Context, schemes: str) -> None:
    """Set the signature schemes of ``context``, most wanted first.

    :raises ValueError: OpenSSL knows one of them not.
    """
    if _lib.SSL_CTX_set1_sigalgs_list(context._context, schemes.encode("ascii")) != 1:
        _lib.ERR_clear_error()
        raise ValueError(f"unknown signature scheme in {schemes!r}")


def use_ml_dsa_key(context: SSL.Context, key: MlDsaKey) -> None:
    """Have ``context`` sign with ``key``, of a kind that pyOpenSSL does not take as it is.

    :raises ValueError: OpenSSL does not take it either.
    """
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    loaded: Any = crypto.load_privatekey(crypto.FILETYPE_PEM, pem)
    if _lib.SSL_CTX_use_PrivateKey(context._context, loaded._pkey) != 1:
        _lib.ERR_clear_error()
        raise ValueError(f"no {key_kind(key.public_key())} key can be used")


def send_extension(context: SSL.Context, extension_type: int, octets: bytes) -> None:
    """Let clients of ``context`` put an extension into the ClientHello where TLS 1.2 is offered.

    Whatever the server says to it is let pass.

    :raises ValueError: OpenSSL sends this type by itself.
    """
    kept = _ffi.new("unsigned char[]", octets)

    def add(_ssl: Any, _type: int, out: Any, length: Any, _alert: Any, _argument: Any) -> int:
        out[0] = kept
        length[0] = len(octets)
        return 1

    def parse(_ssl: Any, _type: int, _said: Any, _length: int, _alert: Any, _argument: Any) -> int:
        return 1

    before = "int(SSL *, unsigned int, unsigned char"
    add_callback = _ffi.callback(f"{before} **, size_t *, int *, void *)", add)
    parse_callback = _ffi.callback(f"{before} *, size_t, int *, void *)", parse)
    nothing = _ffi.NULL
    arguments = (extension_type, add_callback, nothing, nothing, parse_callback, nothing)
    if _lib.SSL_CTX_add_client_custom_ext(context._context, *arguments) != 1:
        _lib.ERR_clear_error()
        raise ValueError(f"extension {extension_type} cannot be sent")
    # OpenSSL calls them as long as the context is there.
    _callbacks[context] = (kept, add_callback, parse_callback)


#: What OpenSSL holds of Python's, by the context that holds it.
_callbacks: WeakKeyDictionary[SSL.Context, tuple[Any, ...]] = WeakKeyDictionary()


def has_extended_master_secret(connection: SSL.Connection) -> bool:
    """Whether RFC 7627 was negotiated; TLS 1.3 always has its property."""
    return bool(_lib.SSL_get_extms_support(connection._ssl) == 1)


def set_client_purpose(store: crypto.X509Store) -> None:
    """Verify chains as those of TLS clients, which a server's handshake does by itself."""
    _lib.X509_STORE_set_purpose(store._store, _lib.X509_PURPOSE_SSL_CLIENT)


def forget_errors() -> None:
    """Empty this thread's queue of errors, which a verification fills that fails.

    What stays there would be taken for an error of the next connection that OpenSSL works on.
    """
    _lib.ERR_clear_error()


_SHA256 = _lib.EVP_get_digestbyname(b"sha256")


def sha256_of(certificate: crypto.X509) -> bytes:
    """SHA-256 (32 octets) over the DER of ``certificate``.

    Takes 1 us, where converting the certificate for its fingerprint takes 30.
    """
    octets = _ffi.new("unsigned char[]", 32)
    length = _ffi.new("unsigned int *")
    if _lib.X509_digest(certificate._x509, _SHA256, octets, length) != 1:
        _lib.ERR_clear_error()
        raise ValueError("OpenSSL cannot hash the certificate")
    return bytes(_ffi.buffer(octets, 32))


#: Where BIO_get_mem_data writes an address that nobody reads.
_unused_address = _ffi.new("char **")


def octets_to_send(connection: SSL.Connection) -> int:
    """How many octets wait in the memory that ``connection`` writes to.

    Asking takes 0.2 us; finding out by reading in vain takes 1.5 and more, twice per datagram.
    """
    return int(_lib.BIO_get_mem_data(connection._from_ssl, _unused_address))


def octets_to_read(connection: SSL.Connection) -> int:
    """How many octets have arrived on ``connection`` that are not decrypted, or not taken yet."""
    return int(
        _lib.SSL_pending(connection._ssl)
        or _lib.BIO_get_mem_data(connection._into_ssl, _unused_address)
    )


@cache
def verify_error_text(code: int) -> str:
    """OpenSSL's words for an ``X509_V_ERR_*`` number."""
    text: bytes = _ffi.string(_lib.X509_verify_cert_error_string(code))
    return text.decode("ascii")

"""What this implementation negotiates: one documented object per protocol, secure by default.

The defaults follow RFC 9325 (TLS) and RFC 9148 section 3 with RFC 7925 (DTLS). There is no
renegotiation, no compression, no session resumption and no early data, whatever the policy says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from OpenSSL import SSL

from est_protocol.errors import ConfigurationError

#: Signature schemes accepted in handshakes and certificates; no SHA-1, no RSA PKCS#1 with SHA-1.
#: ML-DSA is for TLS 1.3 alone (draft-ietf-tls-mldsa).
_SIGNATURE_ALGORITHMS = (
    "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:ed25519:ed448:"
    "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:"
    "rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512:mldsa44:mldsa65:mldsa87"
)


class TlsVersion(IntEnum):
    """TLS versions that may be negotiated (RFC 8996 forbids the earlier ones)."""

    TLS1_2 = SSL.TLS1_2_VERSION
    TLS1_3 = SSL.TLS1_3_VERSION


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """TLS for EST over HTTPS.

    :param minimum_version: oldest version accepted.
    :param maximum_version: newest version offered; ``TLS1_2`` for peers that know no channel
        binding but tls-unique.
    :param ciphers: TLS 1.2 suites in OpenSSL's words: forward secrecy and AEAD only.
    :param ciphersuites: TLS 1.3 suites.
    :param groups: key exchange groups, most wanted first.
    :param signature_algorithms: signature schemes, most wanted first.
    :param bind_without_extended_master_secret: link requests to (D)TLS 1.2 channels too that were
        made without RFC 7627, for peers that do not know it. On such channels tls-unique is no
        safe binding: who sits between two of them can make it the same on both.
    """

    minimum_version: TlsVersion = TlsVersion.TLS1_2
    maximum_version: TlsVersion = TlsVersion.TLS1_3
    ciphers: str = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM"
    ciphersuites: str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    groups: str = "X25519:P-256:P-384:P-521"
    signature_algorithms: str = _SIGNATURE_ALGORITHMS
    bind_without_extended_master_secret: bool = False


@dataclass(frozen=True, slots=True)
class DtlsPolicy:
    """DTLS 1.2 for EST over CoAPS.

    :param ciphers: suites in OpenSSL's words. RFC 9148 section 3 makes
        TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8 mandatory; OpenSSL counts its 64-bit tag as weak, so
        the security level is stated here and key sizes are kept by ``groups`` and
        ``signature_algorithms`` instead.
    :param groups: key exchange groups; RFC 9148 requires secp256r1.
    :param signature_algorithms: signature schemes; kept short because a constrained client's
        handshake messages carry them over the air.
    :param mtu: largest datagram in octets, (D)TLS record header included, UDP and IP not.
        Handshake messages are fragmented to fit; at least 256.
    :param ccm8_forgery_limit: records that fail to decrypt before a session under the 64-bit tag
        of CCM_8 is closed (RFC 9147 section 4.5.3).
    :param maximum_handshake: octets of all handshake messages of the peer together; what goes
        beyond is dropped. OpenSSL alone would keep ten parts of messages of 100 KiB each. Chains
        with post-quantum signatures take 20,000.
    :param bind_without_extended_master_secret: link requests to (D)TLS 1.2 channels too that were
        made without RFC 7627, for peers that do not know it. On such channels tls-unique is no
        safe binding: who sits between two of them can make it the same on both.
    """

    ciphers: str = (
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
        "ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"
    )
    groups: str = "P-256:P-384:X25519"
    signature_algorithms: str = "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ed25519"
    mtu: int = 1232
    ccm8_forgery_limit: int = 128
    maximum_handshake: int = 32768
    bind_without_extended_master_secret: bool = False

    def __post_init__(self) -> None:
        if not 256 <= self.mtu <= 16384:
            raise ConfigurationError(f"a DTLS MTU of {self.mtu} octets is not in 256..16384")
        if self.maximum_handshake < 4096:
            raise ConfigurationError("maximum_handshake must be at least 4096 octets")

"""From policy, own certificate and trust anchors to an OpenSSL context.

A context is made once per endpoint and shared by all its channels. On a server, certificate
verification never ends a handshake: every failure is recorded on the connection, so that the
identity layer can say why a peer is refused, forgive an expiry, or accept a listed key that has
no chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto

from est_protocol.credentials import AnchorSet, VerificationFailure
from est_protocol.errors import ConfigurationError
from est_protocol.keys import MlDsaKey, SigningKey
from est_protocol.secure_channel import bindings, trusted_ca_keys
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy

#: X509_V_ERR_EE_KEY_TOO_SMALL, X509_V_ERR_CA_KEY_TOO_SMALL and X509_V_ERR_CA_MD_TOO_WEAK.
_EE_KEY_TOO_SMALL, _CA_KEY_TOO_SMALL, _CA_MD_TOO_WEAK = 66, 67, 68
#: Bits and octets of security level 2, which is OpenSSL's default for TLS.
_SHORTEST_RSA_KEY, _SHORTEST_EC_KEY, _SHORTEST_DIGEST = 2048, 224, 28


@dataclass(frozen=True, slots=True)
class LocalCredentials:
    """A private key and its certificate chain, own certificate first."""

    key: SigningKey
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """The certificates at which a peer's chain may end, by kind.

    Any certificate will do as an anchor, an intermediate CA too (RFC 5280 section 6 asks for no
    self-signature); a chain is not followed beyond one.
    """

    sets: Mapping[AnchorSet, Sequence[x509.Certificate]] = field(default_factory=dict)
    _known: dict[bytes, tuple[AnchorSet, x509.Certificate]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        known = {
            certificate.fingerprint(hashes.SHA256()): (kind, certificate)
            for kind, certificates in self.sets.items()
            for certificate in certificates
        }
        object.__setattr__(self, "_known", known)

    def kind_of(self, certificate: x509.Certificate) -> AnchorSet | None:
        """The set that ``certificate`` is an anchor of, or ``None``."""
        known = self.find(certificate.fingerprint(hashes.SHA256()))
        return known[0] if known is not None else None

    def find(self, sha256: bytes) -> tuple[AnchorSet, x509.Certificate] | None:
        """The anchor whose DER has this SHA-256 and the set that it is of, or ``None``."""
        return self._known.get(sha256)


def tls_context(
    policy: TlsPolicy,
    *,
    server: bool,
    credentials: LocalCredentials | None,
    anchors: TrustAnchors,
    require_trust: bool = False,
) -> SSL.Context:
    """The context of a TLS endpoint.

    A server asks for a client certificate and takes a client without one. A client that trusts
    Explicit anchors alone tells their names (RFC 7030 section 4.1.3).

    :param require_trust: end the handshake with an alert if the peer's chain does not verify;
        what a client wants unless its connection is provisional (RFC 7030 section 4.1.1).

    :raises ConfigurationError: OpenSSL rejects a part of the policy or the credentials.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(policy.minimum_version)
    context.set_max_proto_version(policy.maximum_version)
    try:
        context.set_tls13_ciphersuites(policy.ciphersuites.encode("ascii"))
    except SSL.Error as error:
        raise ConfigurationError(f"TLS 1.3 suites {policy.ciphersuites!r}: {error}") from error
    _configure(context, policy, credentials, anchors, require_trust)
    explicit = anchors.sets.get(AnchorSet.EXPLICIT)
    if explicit and not server and not anchors.sets.get(AnchorSet.IMPLICIT):
        octets = trusted_ca_keys.encode(explicit)
        bindings.send_extension(context, trusted_ca_keys.EXTENSION_TYPE, octets)
    return context


def dtls_context(
    policy: DtlsPolicy,
    *,
    server: bool,
    credentials: LocalCredentials | None,
    anchors: TrustAnchors,
    require_trust: bool = False,
) -> SSL.Context:
    """The context of a DTLS 1.2 endpoint; ``require_trust`` as for :func:`tls_context`.

    :raises ConfigurationError: OpenSSL rejects a part of the policy or the credentials.
    """
    context = SSL.Context(SSL.DTLS_SERVER_METHOD if server else SSL.DTLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.set_min_proto_version(bindings.DTLS1_2_VERSION)
    context.set_max_proto_version(bindings.DTLS1_2_VERSION)
    _configure(context, policy, credentials, anchors, require_trust)

    def end_on_weakness_too(
        connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int
    ) -> bool:
        weak = weakness(certificate.to_cryptography(), anchors, depth) if ok else 0
        return _end_on_failure(connection, certificate, weak or code, depth, 0 if weak else ok)

    # RFC 9148's mandatory suite needs OpenSSL's security level 0, which would also let chains
    # pass that are signed with SHA-1 or by a short key. Where that does not end the handshake
    # the session notes it afterwards: here it took 160 us to look at a chain of three.
    if require_trust:
        context.set_verify(SSL.VERIFY_PEER, end_on_weakness_too)
    return context


def _configure(
    context: SSL.Context,
    policy: TlsPolicy | DtlsPolicy,
    credentials: LocalCredentials | None,
    anchors: TrustAnchors,
    require_trust: bool,
) -> None:
    # For the engine, which is made with the context alone.
    context.set_app_data(policy)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # Send the chain that was configured and not, as OpenSSL would, one completed from the anchors.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | bindings.MODE_NO_AUTO_CHAIN)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    try:
        context.set_cipher_list(policy.ciphers.encode("ascii"))
        bindings.set_groups(context, policy.groups)
        bindings.set_signature_algorithms(context, policy.signature_algorithms)
        if credentials is not None:
            context.use_certificate(credentials.chain[0])
            if isinstance(credentials.key, MlDsaKey):
                bindings.use_ml_dsa_key(context, credentials.key)
            else:
                context.use_privatekey(credentials.key)
            for certificate in credentials.chain[1:]:
                context.add_extra_chain_cert(certificate)
            context.check_privatekey()
    except (SSL.Error, ValueError) as error:
        raise ConfigurationError(f"OpenSSL does not take the configuration: {error}") from error
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for certificates in anchors.sets.values():
        for certificate in certificates:
            store.add_cert(crypto.X509.from_cryptography(certificate))
    context.set_verify(SSL.VERIFY_PEER, _end_on_failure if require_trust else _record_failure)


def strength_failures(
    path: Sequence[x509.Certificate], anchors: TrustAnchors
) -> Iterator[VerificationFailure]:
    """What OpenSSL's security level 2 would say of a path, the peer's own certificate first."""
    for depth, certificate in enumerate(path):
        if code := weakness(certificate, anchors, depth):
            yield VerificationFailure(code, depth, bindings.verify_error_text(code))


def weakness(certificate: x509.Certificate, anchors: TrustAnchors, depth: int) -> int:
    """What OpenSSL's security level 2 would say of a certificate in a chain; 0 for nothing."""
    try:
        key = certificate.public_key()
        digest = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return _CA_KEY_TOO_SMALL if depth else _EE_KEY_TOO_SMALL
    if (isinstance(key, rsa.RSAPublicKey) and key.key_size < _SHORTEST_RSA_KEY) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < _SHORTEST_EC_KEY
    ):
        return _CA_KEY_TOO_SMALL if depth else _EE_KEY_TOO_SMALL
    # An anchor is believed as it is; nobody relies on its signature.
    short = digest is not None and digest.digest_size < _SHORTEST_DIGEST
    return _CA_MD_TOO_WEAK if short and anchors.kind_of(certificate) is None else 0


def _record_failure(
    connection: SSL.Connection, _certificate: crypto.X509, code: int, depth: int, ok: int
) -> bool:
    """OpenSSL's verify callback: note what is wrong and go on."""
    if not ok:
        failures: list[VerificationFailure] = connection.get_app_data()
        failures.append(VerificationFailure(code, depth, bindings.verify_error_text(code)))
    return True


def _end_on_failure(
    connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int
) -> bool:
    """OpenSSL's verify callback: note what is wrong and end the handshake."""
    _record_failure(connection, certificate, code, depth, ok)
    return bool(ok)

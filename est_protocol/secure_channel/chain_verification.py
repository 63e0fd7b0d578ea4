"""Verifying a client's chain whose handshake somebody else made, as this engine would have.

The same library, anchors, purpose and strength as in a handshake of
:mod:`est_protocol.secure_channel.context`. Possession of the key is the other end's word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography import x509
from OpenSSL import crypto

from est_protocol.credentials import AnchorSet, VerificationFailure
from est_protocol.errors import MessageError
from est_protocol.secure_channel import bindings
from est_protocol.secure_channel.context import TrustAnchors, strength_failures

#: X509_V_ERR_CERT_NOT_YET_VALID.
_NOT_YET_VALID = 9


def verify_client_chain(
    chain: Sequence[x509.Certificate], anchors: TrustAnchors, *, now: datetime
) -> tuple[AnchorSet | None, tuple[VerificationFailure, ...]]:
    """What a chain is worth: the set of the anchor that it ends at, and what is wrong with it.

    :param chain: certificates as presented, the client's own first, at least one.
    :param anchors: where it may end.
    :param now: the time at which it has to be valid.
    :return: as :class:`~est_protocol.credentials.PeerCredentials` has them.
    :raises MessageError: OpenSSL cannot read a certificate; in a handshake that ends it.
    """
    try:
        path = _path(chain, anchors, for_client=False)
        failures = [*strength_failures(path, anchors), *_time_failures(path, now)]
        try:
            _path(chain, anchors, for_client=True)
        except crypto.X509StoreContextError as error:
            failures.insert(0, _failure_of(error))
    except crypto.X509StoreContextError as error:
        return None, (_failure_of(error),)
    except crypto.Error as error:
        raise MessageError("a certificate of the client's chain does not decode") from error
    finally:
        bindings.forget_errors()
    return anchors.kind_of(path[-1]), tuple(failures)


def _path(
    chain: Sequence[x509.Certificate], anchors: TrustAnchors, *, for_client: bool
) -> list[x509.Certificate]:
    """The verified path from the client's certificate to an anchor, whatever the time is."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_flags(bindings.NO_CHECK_TIME)
    if for_client:
        bindings.set_client_purpose(store)
    for certificates in anchors.sets.values():
        for certificate in certificates:
            store.add_cert(crypto.X509.from_cryptography(certificate))
    own, *others = (crypto.X509.from_cryptography(certificate) for certificate in chain)
    verified = crypto.X509StoreContext(store, own, others).get_verified_chain()
    return [certificate.to_cryptography() for certificate in verified]


def _time_failures(path: list[x509.Certificate], now: datetime) -> Iterator[VerificationFailure]:
    for depth, certificate in enumerate(path):
        if now < certificate.not_valid_before_utc:
            yield _failure(_NOT_YET_VALID, depth)
        if now > certificate.not_valid_after_utc:
            yield _failure(VerificationFailure.EXPIRED, depth)


def _failure(code: int, depth: int) -> VerificationFailure:
    return VerificationFailure(code, depth, bindings.verify_error_text(code))


def _failure_of(error: crypto.X509StoreContextError) -> VerificationFailure:
    code, depth, _ = error.errors
    return _failure(code, depth)

"""Who may sign device lists, and whether a signature is theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from est_protocol.chain import verify_chain
from est_protocol.errors import CertificateRejected, ConfigurationError, MessageError
from est_protocol.keys import PublicKey
from est_protocol.x509_decoding import decoding_x509
from est_server.devices.refusals import SignatureRejected
from est_server.devices.signatures.algorithms import weakness, weakness_of_certificate

#: What a CA certifies all sorts of holders for, so that it tells nobody apart.
_COMMON_USAGES = frozenset(
    {
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
)

#: How far a signer's clock may be ahead of ours.
_CLOCK_SKEW = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ListSigner:
    """Somebody whose lists are believed, known in exactly one of three ways.

    :param name: what the operator calls them; recorded with their lists.
    :param certificates: their certificates; a signature with the key of any is theirs.
    :param public_key: their key, which has no end.
    :param anchors: CA certificates; a certificate that one of these CAs issued makes its holder
        this signer if it has what the next two parameters say. At least one of them has to say
        something: a CA certifies others too, such as the devices themselves.
    :param extended_key_usages: all of which such a certificate must have. Those for TLS clients and
        servers, and the one for anything, are not enough.
    :param subject: the subject that such a certificate must have.
    :param judge_at_signing_time: whether certificates have to be valid when the list was signed,
        as the signature says, and not now. Whoever has the key of an expired certificate can then
        still sign, with an earlier time.
    :raises ConfigurationError: that makes no sense, or a key or certificate is too weak.
    """

    name: str
    certificates: tuple[x509.Certificate, ...] = ()
    public_key: PublicKey | None = None
    anchors: tuple[x509.Certificate, ...] = ()
    extended_key_usages: frozenset[x509.ObjectIdentifier] = frozenset()
    subject: x509.Name | None = None
    judge_at_signing_time: bool = False

    def __post_init__(self) -> None:
        """Check it."""
        ways = (bool(self.certificates), self.public_key is not None, bool(self.anchors))
        if sum(ways) != 1:
            self._fail("is known by a certificate, a public key or a CA: exactly one of them")
        if not self.anchors and (self.extended_key_usages or self.subject is not None):
            self._fail("extended key usages and a subject are for signers that are known by a CA")
        if self.anchors and self.subject is None and not self.extended_key_usages - _COMMON_USAGES:
            self._fail(
                "whoever the CA certifies could sign lists: say the subject, or an extended key "
                "usage that is for this and nothing else"
            )
        if self.public_key is not None and self.judge_at_signing_time:
            self._fail("a bare key has no time in which it is valid")
        keys = [c.public_key() for c in (*self.certificates, *self.anchors)]
        for key in (*keys, *((self.public_key,) if self.public_key is not None else ())):
            fault = weakness(key)
            if fault is not None:
                self._fail(fault)

    def _fail(self, sentence: str) -> NoReturn:
        raise ConfigurationError(f"list signer {self.name!r}: {sentence}")


class Believed(NamedTuple):
    """A signature that is believed.

    :param signer: the name of the list signer.
    :param certificate: with whose key it verified, unless the signer is known by a bare key.
    """

    signer: str
    certificate: x509.Certificate | None


Verifies = Callable[[PublicKey], bool]


def find_signer(
    signers: Iterable[ListSigner],
    verifies: Verifies,
    *,
    sent: Sequence[x509.Certificate],
    signed_at: datetime | None,
    now: datetime,
) -> Believed:
    """The list signer who made a signature.

    :param verifies: whether the signature verifies with a key.
    :param sent: certificates that came with the signature. They are believed only as far as they
        lead to a CA of a list signer.
    :param signed_at: when it was made, as the signature itself says.
    :raises SignatureRejected: no list signer made it, or their certificate does not allow it.
    """
    if signed_at is not None and signed_at > now + _CLOCK_SKEW:
        raise SignatureRejected(f"the signature says that it was made on {signed_at:%F}, later on")
    refusal = SignatureRejected("the signature is by none of the configured list signers")
    for signer in signers:
        for key, certificate in _candidates(signer, sent):
            if not verifies(key):
                continue
            try:
                if certificate is not None:
                    with decoding_x509("the certificate of the signer"):
                        _check(signer, certificate, sent, _moment(signer, signed_at, now))
            except MessageError as error:
                refusal = SignatureRejected(str(error))
            except SignatureRejected as error:
                refusal = error
            else:
                return Believed(signer.name, certificate)
    raise refusal


def _candidates(
    signer: ListSigner, sent: Sequence[x509.Certificate]
) -> Iterator[tuple[PublicKey, x509.Certificate | None]]:
    if signer.public_key is not None:
        yield signer.public_key, None
    for certificate in signer.certificates:
        yield certificate.public_key(), certificate
    if signer.anchors:
        for certificate in sent:
            try:
                key = certificate.public_key()
            except (UnsupportedAlgorithm, ValueError):
                # Of a kind that nobody here knows, so that nothing verifies with it.
                continue
            yield key, certificate


def _moment(signer: ListSigner, signed_at: datetime | None, now: datetime) -> datetime:
    if not signer.judge_at_signing_time:
        return now
    if signed_at is None:
        raise SignatureRejected(
            f"the signature of {signer.name!r} does not say when it was made, which decides "
            "whether the certificate was valid"
        )
    return signed_at


def _check(
    signer: ListSigner,
    certificate: x509.Certificate,
    sent: Sequence[x509.Certificate],
    moment: datetime,
) -> None:
    who = f"the certificate {certificate.subject.rfc4514_string()!r} of {signer.name!r}"
    if moment > certificate.not_valid_after_utc:
        raise SignatureRejected(f"{who} expired on {certificate.not_valid_after_utc:%F}")
    if moment < certificate.not_valid_before_utc:
        raise SignatureRejected(f"{who} is valid from {certificate.not_valid_before_utc:%F} only")
    if not _may_sign(certificate):
        raise SignatureRejected(f"{who} is not for signatures (key usage)")
    if signer.anchors:
        _check_issued(signer, certificate, sent, moment, who)


def _check_issued(
    signer: ListSigner,
    certificate: x509.Certificate,
    sent: Sequence[x509.Certificate],
    moment: datetime,
    who: str,
) -> None:
    if _is_ca(certificate):
        raise SignatureRejected(f"{who} is a CA's; lists are signed by those it has certified")
    if signer.subject is not None and certificate.subject != signer.subject:
        raise SignatureRejected(f"{who} has not the subject {signer.subject.rfc4514_string()!r}")
    missing = signer.extended_key_usages - _extended_key_usages(certificate)
    if missing:
        names = ", ".join(sorted(usage.dotted_string for usage in missing))
        raise SignatureRejected(f"{who} lacks the extended key usage {names}")
    try:
        path = verify_chain(certificate, anchors=signer.anchors, intermediates=sent, now=moment)
    except CertificateRejected as error:
        raise SignatureRejected(f"{who} does not lead to a CA of the signer: {error}") from error
    for step in path[:-1]:
        fault = weakness_of_certificate(step)
        if fault is not None:
            raise SignatureRejected(f"{who}: {fault}")


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.content_commitment


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca


def _extended_key_usages(certificate: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(usages)

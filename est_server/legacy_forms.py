"""What a label does otherwise than the RFCs, on HTTPS, for peers that need it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509

from est_protocol.issuers import is_issued_by


@dataclass(frozen=True, slots=True)
class LegacyForms:
    """Departures from the RFCs on HTTPS, for peers that need them; all are off.

    :param content_transfer_encoding: send ``Content-Transfer-Encoding: base64`` with base64
        bodies and with the parts of /serverkeygen's, for clients of RFC 7030 as it was before
        RFC 8951 took the header out, which decode only where they see it.
    :param empty_bodies: answer 401 and 202 without the sentence that says why, for clients that
        take such a body for an error of the connection.
    :param quoted_challenges: write Digest's challenges with every value in quotes and without a
        charset, for clients that read no others. RFC 7616 section 3.3 wants the algorithm bare.
    :param issuer_chain: answer enrollments with the certificates of the issuing CAs too, the root
        left out, for clients that take the chain from there instead of from /cacerts. RFC 7030
        section 4.2.3 wants the new certificate alone.
    :param pem_requests: take certification requests in PEM too, for clients that send what
        ``openssl req`` writes. RFC 8951 section 3 wants the base64 without the lines around it.
    """

    content_transfer_encoding: bool = False
    empty_bodies: bool = False
    quoted_challenges: bool = False
    issuer_chain: bool = False
    pem_requests: bool = False


#: What a label does unless told otherwise.
NO_LEGACY_FORMS = LegacyForms()


def issuers_of(
    certificate: x509.Certificate, candidates: Iterable[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """The chain above ``certificate`` among ``candidates``, nearest first, without the root."""
    left = [found for found in candidates if found.subject != found.issuer]
    chain: list[x509.Certificate] = []
    below = certificate
    while (issuer := next((c for c in left if is_issued_by(below, c)), None)) is not None:
        left.remove(issuer)
        chain.append(issuer)
        below = issuer
    return tuple(chain)

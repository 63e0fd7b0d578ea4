"""What a label asks for in a CSR: told at /csrattrs, and held against the CSRs that come."""

from __future__ import annotations

from dataclasses import dataclass, replace

from est_protocol.csr_wishes import CsrWishes, read, write
from est_protocol.errors import ConfigurationError, RefusalReason, RequestRefused
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.unmet_wishes import unmet
from est_server.interfaces import LabelPolicy


@dataclass(frozen=True, slots=True)
class AskedAttributes:
    """What one label asks for.

    :param der: the message that says so; ``None`` if there is nothing to say.
    :param enforced: what a CSR is refused for not having.
    """

    der: bytes | None
    enforced: CsrWishes

    @classmethod
    def of(cls, policy: LabelPolicy) -> AskedAttributes:
        """Work out what ``policy`` asks for; linking is announced where it is required.

        :raises ConfigurationError: its wishes cannot be said.
        """
        wishes = replace(
            policy.csr_wishes, link=policy.csr_wishes.link or policy.require_pop_linking
        )
        try:
            message = write(wishes)
        except ValueError as error:
            raise ConfigurationError(f"CSR attributes: {error}") from error
        # A client can be held to no more than what it reads in the message: one that understands
        # templates has to ignore all the rest (RFC 9908 section 4).
        enforced = read(message) if policy.enforce_csr_wishes else CsrWishes()
        return cls(message.encode() if wishes else None, enforced)

    def unenforced(self) -> AskedAttributes:
        """The same, but no CSR is refused for what it lacks."""
        return replace(self, enforced=CsrWishes())

    def require(self, csr: CertificationRequest, operation: Operation) -> None:
        """Check that ``csr`` has what is asked for.

        :raises RequestRefused: it lacks something; the sentence says what.
        """
        wishes = self.enforced
        if not wishes:
            return
        if operation is Operation.SIMPLEREENROLL:
            wishes = wishes.without_names()
        if operation is Operation.SERVERKEYGEN:
            # Key and signature are ignored (RFC 7030 section 4.4.1).
            wishes = replace(wishes, key=None, signature_algorithms=())
        missing = unmet(wishes, csr)
        if missing:
            raise RequestRefused(
                RefusalReason.CSR_ATTRIBUTES_MISSING,
                f"the certification request lacks what /csrattrs asks for: {'; '.join(missing)}",
            )

"""The Explicit and the Implicit trust anchor database of a client (RFC 7030 section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from est_protocol.credentials import AnchorSet
from est_protocol.errors import ConfigurationError
from est_protocol.secure_channel.context import TrustAnchors


@dataclass(frozen=True, slots=True)
class TrustDatabase:
    """What a server's certificate chain may end at.

    :param explicit: anchors for EST only: configured, or learned from /cacerts.
    :param implicit: anchors that the device trusts for other reasons too, such as a web PKI
        bundle. They say nothing about who may be an EST server, so the host name is all that
        ties a server to them.
    """

    explicit: tuple[x509.Certificate, ...] = ()
    implicit: tuple[x509.Certificate, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> TrustDatabase:
        """An Explicit database of the PEM certificates in a file.

        :raises ConfigurationError: the file is not there, or holds no certificate.
        """
        try:
            return cls(explicit=tuple(x509.load_pem_x509_certificates(Path(path).read_bytes())))
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"no PEM certificates in {path}") from error

    def learned(self, anchors: Iterable[x509.Certificate]) -> TrustDatabase:
        """This database after /cacerts over an authenticated channel.

        The anchors of the answer replace the Explicit ones, so that a CA that was rolled over
        goes, and the Implicit ones are disabled (RFC 7030 section 4.1.3).
        """
        return replace(self, explicit=tuple(anchors), implicit=())

    def anchors(self) -> TrustAnchors:
        """The anchors as the secure channel takes them.

        A certificate in both databases counts as Explicit.

        :raises ConfigurationError: there is none; RFC 9148 section 3 and plain sense forbid it.
        """
        if not self.explicit and not self.implicit:
            raise ConfigurationError("there is no trust anchor to verify the server with")
        return TrustAnchors({AnchorSet.IMPLICIT: self.implicit, AnchorSet.EXPLICIT: self.explicit})

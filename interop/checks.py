"""What every scenario comes to in the end, whichever peer played it."""

from __future__ import annotations

from pathlib import Path

from interop.by_openssl import OpenSsl
from interop.server import ServerUnderTest


class Checks:
    """Judges results by means that are independent of the code under test.

    :param seen: how many lines the server's audit log had when the test began.
    """

    def __init__(self, server: ServerUnderTest, openssl: OpenSsl, seen: int) -> None:
        self._server = server
        self._openssl = openssl
        self._seen = seen

    def issued(self, certificate: Path, *, udid: str, key: Path) -> Path:
        """Check that ``certificate`` (PEM) is what the device ``udid`` asked for, and return it."""
        issuing = self._server.directory / "ca" / "issuing.pem"
        self._openssl.verify(certificate, root=self._server.ca, untrusted=issuing)
        assert self._openssl.subject_of(certificate) == f"CN={udid}"
        assert self._openssl.public_key_of(certificate) == self._openssl.public_half(key)
        assert self.audit()[-1]["device"] == udid
        return certificate

    def issued_alone(self, certs_only: Path, *, udid: str, key: Path) -> Path:
        """:meth:`issued` for the one certificate in a certs-only CMS in DER."""
        [certificate] = self._openssl.unpack(certs_only)
        return self.issued(certificate, udid=udid, key=key)

    def ca_certificates(self, certificates: list[Path]) -> None:
        """Check that these are the root and the issuing CA, and nothing else."""
        subjects = {self._openssl.subject_of(certificate) for certificate in certificates}
        assert subjects == {"CN=EST Root CA", "CN=EST Issuing CA"}
        for certificate in certificates:
            self._openssl.verify_ca(certificate, root=self._server.ca)

    def refused(self, reason: str) -> None:
        """Check that the last request was refused for ``reason`` and that nothing was issued."""
        outcomes = [(line["outcome"], line.get("reason")) for line in self.audit()]
        assert outcomes[-1] == ("refused", reason), outcomes

    def outcomes(self) -> list[str]:
        """What became of each request since the test began."""
        return [line["outcome"] for line in self.audit()]

    def audit(self) -> list[dict[str, str]]:
        """The audit lines since the test began."""
        return self._server.audit(since=self._seen)

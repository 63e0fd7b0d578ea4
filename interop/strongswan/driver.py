"""strongSwan's ``pki --estca`` and ``pki --est``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp

from interop.client_peer import Credentials, User
from interop.transcript import Transcript

_STATUS = re.compile(r"EST request failed: HTTP (\d+)")


@dataclass(frozen=True, slots=True)
class Enrolled:
    """How ``pki --est`` ended.

    :param certificate: PEM file with the certificate; ``None`` if there is none.
    :param status: the HTTP status of a refusal; ``None`` if the program names none.
    :param text: everything that it said.
    :param pending: whether it gave up polling.
    """

    certificate: Path | None
    status: int | None
    text: str
    pending: bool


class Pki:
    """strongSwan's ``pki`` command.

    :param program: where it is.
    :param url: the server, such as ``https://localhost:8443``.
    :param ca: PEM file with the root that the server's certificate has to chain to.
    """

    def __init__(
        self, program: str, transcript: Transcript, *, url: str, ca: Path, directory: Path
    ) -> None:
        self._program = program
        self._transcript = transcript
        self._url = url
        self._ca = ca
        self._directory = directory

    def estca(self) -> list[Path]:
        """Fetch the CA certificates: PEM files."""
        template = self._directory / "fetched-ca.pem"
        done = self._transcript.run(
            [
                *(self._program, "--estca", "--url", self._url, "--cacert", self._ca),
                *("--caout", template, "--outform", "pem"),
            ]
        )
        assert done.status == 0, done.text
        return sorted(self._directory.glob("fetched-ca*"))

    def est(
        self,
        csr: Path,
        credentials: Credentials | None,
        *,
        user: User | None = None,
        interval: int = 1,
        patience: int = 5,
    ) -> Enrolled:
        """Enroll, or with ``credentials`` renew; ``csr`` is in DER.

        :param interval: seconds between polls, where the server does not say.
        :param patience: seconds of polling.
        """
        command: list[str | Path] = [self._program, "--est", "--url", self._url]
        command += ["--cacert", self._ca]
        command += ["--in", csr, "--outform", "pem"]
        command += ["--interval", str(interval), "--maxpolltime", str(patience)]
        if user is not None:
            command += ["--userpass", f"{user.name}:{user.password}"]
        if credentials is not None:
            command += ["--cert", credentials.certificate, "--key", credentials.key]
        done = self._transcript.run(command)
        status = _STATUS.search(done.text)
        certificate = None
        if done.status == 0:
            handle, name = mkstemp(prefix="pki-", suffix=".pem", dir=self._directory)
            os.close(handle)
            certificate = Path(name)
            certificate.write_bytes(done.out)
        return Enrolled(
            certificate,
            int(status[1]) if status else None,
            done.text,
            "EST request pending" in done.text and certificate is None,
        )

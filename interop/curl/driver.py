"""curl: one HTTPS request, and what came back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from interop.client_peer import Credentials
from interop.transcript import Transcript

#: Seconds that curl may take.
_WAIT = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got.

    :param status: the HTTP status.
    :param headers: the header of the answer, names as the server spelt them.
    :param body: file with the body.
    :param protocol: such as ``TLSv1.3``.
    """

    status: int
    headers: dict[str, str]
    body: Path
    protocol: str

    @property
    def explanation(self) -> str:
        """The body as text."""
        return self.body.read_text()


class Curl:
    """The ``curl`` command.

    :param program: where it is.
    :param url: the server, such as ``https://localhost:8443``.
    :param ca: PEM file with the root that the server's certificate has to chain to.
    :param tls: the one version of TLS to offer: ``1.2`` or ``1.3``.
    """

    def __init__(
        self,
        program: str,
        transcript: Transcript,
        *,
        url: str,
        ca: Path,
        directory: Path,
        tls: str = "1.3",
    ) -> None:
        self._program = program
        self._transcript = transcript
        self._url = url
        self._ca = ca
        self._directory = directory
        self._tls = tls

    def get(self, path: str, credentials: Credentials | None = None) -> Answer:
        """GET ``path``."""
        return self.request(path, credentials)

    def post(
        self,
        path: str,
        credentials: Credentials | None,
        body: Path,
        *,
        content_type: str | None = "application/pkcs10",
        options: tuple[str, ...] = (),
    ) -> Answer:
        """POST the file ``body`` to ``path``.

        :param content_type: ``None`` leaves the header out.
        """
        header = "Content-Type:" if content_type is None else f"Content-Type: {content_type}"
        words = ("--data-binary", f"@{body}", "--header", header, *options)
        return self.request(path, credentials, *words)

    def request(self, path: str, credentials: Credentials | None, *options: str) -> Answer:
        """Any request, with curl's own ``options``."""
        answer = Path(mkdtemp(prefix="curl-", dir=self._directory))
        head, body = answer / "header", answer / "body"
        command: list[str | Path] = [self._program, "--verbose", "--silent", "--show-error"]
        command += ["--noproxy", "*", "--max-time", str(_WAIT), "--cacert", self._ca]
        command += [f"--tlsv{self._tls}", "--tls-max", self._tls]
        if credentials is not None:
            command += ["--cert", credentials.certificate, "--key", credentials.key]
        command += ["--dump-header", head, "--output", body, *options, f"{self._url}{path}"]
        done = self._transcript.run(command)
        assert done.status == 0, done.text
        body.touch()
        return _answer(head, body, done.text)


def _answer(head: Path, body: Path, text: str) -> Answer:
    # An interim answer such as 100 Continue has a header of its own before the one that counts.
    final = head.read_bytes().decode("iso-8859-1").strip().split("\r\n\r\n")[-1]
    status_line, *lines = final.split("\r\n")
    fields = [line.partition(":") for line in lines]
    connection = text.partition("SSL connection using ")[2]
    return Answer(
        status=int(status_line.split()[1]),
        headers={name: value.strip() for name, _, value in fields},
        body=body,
        protocol=connection.partition(" /")[0],
    )

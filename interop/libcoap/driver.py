"""libcoap's command line client: one request over DTLS, and what came back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from interop.client_peer import Credentials
from interop.transcript import Transcript

#: How the client prints a message that it received: code, options, and a text payload.
_RECEIVED = re.compile(
    r"^v:1 t:\S+ c:([2-5]\.\d\d) i:\w+ \{\w*\} \[ (.*?) ?\](?: :: '(.*)')?", re.MULTILINE
)
_CONTENT_FORMAT = re.compile(r"Content-Format:([\w./+-]+)")

#: Seconds that the client waits for an answer before it gives up.
_WAIT = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client got.

    :param code: such as ``2.05``; empty if there was no answer.
    :param content_format: as the client prints it; empty if there was none.
    :param payload: file with the payload of a success.
    :param diagnostic: the payload of a refusal.
    :param messages: how many messages came from the server.
    :param text: everything that the client said.
    """

    code: str
    content_format: str
    payload: Path
    diagnostic: str
    messages: int
    text: str


class CoapClient:
    """One of libcoap's clients.

    :param program: ``coap-client-openssl`` or ``coap-client-gnutls``.
    :param url: the server, such as ``coaps://127.0.0.1:5684``.
    :param ca: PEM file with the root that the server's certificate has to chain to.
    :param environment: the client's whole environment; by default this process's.
    """

    def __init__(
        self,
        program: str,
        transcript: Transcript,
        *,
        url: str,
        ca: Path,
        directory: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._program = program
        self._transcript = transcript
        self._url = url
        self._ca = ca
        self._directory = directory
        self._environment = environment

    def get(
        self,
        path: str,
        credentials: Credentials | None,
        *,
        accept: int | None = None,
        block: int | None = None,
    ) -> Answer:
        """GET ``path``."""
        return self._request(path, credentials, [], accept, block)

    def post(
        self,
        path: str,
        credentials: Credentials | None,
        body: Path,
        *,
        content_format: int | None = 286,
        accept: int | None = None,
        block: int | None = None,
    ) -> Answer:
        """POST the file ``body`` to ``path``."""
        words: list[str | Path] = ["-m", "post", "-f", body]
        if content_format is not None:
            words += ["-t", str(content_format)]
        return self._request(path, credentials, words, accept, block)

    def _request(
        self,
        path: str,
        credentials: Credentials | None,
        words: list[str | Path],
        accept: int | None,
        block: int | None,
    ) -> Answer:
        payload = Path(mkdtemp(prefix="coap-", dir=self._directory)) / "payload"
        command: list[str | Path] = [self._program, "-v", "7", "-B", str(_WAIT), "-C", self._ca]
        if credentials is not None:
            command += ["-c", credentials.certificate, "-j", credentials.key]
        if accept is not None:
            command += ["-A", str(accept)]
        if block is not None:
            command += ["-b", str(block)]
        command += [*words, "-o", payload, f"{self._url}{path}"]
        done = self._transcript.run(command, environment=self._environment)
        return _answer(done.text, payload)


def _answer(text: str, payload: Path) -> Answer:
    received = _RECEIVED.findall(text)
    code, options, diagnostic = received[-1] if received else ("", "", "")
    content_format = _CONTENT_FORMAT.search(options)
    return Answer(
        code=code,
        content_format=content_format[1] if content_format else "",
        payload=payload,
        diagnostic=diagnostic,
        messages=len(received),
        text=text,
    )

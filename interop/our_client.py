"""``est-client`` as a user runs it, against servers that other people wrote."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from interop.client_peer import Credentials, User
from interop.server_peer import Served
from interop.transcript import Finished, Transcript

_ROOT = Path(__file__).parents[1]

#: Exit statuses of est-client.
DONE, REFUSED, NOT_TRUSTED = 0, 1, 3


class OurClient:
    """``est-client`` with one server.

    :param directory: where it puts what it gets.
    """

    def __init__(self, served: Served, transcript: Transcript, directory: Path) -> None:
        self._served = served
        self._transcript = transcript
        self._directory = directory

    def run(
        self,
        command: str,
        *words: str | Path,
        url: str | None = None,
        ca: Path | None = None,
        credentials: Credentials | None = None,
        user: User | None = None,
    ) -> Finished:
        """Run ``est-client COMMAND`` with ``words``.

        :param url: by default the server's.
        :param ca: by default the server's.
        """
        line: list[str | Path] = [*self._served.inside, sys.executable, "-m", "est_client.cli"]
        line += [command, "--url", url or self._served.url]
        if "--ca-fingerprint" not in words:
            line += ["--ca-cert", ca or self._served.ca]
        if credentials is not None:
            line += ["--key", credentials.key, "--cert", credentials.certificate]
        if user is not None:
            self._transcript.conceal(user.password)
            secret = self._directory / "password.txt"
            secret.write_text(user.password + "\n")
            line += ["--user", user.name, "--password-file", secret]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        return self._transcript.run([*line, *words], environment=environment)

"""``tshark``: what Wireshark's dissectors make of a capture."""

from __future__ import annotations

from pathlib import Path

from interop.transcript import Transcript

#: The severity of a warning; errors are above it.
_WARNING = 0x600000

#: libcoap's Request-Tag (RFC 9175) is younger than the dissector; and a body of base64 is left to
#: no dissector.
_KNOWN = {
    "Invalid Option Number 292",
    "HTTP body subdissector failed, trying heuristic subdissector",
}


class Tshark:
    """Reads one capture with the keys of its sessions.

    :param program: where it is.
    :param capture: the capture file.
    :param keys: the key log of the client, in NSS's format; ``None`` for what is readable without.
    """

    def __init__(
        self, program: str, transcript: Transcript, *, capture: Path, keys: Path | None = None
    ) -> None:
        self._transcript = transcript
        self._command = [program, "-n", "-r", str(capture)]
        if keys is not None:
            self._command += ["-o", f"tls.keylog_file:{keys}"]
        # They look for DER where EST has the base64 of it.
        for name in ("pkcs10", "cms"):
            self._command += ["--disable-protocol", name]

    def fields(self, *names: str, only: str) -> list[list[str]]:
        """The values of ``names`` in each packet that the display filter ``only`` lets through."""
        words = ["-Y", only, "-T", "fields", "-E", "separator=|", "-E", "aggregator=~"]
        for name in names:
            words += ["-e", name]
        done = self._transcript.run([*self._command, *words])
        assert done.status == 0, done.text
        return [line.split("|") for line in done.out.decode().splitlines()]

    def text(self) -> str:
        """One line for each packet; it goes to the transcript."""
        done = self._transcript.run(self._command)
        assert done.status == 0, done.text
        return done.out.decode()

    def complaints(self) -> list[str]:
        """What experts say of packets that are malformed or in error, but for :data:`_KNOWN`."""
        wrong = '_ws.malformed || _ws.expert.severity == "Error"'
        packets = self.fields("_ws.expert.severity", "_ws.expert.message", only=wrong)
        said = [
            (int(severity), message)
            for severities, messages in packets
            for severity, message in zip(severities.split("~"), messages.split("~"), strict=True)
        ]
        return [text for severity, text in said if severity >= _WARNING and text not in _KNOWN]

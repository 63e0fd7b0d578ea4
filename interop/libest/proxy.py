"""libest's ``estproxy`` as a registration authority in front of ``est-server``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interop.by_openssl import OpenSsl
from interop.client_peer import Credentials, User
from interop.devices import Device, write_manufacturer
from interop.libest.namespace import LoopbackOnly
from interop.peers import find_libest
from interop.server import ServerUnderTest
from interop.server_peer import Served
from interop.transcript import Transcript

_ROOT = Path(__file__).parents[2]
_UPSTREAM_PORT, _PORT = 8443, 8086

#: The one user that the program knows; it is written into it.
_USER = User("estuser", "estpwd")


class EstProxy:
    """``estproxy`` and ``est-server`` in a network of their own.

    :param coap: whether devices reach ``estproxy`` over CoAPS; ``est-server`` it asks over HTTPS.
    """

    def __init__(
        self,
        server: ServerUnderTest,
        device: Device,
        transcript: Transcript,
        openssl: OpenSsl,
        home: Path,
        *,
        coap: bool,
    ) -> None:
        self._program = find_libest("estproxy")
        self._server = server
        self._device = device
        self._transcript = transcript
        self._openssl = openssl
        self._home = home
        self.coap = coap

    @contextmanager
    def serve(self, label: str, *options: str) -> Iterator[Served]:
        """Let both listen."""
        certificate, key, issuers = self._identity()
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        config = self._server.front_config(label, https_port=_UPSTREAM_PORT)
        upstream = LoopbackOnly(
            [sys.executable, "-m", "est_server.cli", "serve", "--config", str(config)],
            port=_UPSTREAM_PORT,
            directory=self._home,
            environment=environment,
            output=self._home / "est-server.txt",
        )
        words: list[str | Path] = ["-c", certificate, "-k", key, "-s", "127.0.0.1"]
        words += ["-p", str(_UPSTREAM_PORT)]
        command: list[str | Path] = [
            self._program,
            *words,
            "-l",
            str(_PORT),
            "-r",
            "estrealm",
            "-v",
            *options,
            *(["--enable-coap"] if self.coap else []),
        ]
        output = self._home / "estproxy.txt"
        born = Credentials(self._device.short_birth_certificate, self._device.key)
        with upstream:
            proxy = LoopbackOnly(
                command,
                port=_PORT,
                udp=self.coap,
                directory=self._home,
                environment={
                    **environment,
                    "EST_TRUSTED_CERTS": str(self._trusted(issuers)),
                    "EST_CACERTS_RESP": str(issuers),
                },
                output=output,
                beside=upstream,
            )
            try:
                with proxy:
                    url = f"https://127.0.0.1:{_PORT}"
                    if self.coap:
                        url = f"coaps://127.0.0.1:{_PORT}/est"
                    yield Served(url, issuers, issuers, born, _USER, inside=upstream.inside)
            finally:
                said = output.read_bytes() if output.exists() else b""
                self._transcript.note(list(map(str, command)), "ended by the test", said)

    def _identity(self) -> tuple[Path, Path, Path]:
        """Certificate and key of a registration authority, and the certificates of the CA."""
        home = self._server.directory / "estproxy"
        certificate, key, issuers = home / "ra.pem", home / "ra.key", home / "issuers.pem"
        if not home.exists():
            home.mkdir()
            made = self._openssl.make_key()
            csr = self._openssl.make_csr(made, "estproxy")
            # It presents one certificate to both sides.
            words = ("--csr", csr, "--out", certificate, "--server-name", "127.0.0.1")
            self._server.command("ra", "issue", "estproxy", *words)
            key.write_bytes(made.read_bytes())
            issuing = self._server.directory / "ca" / "issuing.pem"
            issuers.write_bytes(issuing.read_bytes() + self._server.ca.read_bytes())
        return certificate, key, issuers

    def _trusted(self, issuers: Path) -> Path:
        manufacturer = self._home / "manufacturer.pem"
        write_manufacturer(manufacturer)
        trusted = self._home / "trusted.pem"
        trusted.write_bytes(issuers.read_bytes() + manufacturer.read_bytes())
        return trusted

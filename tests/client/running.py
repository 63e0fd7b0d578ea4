"""Runs of ``est-client`` in this process, against a server in memory."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from est_client.cli import main
from est_client.connectors import ConnectorOptions
from est_client.device_keys import chain_to_pem, key_from_pem, key_to_pem
from est_client.durable_files import write_durably
from est_client.location import ServerLocation
from est_protocol.keys import spki_sha256
from tests.client.memory import MemoryServer
from tests.pki import CLIENT_AUTH, make_ca, make_leaf

ROOT = make_ca("root")
CA = make_ca("issuing", ROOT)


class Run:
    """A folder to work in, a server, and what came of the last command."""

    def __init__(self, folder: Path, server: MemoryServer) -> None:
        self.folder = folder
        self.server = server
        self.location: ServerLocation | None = None
        self.options = ConnectorOptions()
        (folder / "ca.pem").write_bytes(chain_to_pem([ROOT.certificate]))

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def connector_for(self, location: ServerLocation, options: ConnectorOptions) -> MemoryServer:
        self.location, self.options = location, options
        self.server.transport = location.transport
        return self.server

    def __call__(self, command: str, *arguments: str, trust: bool = True) -> int:
        files = [self.path(a) if a.endswith((".pem", ".key")) else a for a in arguments]
        url = [] if "--url" in arguments else ["--url", "https://localhost:8443"]
        given = ["--ca-cert", self.path("ca.pem")] if trust else []
        return main([command, *url, *given, *files])

    def certificates(self, name: str) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates((self.folder / name).read_bytes())

    def key_hash(self, name: str) -> bytes:
        pem = (self.folder / name).read_bytes()
        return spki_sha256(key_from_pem(pem, name).public_key())

    def put_identity(self) -> None:
        leaf = make_leaf(CA, "pump 7", usage=CLIENT_AUTH, names=(x509.DNSName("pump7.example"),))
        write_durably(self.folder / "device.key", key_to_pem(leaf.key), mode=0o600)
        (self.folder / "device.pem").write_bytes(chain_to_pem(leaf.chain))

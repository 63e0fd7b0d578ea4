"""A server of this process, and ``est-client`` as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from est_client.client import EstClient
from est_client.connectors import connector_for
from est_client.key_store import FileKeyStore
from est_client.trust import TrustDatabase
from est_protocol.messages import Pending
from est_server import (
    ClientIdentity,
    EnrollmentRequest,
    EstServer,
    IssuanceGrant,
    grant_for,
)
from est_server.new_server import CONFIG_NAME, ROOT_NAME, NewServer, provision

ROOT = Path(__file__).parent.parent.parent
#: Seconds that one run of the program may take.
PATIENCE = 120


@dataclass
class Gate:
    """Grants to any device, or says "not yet" while it is shut."""

    shut: bool = False

    async def __call__(
        self, request: EnrollmentRequest, client: ClientIdentity, /
    ) -> IssuanceGrant | Pending:
        if self.shut:
            return Pending(1)
        return grant_for(request, device=client.issued.device if client.issued else "pump-1")


@dataclass
class Place:
    """A server with both transports, and a device beside it.

    :param url: by transport.
    """

    folder: Path
    gate: Gate
    url: dict[str, str]

    @property
    def store(self) -> FileKeyStore:
        """The device's key store, as a process that has just started sees it."""
        return FileKeyStore(self.folder / "device")

    def arguments(self, command: str, transport: str, *more: str) -> list[str]:
        """The command line of ``est-client``; a renewal trusts what the store has learned."""
        trust = ("--ca-cert", str(self.ca)) if command == "enroll" else ()
        return [
            *(sys.executable, "-m", "est_client.cli", command, "--url", self.url[transport]),
            *("--store", str(self.folder / "device"), *trust, *more),
        ]

    @property
    def ca(self) -> Path:
        """What the device was told to trust."""
        return self.folder / "est" / ROOT_NAME

    async def start(self, command: str, transport: str, *more: str) -> asyncio.subprocess.Process:
        """Start ``est-client``."""
        return await asyncio.create_subprocess_exec(
            *self.arguments(command, transport, *more),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, command: str, transport: str, *more: str) -> tuple[int, str]:
        """Run ``est-client`` to its end; exit status and standard error."""
        process = await self.start(command, transport, *more)
        async with asyncio.timeout(PATIENCE):
            _, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, errors.decode()

    async def is_accepted(self) -> bool:
        """Whether the server takes what is in the store; on CoAPS it answers nobody else."""
        identity = await self.store.identity()
        trust = TrustDatabase(explicit=await self.store.trust_anchors())
        connector = connector_for(self.url["coaps"])
        async with EstClient(connector, trust=trust, identity=identity) as client:
            return bool(await client.cacerts())


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    """A new server that listens."""
    provision(folder / "est", NewServer(https_port=0, coaps_port=0), now=datetime.now(UTC))
    gate = Gate()
    async with EstServer.from_config(folder / "est" / CONFIG_NAME, authorizer=gate) as server:
        url = {
            "https": f"https://{server.https_address}",
            "coaps": f"coaps://{server.coaps_address}",
        }
        yield Place(folder, gate, url)

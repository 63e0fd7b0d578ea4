"""RFC 9148 section 4: on CoAPS all functions are for authenticated clients."""

from __future__ import annotations

from typing import Any

import pytest
from aiocoap.numbers import Code
from cryptography import x509

from est_protocol import pkcs10
from est_protocol.errors import RefusalReason
from est_protocol.media_types import ContentFormat
from est_protocol.secure_channel.context import dtls_context
from est_protocol.secure_channel.dtls import DtlsSession
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.dtls_client import connect_dtls
from est_protocol.secure_channel.policy import DtlsPolicy
from est_server.coaps.server import CoapsEndpoint, serve
from tests.behaviour.world import KEYS, WISHING, World
from tests.server.test_coaps_server import RawClient


@pytest.mark.conformance("CD-06", "CD-07")
@pytest.mark.parametrize(
    ("code", "path"),
    [
        (Code.GET, ("crts",)),
        (Code.GET, (WISHING, "att")),
        (Code.POST, ("sen",)),
        (Code.POST, ("sren",)),
        (Code.POST, (KEYS, "skg")),
        (Code.POST, (KEYS, "skc")),
    ],
)
async def test_a_client_without_a_certificate_gets_nothing(
    world: World, code: Code, path: tuple[str, ...]
) -> None:
    """Not even for a listed key that its CSR, linked to this very session, proves to hold."""
    device = await world.list_device("a")
    endpoint = CoapsEndpoint(
        credentials=world.server_credentials, anchors=world.server_anchors, port=0
    )
    policy, anchors = DtlsPolicy(), world.client_anchors
    context = dtls_context(
        policy, server=False, credentials=None, anchors=anchors, require_trust=True
    )
    async with await serve(world.service, endpoint) as server:
        session = DtlsSession(context, anchors, policy, server=False)
        clients: list[RawClient] = []

        def open_user(channel: DtlsChannel) -> RawClient:
            clients.append(RawClient(channel))
            return clients[0]

        channel = await connect_dtls(session, open_user, remote=("127.0.0.1", server.port))
        try:
            more: dict[str, Any] = {}
            if code is Code.POST:
                assert session.peer is not None
                csr = pkcs10.build(device.key, x509.Name([]), binding=session.peer.channel_binding)
                more = {"payload": csr.der, "content_format": int(ContentFormat.PKCS10)}
            clients[0].send(code, 1, uri_path=("est", *path), **more)
            answer = await clients[0].receive()
        finally:
            await channel.close()
    assert answer.code is Code.UNAUTHORIZED
    assert "client certificate" in answer.payload.decode()
    assert world.last_refusal == RefusalReason.AUTHENTICATION_REQUIRED
    assert world.issued_count() == 0

"""Our EST-coaps server with one thing wrong on its way out, so that a row can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.session import CoapLimits
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.errors import MessageError, RefusalReason, RequestRefused
from est_protocol.messages import CertificatesResponse, EstRequest, EstResponse, Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.secure_channel.context import TrustAnchors, dtls_context
from est_protocol.secure_channel.datagram import DtlsServer
from est_protocol.secure_channel.dtls_channel import DtlsChannel
from est_protocol.secure_channel.dtls_listener import DtlsListener
from est_protocol.secure_channel.policy import DtlsPolicy
from est_protocol.secure_channel.udp import udp_transport
from est_server.coaps.messages import CHANGED, Request, Response
from est_server.coaps.session import ServerSession
from est_server.coaps.site import EstSite
from tests.client.memory import issue
from tests.conformance.faulty import CA, ROOT
from tests.conformance.faulty_keys import FaultyKeys
from tests.pki import make_server

_CREATED, _BAD_REQUEST, _NOT_FOUND, _REQUEST_ENTITY_INCOMPLETE = 0x41, 0x80, 0x84, 0x88


class GrantingService:
    """Grants whoever has a certificate what it asks for."""

    labels = (None,)

    def __init__(self, fault: str) -> None:
        self._fault = fault

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """What is served."""
        keys = (Operation.SERVERKEYGEN,) if self._fault.startswith("keys") else ()
        return (Operation.CACERTS, Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL, *keys)

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        """Answer as an EST server would."""
        if peer.certificate is None and self._fault != "serves anybody":
            raise RequestRefused(RefusalReason.AUTHENTICATION_REQUIRED, "who are you?")
        if request.operation is Operation.CACERTS:
            if self._fault == "keeps its CA to itself":
                raise RequestRefused(RefusalReason.NOT_AUTHORIZED, "not for you")
            return CertificatesResponse((CA.certificate, ROOT.certificate))
        try:
            if request.operation is Operation.SERVERKEYGEN:
                return await FaultyKeys(CA, self._fault).answer(request.body, peer)
            return CertificatesResponse((issue(CA, CertificationRequest.decode(request.body)),))
        except MessageError as error:
            raise RequestRefused(RefusalReason.MALFORMED_CSR, str(error)) from error

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        """Nobody is interested."""


class FaultySite(EstSite):
    """The site with a fault in its answers."""

    def __init__(self, fault: str) -> None:
        super().__init__(GrantingService(fault))
        self._fault = fault

    def answer(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Answer, and spoil the answer."""
        return self._spoilt(request)

    async def _spoilt(self, request: Request) -> Response:
        path = request.path
        if self._fault == "ignores options":
            request.bad_option = None
        if self._fault == "ignores Accept":
            request.accept = None
        if self._fault == "keys at one place" and path[-1] == "skc":
            request.path = (*path[:-1], "skg")
        answer = await self._honest(request)
        if self._fault == "forgets messages and blocks":
            block1 = request.block1
            if block1 is None or not block1.more:
                self.transfers.forget(request.session)
        if self._fault == "forgets links" and path[-1] == "core":
            answer.payload = b"</est/crts>;rt=ace.est.crts;ct=281"
        if self._fault == "ignores queries" and path[-1] == "core":
            return await self._honest(replace(request, query=()))
        if self._fault == "says Created" and answer.code == CHANGED:
            answer.code = _CREATED
        if self._fault == "says nothing is bad" and answer.code == _NOT_FOUND:
            answer.code = _BAD_REQUEST
        if self._fault == "calls gaps bad" and answer.code == _REQUEST_ENTITY_INCOMPLETE:
            answer.code = _BAD_REQUEST
        if self._fault == "changes its mind" and answer.block2 is not None:
            answer.etag = bytes([answer.block2.number + 1])
        if self._fault == "forgets Block1":
            answer.block1 = None
        if self._fault == "answers in base64" and path[-1] == "crts" and answer.payload:
            answer.payload = b"MII" + answer.payload[3:]
        succeeded = answer.code >> 5 == 2
        if self._fault == "keys in no multipart" and path[-1] == "skg" and succeeded:
            answer.content_format = 284
        if self._fault == "answers 287 unasked" and path[-1] == "crts":
            answer.content_format = 287
        return answer

    async def _honest(self, request: Request) -> Response:
        answer = super().answer(request)
        return answer if isinstance(answer, Response) else await answer


class ForgetfulSession(ServerSession):
    """A session that takes a message that comes twice for two."""

    def datagram_received(self, plaintext: bytes) -> None:
        """Forget all about the messages before."""
        self._recent._entries.clear()
        super().datagram_received(plaintext)


@asynccontextmanager
async def serving_coaps(fault: str = "") -> AsyncIterator[str]:
    """Serve on a free port; the URL."""
    anchors = TrustAnchors({AnchorSet.OPERATIONAL: (CA.certificate,)})
    policy = DtlsPolicy()
    if fault == "has no CCM_8":
        policy = DtlsPolicy(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    context = dtls_context(policy, server=True, credentials=make_server(CA), anchors=anchors)
    site = FaultySite(fault)
    kind = ForgetfulSession if fault.startswith("forgets messages") else ServerSession

    def open_session(channel: DtlsChannel) -> ServerSession:
        parameters = TransmissionParameters()
        return kind(channel, site, parameters=parameters, limits=CoapLimits())

    server = DtlsServer(DtlsListener(context, anchors, policy), open_session)
    await server.listen("127.0.0.1", 0, udp_transport)
    try:
        yield f"coaps://127.0.0.1:{server.address[1]}"
    finally:
        await server.close()

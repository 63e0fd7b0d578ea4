"""HTTP requests of any shape over one TLS connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict

from est_client.conformance.reply import Reply
from est_client.http_answers import printable
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ChannelClosed, MessageError
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors, tls_context
from est_protocol.secure_channel.policy import TlsPolicy
from est_protocol.secure_channel.stream import PEER_CREDENTIALS, StreamLimits, TlsTransport
from est_protocol.secure_channel.tls_endpoints import connect_tls

#: Octets of one answer at most.
_ANSWER_SIZE = 1 << 20


class HttpChannel:
    """One TLS connection; made by :meth:`open`.

    Nothing is added to a request but what RFC 9112 demands of every one, so that a check sends
    what it means to send.
    """

    def __init__(
        self, transport: TlsTransport, protocol: ResponseHandler, host: str, patience: float
    ) -> None:
        server = transport.get_extra_info(PEER_CREDENTIALS)
        assert isinstance(server, PeerCredentials)
        #: The server, as far as the handshake proved it.
        self.server = server
        self._transport = transport
        self._protocol = protocol
        self._host = host
        self._patience = patience

    @classmethod
    async def open(
        cls,
        address: tuple[str, int],
        server_name: str | None,
        *,
        credentials: LocalCredentials | None,
        anchors: TrustAnchors,
        policy: TlsPolicy,
        patience: float,
    ) -> HttpChannel:
        """Open a connection.

        :param patience: seconds for the connection, the handshake and each answer.
        :raises ChannelError: there is no server, or no handshake.
        """
        context = tls_context(
            policy, server=False, credentials=credentials, anchors=anchors, require_trust=True
        )
        loop = asyncio.get_running_loop()
        transport, protocol = await connect_tls(
            lambda: ResponseHandler(loop),
            *address,
            context=context,
            anchors=anchors,
            server_name=server_name,
            limits=StreamLimits(
                handshake_timeout=patience, write_timeout=patience, shutdown_timeout=1.0
            ),
            connect_timeout=patience,
        )
        host, port = address
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(transport, protocol, shown, patience)

    async def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Reply:
        """Send one request and read its answer.

        :param body: octets with a Content-Length, or several pieces in chunked coding.
        :raises ChannelClosed: there was no whole answer.
        :raises MessageError: the answer is not HTTP.
        """
        fields = {"Host": self._host, **(headers or {})}
        payload = b""
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
            payload = body
        elif body is not None:
            fields["Transfer-Encoding"] = "chunked"
            payload = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in body) + b"0\r\n\r\n"
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items()), "", ""]
        return await self._exchange("\r\n".join(lines).encode("latin-1") + payload)

    async def close(self) -> None:
        """Close the connection."""
        self._protocol.close()
        self._transport.close()
        await self._transport.wait_closed()

    async def _exchange(self, octets: bytes) -> Reply:
        self._protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        self._transport.write(octets)
        try:
            async with asyncio.timeout(self._patience):
                return await self._answer()
        except TimeoutError as error:
            self._transport.abort()
            raise ChannelClosed(f"no complete answer within {self._patience:g} s") from error
        except (HttpProcessingError, aiohttp.ClientPayloadError) as error:
            self._transport.abort()
            raise MessageError(f"the answer is not HTTP: {printable(str(error))}") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            why = printable(str(error))
            raise ChannelClosed(f"the connection ended before the answer: {why}") from error

    async def _answer(self) -> Reply:
        while True:
            message, payload = await self._protocol.read()
            if not 100 <= message.code <= 199:
                break
        body = bytearray()
        async for chunk in payload.iter_any():
            body += chunk
            if len(body) > _ANSWER_SIZE:
                raise MessageError(f"the answer is larger than {_ANSWER_SIZE} octets")
        headers = CIMultiDict(message.headers)
        return Reply(Transport.HTTPS, message.code, str(message.code), bytes(body), headers)

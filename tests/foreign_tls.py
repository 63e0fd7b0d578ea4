"""Peers that share no code with the product: TLS of the standard library, HTTP as raw octets."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from est_protocol.secure_channel.context import LocalCredentials

HOST = "127.0.0.1"


def client_context(
    credentials: LocalCredentials | None = None, *, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A client that takes any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _configured(context, credentials, version)


def server_context(
    credentials: LocalCredentials, *, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A server that asks for no certificate."""
    return _configured(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), credentials, version)


def _configured(
    context: ssl.SSLContext, credentials: LocalCredentials | None, version: ssl.TLSVersion | None
) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if credentials is not None:
        # The standard library reads keys from files only.
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(
                credentials.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            for certificate in credentials.chain:
                file.write(certificate.public_bytes(Encoding.PEM))
        try:
            context.load_cert_chain(file.name)
        finally:
            os.unlink(file.name)
    return context


async def exchange(port: int, octets: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Send ``octets`` to a server and return everything that it says until it closes."""
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context or client_context())
    try:
        writer.write(octets)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def foreign_server(
    script: Script, credentials: LocalCredentials, *, version: ssl.TLSVersion | None = None
) -> AsyncIterator[int]:
    """A server that runs ``script`` on each connection and then closes it; gives its port."""
    errors: list[BaseException] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client has heard enough.
            pass
        except Exception as error:
            errors.append(error)
        finally:
            writer.close()

    context = server_context(credentials, version=version)
    server = await asyncio.start_server(run, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
    if errors:
        raise errors[0]

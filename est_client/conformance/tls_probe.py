"""A TLS handshake with OpenSSL laid bare, for offers that our own policy never makes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from OpenSSL import SSL

from est_client.conformance.bench import Bench
from est_protocol.errors import ChannelError
from est_protocol.secure_channel.bindings import has_extended_master_secret
from est_protocol.secure_channel.engine import explain


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a complete handshake came to.

    :param version: such as ``TLSv1.3``.
    :param cipher: OpenSSL's name.
    :param extended_master_secret: whether RFC 7627 was negotiated.
    :param asked_for: how many CA names the server gave as hint with its CertificateRequest.
    """

    version: str
    cipher: str
    extended_master_secret: bool
    asked_for: int


def unverified_context() -> SSL.Context:
    """A client's context that takes any certificate: it is closed after the handshake."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    return context


async def handshake(bench: Bench, context: SSL.Context) -> Handshake | str:
    """Shake hands and close.

    :return: what came of it, or in words why nothing did.
    :raises ChannelError: there is nobody at all.
    """
    bench.spend()
    try:
        async with asyncio.timeout(bench.limits.patience):
            reader, writer = await asyncio.open_connection(*bench.address)
    except (OSError, TimeoutError) as error:
        raise ChannelError(f"no connection: {error}") from error
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if bench.server_name is not None:
        connection.set_tlsext_host_name(bench.server_name.encode("ascii"))
    try:
        async with asyncio.timeout(bench.limits.patience):
            return await _shake(connection, reader, writer)
    except TimeoutError:
        return "no answer"
    finally:
        writer.close()


async def _shake(
    connection: SSL.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Handshake | str:
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            return explain(error)
        else:
            break
        _flush(connection, writer)
        try:
            octets = await reader.read(16384)
        except ConnectionError:
            octets = b""
        if not octets:
            return "the server ended the connection"
        connection.bio_write(octets)
    _flush(connection, writer)
    return Handshake(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        has_extended_master_secret(connection),
        len(connection.get_client_ca_list()),
    )


def _flush(connection: SSL.Connection, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            writer.write(connection.bio_read(65536))
        except SSL.WantReadError:
            return

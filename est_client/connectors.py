"""From a URL to the connector of its transport."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from est_client.connection import Connector
from est_client.location import ServerLocation
from est_protocol.errors import ConfigurationError
from est_protocol.messages import Transport
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy

_HTTPS_TIMEOUT = 30.0

#: RFC 7252 section 4.8.
DEFAULT_ACK_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ConnectorOptions:
    """How to talk to a server, whatever its transport.

    :param timeout: seconds for the handshake, and for each answer with all its blocks; ``None``
        for what suits the transport.
    :param block_size: octets per CoAP block, a power of two from 16 to 1024.
    :param ack_timeout: seconds before a CoAP message is sent again for the first time,
        ACK_TIMEOUT; the server's should be the same (RFC 9148 section 6).
    :param discover: on CoAPS, ask the server where its EST resources are.
    :param tls: for HTTPS.
    :param dtls: for CoAPS.
    """

    timeout: float | None = None
    block_size: int = 1024
    ack_timeout: float = DEFAULT_ACK_TIMEOUT
    discover: bool = False
    tls: TlsPolicy = field(default_factory=TlsPolicy)
    dtls: DtlsPolicy = field(default_factory=DtlsPolicy)


def connector_for(
    server: str | ServerLocation, options: ConnectorOptions | None = None
) -> Connector:
    """The connector to a server.

    Only the transport that is used is imported.

    :raises ConfigurationError: the URL is none of an EST server, or there is nothing to discover.
    """
    location = ServerLocation.parse(server) if isinstance(server, str) else server
    options = options or ConnectorOptions()
    if location.transport is Transport.COAPS:
        from est_client.coaps import CoapsClientLimits, CoapsConnector
        from est_protocol.coap.parameters import TransmissionParameters

        limits = CoapsClientLimits()
        if options.timeout is not None:
            limits = replace(
                limits, handshake_timeout=options.timeout, exchange_timeout=options.timeout
            )

        return CoapsConnector(
            location.host,
            location.port,
            root=location.root,
            policy=options.dtls,
            block_size=options.block_size,
            parameters=TransmissionParameters(
                ack_timeout=options.ack_timeout,
                # A client acknowledges at once; the bound is that of servers.
                empty_ack_delay=min(0.1, options.ack_timeout / 2),
            ),
            limits=limits,
            discover=options.discover,
        )
    if options.discover:
        raise ConfigurationError("resources are discovered on CoAPS only")
    from est_client.https import HttpsConnector

    timeout = _HTTPS_TIMEOUT if options.timeout is None else options.timeout
    return HttpsConnector(location.host, location.port, policy=options.tls, timeout=timeout)

"""The settings of TLS-terminating proxies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from est_protocol.channel_binding import ChannelBindingType
from est_protocol.client_certificate_fields import LARGEST_CERTIFICATE, LONGEST_CHAIN
from est_protocol.errors import ConfigurationError
from est_protocol.secure_channel.context import TrustAnchors
from est_server.config.hashes import sha256_of_hex
from est_server.config.reader import Port
from est_server.https import ConveyedBinding, HttpsLimits, PlainHttpEndpoint, ProxyTrust

#: RFC 9110 section 5.6.2.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")

#: What a proxy may not use for its own words, since clients and proxies send it anyway.
_TAKEN_NAMES = frozenset(
    {"client-cert", "client-cert-chain", "authorization", "content-type", "content-length", "host"}
)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Proxies that end TLS in front of this server and tell who the client is in the header fields
    Client-Cert and Client-Cert-Chain (RFC 9440). Without this table none is believed. Whoever can
    send in a proxy's place can be any client: the proxy has to remove these fields from what
    clients send, and nobody else may reach the listener.

    Give one of `listen` and `unix_socket` for plain HTTP between proxy and server, or
    `certificates` for proxies that use the port of `[https]`.

    :param listen: address to listen on for plain HTTP.
    :param port: TCP port there, 0 for any that is free.
    :param unix_socket: path of a Unix socket to listen on for plain HTTP, made with mode 0660;
        whoever may connect to it is a proxy.
    :param addresses: addresses and networks of the proxies that use ``listen``; nobody else is
        answered there.
    :param certificates: SHA-256 in hexadecimal of the client certificates with which proxies
        connect to the port of `[https]`.
    :param client_address_header: field in which the proxy puts the client's IP address, such as
        ``X-Real-IP``, for the audit log and for counting wrong secrets. Without it all clients
        have the proxy's address, and share what it may guess.
    :param channel_binding_header: field in which the proxy puts the binding of the client's
        channel, as ``:BASE64:``. RFC 9440 has none; without it requests that are linked to a
        channel are refused (RFC 7030 section 3.5).
    :param channel_binding_type: what is in it. The proxy must not send the tls-unique of TLS 1.3,
        nor one of TLS 1.2 without the extended master secret (RFC 7627).
    :param largest_certificate: octets of one certificate of a client.
    :param longest_chain: certificates of one client.
    :param limits: sizes, times and counts of plain HTTP.
    """

    listen: str | None = None
    port: Port = 8080
    unix_socket: Path | None = None
    addresses: tuple[str, ...] = ("127.0.0.1", "::1")
    certificates: tuple[str, ...] = ()
    client_address_header: str | None = None
    channel_binding_header: str | None = None
    channel_binding_type: ChannelBindingType = ChannelBindingType.TLS_EXPORTER
    largest_certificate: int = LARGEST_CERTIFICATE
    longest_chain: int = LONGEST_CHAIN
    limits: HttpsLimits = field(default_factory=HttpsLimits)

    def __post_init__(self) -> None:
        """Check it.

        :raises ConfigurationError: no proxy is named, or more than can be meant.
        """
        if self.listen is not None and self.unix_socket is not None:
            raise ConfigurationError("listen and unix_socket exclude one another")
        if self.listen is None and self.unix_socket is None and not self.certificates:
            raise ConfigurationError("neither listen, unix_socket nor certificates is there")
        self.trust(TrustAnchors())

    def trust(self, anchors: TrustAnchors) -> ProxyTrust:
        """Whose word is taken, for clients whose chains end at ``anchors``.

        :raises ConfigurationError: an address, a hash or a name of a field is none.
        """
        binding = _field_name(self.channel_binding_header)
        return ProxyTrust(
            networks=tuple(map(_network, self.addresses)) if self.listen is not None else (),
            unix_socket=self.unix_socket is not None,
            certificates=frozenset(map(sha256_of_hex, self.certificates)),
            anchors=anchors,
            channel_binding=(
                None if binding is None else ConveyedBinding(binding, self.channel_binding_type)
            ),
            address_header=_field_name(self.client_address_header),
            largest_certificate=self.largest_certificate,
            longest_chain=self.longest_chain,
        )

    def endpoint(self) -> PlainHttpEndpoint | None:
        """Where plain HTTP is served; ``None``: nowhere."""
        if self.unix_socket is not None:
            return PlainHttpEndpoint(limits=self.limits, unix_socket=self.unix_socket)
        if self.listen is not None:
            return PlainHttpEndpoint(self.listen, self.port, self.limits)
        return None


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"addresses: {error}") from error
    if not network.prefixlen:
        raise ConfigurationError(f"addresses: {text} is everybody, who could then be any client")
    return network


def _field_name(text: str | None) -> str | None:
    if text is None:
        return None
    if not _FIELD_NAME.fullmatch(text) or text.lower() in _TAKEN_NAMES:
        raise ConfigurationError(f"{text!r} cannot be a header field of a proxy")
    return text.lower()

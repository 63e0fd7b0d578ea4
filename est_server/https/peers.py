"""Who the client of an HTTP request is: by the TLS channel that ends here, or by the word of a
proxy that ended it (RFC 9440).

A proxy is believed by where it is or by the certificate that it shows; nobody is by default. The
header fields of a proxy on any other connection are a forgery, or a proxy that nobody configured,
and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address

from est_protocol.channel_binding import ChannelBinding, ChannelBindingType
from est_protocol.client_certificate_fields import (
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
    LARGEST_CERTIFICATE,
    LONGEST_CHAIN,
    decode_chain,
    decode_octets,
)
from est_protocol.credentials import PeerCredentials
from est_protocol.errors import MessageError, RefusalReason, RequestRefused
from est_protocol.secure_channel.chain_verification import verify_client_chain
from est_protocol.secure_channel.context import TrustAnchors

#: All values of each header field, by names in lower case.
Headers = Mapping[str, Sequence[str]]

#: Octets of a channel binding: RFC 9266 section 2; RFC 5929 section 3 with what RFC 5246 section
#: 7.4.9 says of the length of Finished.
_BINDING_LENGTHS = {
    ChannelBindingType.TLS_EXPORTER: 32,
    ChannelBindingType.TLS_UNIQUE: 12,
}


@dataclass(frozen=True, slots=True)
class ConveyedBinding:
    """A header field in which proxies convey the binding of the client's channel.

    RFC 9440 has none, so that it depends on the proxy. The value is a byte sequence of RFC 8941,
    such as ``:AAAAAAAAAAAAAAAA:``.

    :param header: the name of the field, in lower case.
    :param type: what the proxy puts there. It must not send a tls-unique of TLS 1.3, nor one of
        TLS 1.2 without the extended master secret (RFC 7627).
    """

    header: str
    type: ChannelBindingType


@dataclass(frozen=True, slots=True)
class ProxyTrust:
    """Whose word is taken for who the client is, and what the client is measured by.

    :param networks: addresses of TLS-terminating proxies. Whoever can send from one of them can
        be any client.
    :param unix_socket: whether everybody is a proxy who connects by a Unix socket.
    :param certificates: SHA-256 (32 octets) of the certificates by which proxies show themselves
        in a TLS handshake with this server.
    :param anchors: where the chains of clients may end.
    :param channel_binding: how the binding of the client's channel is conveyed; ``None``: not at
        all, and requests cannot be linked to it.
    :param address_header: a field that holds the client's IP address, for logs and for counting
        guesses; in lower case. ``None``: all clients of a proxy have the proxy's.
    :param largest_certificate: octets of one certificate of a client.
    :param longest_chain: certificates of one client.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix_socket: bool = False
    certificates: frozenset[bytes] = frozenset()
    anchors: TrustAnchors = field(default_factory=TrustAnchors)
    channel_binding: ConveyedBinding | None = None
    address_header: str | None = None
    largest_certificate: int = LARGEST_CERTIFICATE
    longest_chain: int = LONGEST_CHAIN


NO_PROXIES = ProxyTrust()


@dataclass(frozen=True, slots=True)
class Connection:
    """What an HTTP request came over.

    :param host: the IP address at its other end; ``None`` for a Unix socket.
    :param address: the same with its port, for logs.
    :param channel: the peer on a TLS channel whose end is known; ``None`` if there is no TLS, or
        its end is out of sight.
    :param over_tls: whether TLS protects it.
    :param defect: why nothing that comes over it can be answered, in words for the client.
    """

    host: str | None
    address: str
    channel: PeerCredentials | None = None
    over_tls: bool = False
    defect: str = ""


@dataclass(frozen=True, slots=True)
class FoundPeer:
    """Who the client is.

    :param peer: what is known of it, its address at least.
    :param in_sight: whether its TLS channel is known.
    :param refused: why it has to be refused, whatever it wants.
    """

    peer: PeerCredentials
    in_sight: bool
    refused: RequestRefused | None = None


def find_peer(connection: Connection, headers: Headers, proxies: ProxyTrust) -> FoundPeer:
    """Find out who sent a request."""
    peer = connection.channel or PeerCredentials(address=connection.address)
    if connection.defect:
        return FoundPeer(peer, in_sight=False, refused=_malformed(connection.defect))
    if _is_proxy(connection, proxies):
        peer = PeerCredentials(address=connection.address, terminated_by=connection.address)
        try:
            return FoundPeer(_conveyed_peer(peer, headers, proxies), in_sight=True)
        except MessageError as error:
            return FoundPeer(peer, in_sight=True, refused=_malformed(str(error)))
    in_sight = connection.channel is not None
    for name in _proxy_fields(proxies):
        if name in headers:
            sentence = (
                f"{name} is for TLS-terminating proxies (RFC 9440), and this connection is from "
                "none that is known here"
            )
            return FoundPeer(peer, in_sight, _malformed(sentence))
    return FoundPeer(peer, in_sight)


def _malformed(sentence: str) -> RequestRefused:
    return RequestRefused(RefusalReason.MALFORMED_REQUEST, sentence)


def _is_proxy(connection: Connection, proxies: ProxyTrust) -> bool:
    if connection.channel is not None:
        known = proxies.certificates
        return bool(known) and connection.channel.certificate_sha256 in known
    if connection.over_tls:
        return False
    if connection.host is None:
        return proxies.unix_socket
    try:
        address = ip_address(connection.host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in proxies.networks)


def _proxy_fields(proxies: ProxyTrust) -> list[str]:
    fields = [CLIENT_CERT, CLIENT_CERT_CHAIN]
    if proxies.channel_binding is not None:
        fields.append(proxies.channel_binding.header)
    return fields


def _conveyed_peer(
    proxy: PeerCredentials, headers: Headers, proxies: ProxyTrust
) -> PeerCredentials:
    """The client of whom a proxy tells.

    :raises MessageError: what it tells makes no sense.
    """
    peer = replace(
        proxy,
        channel_binding=_conveyed_binding(headers, proxies.channel_binding),
        address=_conveyed_address(headers, proxies.address_header) or proxy.address,
    )
    certificate = _only(headers, CLIENT_CERT)
    issuers = _only(headers, CLIENT_CERT_CHAIN)
    if certificate is None:
        if issuers is not None:
            raise MessageError("there is a Client-Cert-Chain without a Client-Cert (RFC 9440)")
        return peer
    chain = decode_chain(
        certificate, issuers, largest=proxies.largest_certificate, longest=proxies.longest_chain
    )
    anchor_set, failures = verify_client_chain(chain, proxies.anchors, now=datetime.now(UTC))
    return replace(peer, chain=chain, anchor_set=anchor_set, failures=failures)


def _conveyed_binding(headers: Headers, conveyed: ConveyedBinding | None) -> ChannelBinding | None:
    text = None if conveyed is None else _only(headers, conveyed.header)
    if conveyed is None or text is None:
        return None
    length = _BINDING_LENGTHS[conveyed.type]
    value = decode_octets(text, largest=length)
    if len(value) != length:
        raise MessageError(f"{conveyed.header} has {len(value)} octets, not {length}")
    return ChannelBinding(conveyed.type, value)


def _conveyed_address(headers: Headers, name: str | None) -> str | None:
    text = None if name is None else _only(headers, name)
    if text is None:
        return None
    try:
        return str(ip_address(text.strip()))
    except ValueError as error:
        raise MessageError(f"{name} is no IP address") from error


def _only(headers: Headers, name: str) -> str | None:
    values = headers.get(name, ())
    if len(values) > 1:
        # One of them may be the client's, which the proxy did not take away.
        raise MessageError(f"there is more than one {name}")
    return values[0] if values else None

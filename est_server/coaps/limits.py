"""Every bound of the CoAPS server in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from est_protocol.coap.session import CoapLimits
from est_protocol.errors import ConfigurationError
from est_protocol.secure_channel.datagram import DatagramLimits
from est_server.coaps.site import SiteLimits


@dataclass(frozen=True, slots=True)
class CoapsLimits:
    """Bounds of a CoAPS server; what one layer may cost is in that layer's own limits.

    :param datagram: sessions, handshakes, time-outs, cookies per second.
    :param coap: requests at a time, and memory for duplicates, of each session.
    :param site: request bodies, answers in pieces, the preferred block size and the short root.
    :param drain_timeout: seconds that a stopping server waits for requests that it is working on
        and for the acknowledgements of its answers.
    """

    datagram: DatagramLimits = field(default_factory=DatagramLimits)
    coap: CoapLimits = field(default_factory=CoapLimits)
    site: SiteLimits = field(default_factory=SiteLimits)
    drain_timeout: float = 5.0

    def __post_init__(self) -> None:
        if self.drain_timeout < 0:
            raise ConfigurationError("drain_timeout must not be negative")

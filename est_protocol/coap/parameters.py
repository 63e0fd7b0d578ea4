"""Transmission parameters of CoAP (RFC 7252 section 4.8), the same object at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from aiocoap.numbers.constants import TransportTuning

from est_protocol.errors import ConfigurationError


@dataclass(frozen=True)
class TransmissionParameters:
    """Base values, and what follows from them; times in seconds.

    At most one exchange is outstanding at a time in each direction (NSTART is 1, RFC 9148 section
    6). Change the values at both ends together (RFC 7252 section 4.8.1).

    :param ack_timeout: before the first retransmission, ACK_TIMEOUT.
    :param ack_random_factor: ACK_RANDOM_FACTOR; at least 1.
    :param max_retransmit: MAX_RETRANSMIT.
    :param max_latency: longest way of a datagram, MAX_LATENCY.
    :param empty_ack_delay: after which a request that is still being worked on is acknowledged
        with an empty message, so that the client stops repeating it (RFC 7252 section 5.2.2).
    """

    ack_timeout: float = 2.0
    ack_random_factor: float = 1.5
    max_retransmit: int = 4
    max_latency: float = 100.0
    empty_ack_delay: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.ack_timeout:
            raise ConfigurationError("ack_timeout must be positive")
        if not 0 <= self.empty_ack_delay < self.ack_timeout:
            raise ConfigurationError("empty_ack_delay must be shorter than ack_timeout")
        if self.ack_random_factor < 1:
            raise ConfigurationError("ack_random_factor must be at least 1")
        if not 0 <= self.max_retransmit <= 20:
            raise ConfigurationError("max_retransmit must be in 0..20")
        if self.max_latency <= 0:
            raise ConfigurationError("max_latency must be positive")

    @property
    def processing_delay(self) -> float:
        """PROCESSING_DELAY."""
        return self.ack_timeout

    @property
    def max_transmit_span(self) -> float:
        """MAX_TRANSMIT_SPAN: from the first transmission of a message to its last."""
        return self.ack_timeout * ((1 << self.max_retransmit) - 1) * self.ack_random_factor

    @property
    def max_transmit_wait(self) -> float:
        """MAX_TRANSMIT_WAIT: from the first transmission until the sender gives up."""
        return self.ack_timeout * ((2 << self.max_retransmit) - 1) * self.ack_random_factor

    @property
    def max_rtt(self) -> float:
        """MAX_RTT."""
        return 2 * self.max_latency + self.processing_delay

    @property
    def exchange_lifetime(self) -> float:
        """EXCHANGE_LIFETIME: as long as a duplicate of a confirmable message may come."""
        return self.max_transmit_span + self.max_rtt

    @property
    def non_lifetime(self) -> float:
        """NON_LIFETIME: as long as a duplicate of a non-confirmable message may come."""
        return self.max_transmit_span + self.max_latency

    @cached_property
    def tuning(self) -> TransportTuning:
        """The values as aiocoap takes them, for ``Message.transport_tuning``."""
        tuning = TransportTuning()
        tuning.ACK_TIMEOUT = self.ack_timeout
        tuning.ACK_RANDOM_FACTOR = self.ack_random_factor
        tuning.MAX_RETRANSMIT = self.max_retransmit
        tuning.MAX_LATENCY = self.max_latency
        tuning.EMPTY_ACK_DELAY = self.empty_ack_delay
        return tuning

"""What is to be simulated: one documented value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from est_client.renewal import RenewalPolicy
from est_client.retry import RetryPolicy
from est_client.simulation.arrivals import Arrivals
from est_client.simulation.flash import FlashParameters
from est_client.simulation.microcontroller import Microcontroller
from est_client.simulation.profiles import PROFILES, Profile
from est_protocol.errors import ConfigurationError
from est_protocol.messages import Transport
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy

#: RFC 9148 section 3's mandatory suite, in OpenSSL's words.
CCM_8 = "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0"
_MOST_DEVICES = 1_000_000


class IdentityModel(StrEnum):
    """What a device has when it leaves the factory."""

    BARE_KEY = "bare-key"
    BIRTH_CERTIFICATE = "birth-certificate"
    ONE_TIME_SECRET = "one-time-secret"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run of a fleet. Times are in seconds of simulated time unless said otherwise.

    :param devices: how many.
    :param seed: for keys, links, arrivals and time-outs. The n-th packet of a device meets the same
        fate in every run with the same seed; ECDSA signatures vary by up to two octets all the
        same, so that air times, and now and then the number of frames, differ a little.
    :param profile: the network.
    :param transport: HTTPS or CoAPS.
    :param identity: what devices have when they leave the factory.
    :param arrivals: when they switch on.
    :param microcontroller: how long they compute; ``None``: no time at all.
    :param flash: their memory.
    :param block_size: octets of a CoAP block; the profile's by default.
    :param mtu: octets of the largest DTLS datagram of both ends; the profile's by default.
    :param ack_timeout: CoAP's ACK_TIMEOUT at both ends; the profile's by default.
    :param ciphers: DTLS suites that devices offer, in OpenSSL's words.
    :param tls: for HTTPS.
    :param receive_buffer: octets that a device can take of a TCP stream.
    :param retry: how a device repeats a request whose answer was lost.
    :param comes_back_after: before a device that could not enroll tries again; doubled each time,
        up to an hour.
    :param gives_up_after: from its arrival, after which a device without a certificate is counted
        as failed.
    :param power_losses: share of devices that lose power once before they have a certificate.
    :param power_loss_steps: the steps at which they do, one device after the other and from the
        beginning again, counted in packets sent or received and flash writes begun or completed;
        empty: a random one of the first sixty.
    :param reboot: from a power loss until the device is up again.
    :param renewals: how often each device renews its certificate.
    :param renewal: when it does.
    :param validity: of the certificates.
    :param factory_reset: whether each device loses its operational identity after all that, and
        enrolls again.
    :param cell: devices that share the air; 1: none.
    :param maximum_sessions: at a time, of a server that is started for the run; ``None``: its
        default.
    :param send_root: whether that server sends its root certificate in DTLS handshakes.
    :param server_workers: processors of that server.
    :param server_time: that one of them takes for a request, with its share of the handshake.
    """

    devices: int = 10
    seed: int = 1
    profile: Profile = field(default_factory=lambda: PROFILES["ethernet"])
    transport: Transport = Transport.COAPS
    identity: IdentityModel = IdentityModel.BARE_KEY
    arrivals: Arrivals = field(default_factory=Arrivals)
    microcontroller: Microcontroller | None = None
    flash: FlashParameters = field(default_factory=FlashParameters)
    block_size: int | None = None
    mtu: int | None = None
    ack_timeout: float | None = None
    ciphers: str = CCM_8
    tls: TlsPolicy = field(default_factory=TlsPolicy)
    receive_buffer: int = 65535
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    comes_back_after: float = 10.0
    gives_up_after: float = 86400.0
    power_losses: float = 0.0
    power_loss_steps: Sequence[int] = ()
    reboot: float = 2.0
    renewals: int = 0
    renewal: RenewalPolicy = field(default_factory=RenewalPolicy)
    validity: timedelta = timedelta(days=90)
    factory_reset: bool = False
    cell: int = 1
    maximum_sessions: int | None = None
    send_root: bool = False
    server_workers: int = 1
    server_time: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= _MOST_DEVICES:
            raise ConfigurationError(f"a fleet has 1 to {_MOST_DEVICES} devices")
        if not 0 <= self.power_losses <= 1:
            raise ConfigurationError("the share of devices that lose power is in 0..1")
        if self.cell < 1 or self.renewals < 0 or self.receive_buffer < 1:
            raise ConfigurationError("cell and receive_buffer are positive, renewals not negative")
        if min(self.comes_back_after, self.gives_up_after, self.reboot) <= 0:
            raise ConfigurationError("times of a device are positive")

    @property
    def effective_block_size(self) -> int:
        """Octets of a CoAP block."""
        return self.block_size or self.profile.block_size

    @property
    def effective_mtu(self) -> int:
        """Octets of the largest DTLS datagram."""
        return self.mtu or self.profile.mtu

    @property
    def effective_ack_timeout(self) -> float:
        """CoAP's ACK_TIMEOUT."""
        return self.ack_timeout or self.profile.ack_timeout

    @property
    def dtls(self) -> DtlsPolicy:
        """What devices negotiate."""
        return DtlsPolicy(ciphers=self.ciphers, mtu=self.effective_mtu)

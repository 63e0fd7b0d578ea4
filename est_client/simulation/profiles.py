"""Named links; where the numbers come from is told in docs/reference/link-profiles.md."""

from __future__ import annotations

from dataclasses import dataclass, replace

from est_client.simulation.energy import Radio
from est_client.simulation.link import DirectionParameters, FrameFormat, LinkParameters
from est_client.simulation.loss import Loss
from est_protocol.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of network, and how devices on it are set up.

    :param name: what it is called.
    :param about: one line for people.
    :param link: the link of each device.
    :param radio: what its air time costs.
    :param block_size: octets of a CoAP block.
    :param mtu: octets of the largest DTLS datagram.
    :param ack_timeout: CoAP's ACK_TIMEOUT in seconds, at both ends.
    :param patience: seconds that a handshake, or the answer to one HTTP request, may take.
    """

    name: str
    about: str
    link: LinkParameters
    radio: Radio
    block_size: int = 1024
    mtu: int = 1232
    ack_timeout: float = 2.0
    patience: float = 60.0

    def with_loss(self, loss: Loss, *, down: Loss | None = None) -> Profile:
        """The same network, losing whole datagrams too."""
        link = self.link
        link = replace(
            link,
            up=replace(link.up, datagram_loss=loss),
            down=replace(link.down, datagram_loss=down or loss),
        )
        return replace(self, link=link)

    def with_latency(self, latency: float, jitter: float | None = None) -> Profile:
        """The same network with another latency, in seconds each way."""

        def changed(direction: DirectionParameters) -> DirectionParameters:
            return replace(
                direction,
                latency=latency,
                jitter=direction.jitter if jitter is None else jitter,
            )

        link = replace(self.link, up=changed(self.link.up), down=changed(self.link.down))
        return replace(self, link=link)


_WIRE = Radio("none", 0.0, 0.0, "a wire: its energy is not counted")

_ETHERNET_WAY = DirectionParameters(100e6, latency=0.001)
_ETHERNET = Profile(
    "ethernet",
    "100 Mbit/s, 1 ms, nothing is lost",
    LinkParameters(
        _ETHERNET_WAY,
        _ETHERNET_WAY,
        frames=FrameFormat(payload=1500, overhead=38),
        datagram_header=28,
        segment_header=40,
    ),
    _WIRE,
    patience=30.0,
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (_ETHERNET,)}


def profile_named(name: str) -> Profile:
    """The profile with this name.

    :raises ConfigurationError: there is none.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise ConfigurationError(
            f"there is no link profile {name!r}; known: {', '.join(PROFILES)}"
        ) from None

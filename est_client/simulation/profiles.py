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
    :param sources: where the numbers were published.
    """

    name: str
    about: str
    link: LinkParameters
    radio: Radio
    block_size: int = 1024
    mtu: int = 1232
    ack_timeout: float = 2.0
    patience: float = 60.0
    sources: tuple[str, ...] = ()

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

        def changed(way: DirectionParameters) -> DirectionParameters:
            return replace(way, latency=latency, jitter=way.jitter if jitter is None else jitter)

        link = replace(self.link, up=changed(self.link.up), down=changed(self.link.down))
        return replace(self, link=link)


_WIRE = Radio("a wire", 0.0, 0.0, "its energy is not counted")

_ETHERNET_WAY = DirectionParameters(100e6, latency=0.001)
_ETHERNET = Profile(
    "ethernet",
    "100 Mbit/s, 1 ms each way, nothing is lost",
    # Preamble, header, check sum and gap of a frame are 38 octets; IPv4 and UDP, IPv4 and TCP.
    LinkParameters(
        _ETHERNET_WAY,
        _ETHERNET_WAY,
        FrameFormat(payload=1500, overhead=38),
        datagram_header=28,
        segment_header=40,
    ),
    _WIRE,
    patience=30.0,
    sources=("IEEE 802.3: frame format",),
)

_WIFI_WAY = DirectionParameters(
    6e6, latency=0.005, jitter=0.02, frame_gap=0.0002, frame_loss=Loss(0.1, 3.0), frame_repeats=7
)
_WIFI = Profile(
    "wifi",
    "802.11g at its lowest rate of 6 Mbit/s, a tenth of the frames lost in bursts, seven retries",
    LinkParameters(
        _WIFI_WAY,
        _WIFI_WAY,
        FrameFormat(payload=1500, overhead=36),
        datagram_header=28,
        segment_header=40,
        half_duplex=True,
        nat_timeout=120.0,
    ),
    Radio(
        "ESP32-C3, 802.11g",
        transmit=0.285 * 3.3,
        receive=0.084 * 3.3,
        source="ESP32-C3 Series Datasheet v1.6, current consumption: 285 mA at 54 Mbit/s, 84 mA",
    ),
    sources=(
        "IEEE 802.11-2020 clause 17: 6 Mbit/s; annex C: dot11ShortRetryLimit 7",
        "RFC 4787 section 4.3: UDP mappings of two minutes",
        "latency and frame loss are chosen",
    ),
)

# 127 octets with 9 of header (short addresses, one PAN), 10 of security (level 5) and 2 of check
# sum leave 106; on the air 6 octets of preamble and length come before. A part has a header of 4
# or 5 octets and ends on a multiple of 8.
_THREAD_WAY = DirectionParameters(
    250e3,
    latency=0.01,
    jitter=0.02,
    # Back-off of 3.5 periods of 320 us on average, clear channel assessment, twice the
    # turnaround of 192 us, and an acknowledgement of 11 octets.
    frame_gap=0.00198,
    frame_loss=Loss(0.05, 2.0),
    frame_repeats=3,
)
_THREAD = Profile(
    "thread-802.15.4",
    "6LoWPAN over IEEE 802.15.4: 250 kbit/s, 127-octet frames, one hop to the border router",
    LinkParameters(
        _THREAD_WAY,
        _THREAD_WAY,
        FrameFormat(payload=106, overhead=27, fragment_header=5, fragment_unit=8),
        # LOWPAN_IPHC with one address in full: 2 + 1 + 2 + 16; LOWPAN_NHC of UDP: 1 + 4 + 2.
        datagram_header=28,
        # TCP has no compressed header.
        segment_header=41,
        mtu=1280,
        half_duplex=True,
        nat_timeout=120.0,
    ),
    Radio(
        "nRF52840, 802.15.4 at 0 dBm",
        transmit=0.0064 * 3.0,
        receive=0.00653 * 3.0,
        source="Nordic, nRF52840 Product Specification, electrical specification of the radio: "
        "IRADIO_TX5 6.40 mA, IRADIO_RX2 6.53 mA, DC/DC; at 3 V",
    ),
    block_size=64,
    mtu=512,
    sources=(
        "IEEE 802.15.4-2006: 250 kbit/s, 127 octets, macMaxFrameRetries 3, CSMA-CA with BE 3",
        "RFC 4944 section 5.3 (fragment headers), RFC 6282 sections 3 and 4 (compression)",
        "RFC 9148 appendix B.1: blocks of 64 octets",
        "frame loss and the latency behind the border router are chosen",
    ),
)

_NB_IOT = Profile(
    "nb-iot",
    "Cat-NB1 at its sustained rates in good coverage, 1.6 s each way, asymmetric",
    LinkParameters(
        DirectionParameters(62_500, latency=1.6, jitter=0.4, frame_loss=Loss(0.1), frame_repeats=5),
        DirectionParameters(26_000, latency=1.6, jitter=0.4, frame_loss=Loss(0.1), frame_repeats=5),
        # A transport block of 1000 bits (uplink), with 5 octets of MAC, RLC and PDCP headers.
        FrameFormat(payload=120, overhead=5),
        datagram_header=28,
        segment_header=40,
        mtu=1358,
        half_duplex=True,
        nat_timeout=60.0,
    ),
    Radio(
        "u-blox SARA-N2 at 23 dBm",
        transmit=0.220 * 3.6,
        receive=0.046 * 3.6,
        source="at second hand: SARA-N2 Data Sheet, 220 mA at 23 dBm, 46 mA receiving, 3.6 V",
    ),
    block_size=512,
    mtu=1024,
    ack_timeout=5.0,
    patience=120.0,
    sources=(
        "3GPP Release 13, category NB1: 62 kbit/s up, 26 kbit/s down, latency 1.6 to 10 s",
        "3GPP TS 36.213 table 16.5.1.2-2: transport blocks of up to 1000 bits",
        "residual error rate of a block, and the mapping's life of 60 s, are chosen",
    ),
)

_LTE_M_WAY = DirectionParameters(
    375e3, latency=0.05, jitter=0.05, frame_loss=Loss(0.1), frame_repeats=4
)
_LTE_M = Profile(
    "lte-m",
    "Cat-M1, half duplex: 375 kbit/s up, 300 kbit/s down, 50 to 100 ms each way",
    # Transport blocks, headers and the network's address translator are as for NB-IoT.
    replace(_NB_IOT.link, up=_LTE_M_WAY, down=replace(_LTE_M_WAY, bandwidth=300e3)),
    Radio(
        "SIMCom SIM7000 at 23 dBm",
        transmit=0.167 * 3.8,
        receive=0.056 * 3.8,
        source="at second hand, by the Botletics SIM7000 shield's wiki: SIM7000 Hardware Design, "
        "167 mA at 23 dBm in band 12; receiving taken as a third of it",
    ),
    sources=(
        "3GPP TR 45.820 and TR 36.888; half-duplex peak rates of category M1 in Release 13",
        "3GPP TS 36.306: transport blocks of up to 1000 bits",
        "latency, residual error rate and the mapping's life of 60 s are chosen",
    ),
)


def _lorawan(name: str, about: str, bits: float, payload: int, preamble: float) -> Profile:
    # The preamble's time, in octets of the data rate; header, address, counter, port and integrity
    # code of LoRaWAN are 13 octets.
    overhead = 13 + round(preamble * bits / 8)
    up = DirectionParameters(bits, latency=0.5, duty_cycle=0.01, queue=7200.0)
    # A class A device hears the network only in a window one second after it has sent.
    down = replace(up, latency=1.0)
    return Profile(
        name,
        about,
        LinkParameters(
            up,
            down,
            # A part has a rule, a tag and a counter in front (SCHC, ACK-on-Error).
            FrameFormat(payload=payload, overhead=overhead, fragment_header=2),
            # A rule identifier and what of the ports and the length is not known beforehand.
            datagram_header=4,
            segment_header=40,
            mtu=1280,
            half_duplex=True,
        ),
        Radio(
            "Semtech SX1276 at 13 dBm",
            transmit=0.029 * 3.3,
            receive=0.0108 * 3.3,
            source="at second hand: SX1276 datasheet, table 6, 29 mA at 13 dBm, 10.8 mA receiving, "
            "3.3 V",
        ),
        block_size=128,
        mtu=256,
        ack_timeout=60.0,
        patience=6 * 3600.0,
        sources=(
            "LoRaWAN Regional Parameters RP002, EU863-870: bit rates, maximum payload, preamble",
            "ETSI EN 300 220: duty cycle of 1 %",
            "RFC 9011 and RFC 8724: SCHC over LoRaWAN, parts of a packet",
            "every device is alone in its cell; no frame is lost",
        ),
    )


_LORAWAN_SF7 = _lorawan(
    "lorawan-sf7", "EU868 DR5: 5470 bit/s, 222 octets, 1 % duty cycle; a limit case", 5470, 222,
    12.25 * 0.001024,
)  # fmt: skip
_LORAWAN_SF12 = _lorawan(
    "lorawan-sf12", "EU868 DR0: 250 bit/s, 51 octets, 1 % duty cycle; beyond the limit", 250, 51,
    12.25 * 0.032768,
)  # fmt: skip

_SATELLITE_WAY = DirectionParameters(
    256e3, latency=0.28, jitter=0.02, datagram_loss=Loss(0.01, 4.0)
)
_SATELLITE = Profile(
    "satellite",
    "geostationary: 280 ms each way, 256 kbit/s up, 1 Mbit/s down, 1 % lost in bursts",
    LinkParameters(
        _SATELLITE_WAY,
        replace(_SATELLITE_WAY, bandwidth=1e6),
        FrameFormat(payload=1500, overhead=10),
        datagram_header=28,
        segment_header=40,
        nat_timeout=120.0,
    ),
    Radio("a terminal on mains", 0.0, 0.0, "its energy is not counted"),
    sources=(
        "RFC 2488 section 2: 239.6 to 279.0 ms over a geostationary satellite",
        "rates and loss are chosen",
    ),
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        _ETHERNET,
        _WIFI,
        _THREAD,
        _NB_IOT,
        _LTE_M,
        _LORAWAN_SF7,
        _LORAWAN_SF12,
        _SATELLITE,
    )
}


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

"""The page of the simulator's link profiles, microcontrollers and radios."""

from __future__ import annotations

from collections.abc import Iterator

from est_client.simulation import MICROCONTROLLERS, PROFILES, DirectionParameters, Profile


def profiles_page(generated: str) -> str:
    """docs/reference/link-profiles.md.

    :param generated: says that the page is.
    """
    lines = [
        "# Link profiles",
        "",
        generated,
        "What `est-client simulate --profile` and `--mcu` stand for, and where the numbers come",
        "from. They are typical values, and where it says so at second hand: check them against",
        "your network and the data sheets of your parts. Each can be changed in",
        "`est_client.simulation`, and the most used ones on the command line.",
        "",
        "Headers are those of the link, compressed where it compresses them, once per datagram or",
        "TCP segment; the overhead is that of each frame, with what precedes it on the air.",
        "",
        *_links(),
    ]
    for profile in PROFILES.values():
        lines += ["", *_profile(profile)]
    lines += ["", *_microcontrollers()]
    return "\n".join(lines) + "\n"


def _links() -> Iterator[str]:
    yield "| profile | bit/s up, down | latency, jitter (s) | frame, overhead | MTU | loss |"
    yield "|---|---|---|---|---|---|"
    for profile in PROFILES.values():
        link = profile.link
        yield (
            f"| `{profile.name}` | {link.up.bandwidth:,.0f}; {link.down.bandwidth:,.0f} "
            f"| {link.up.latency:g}, {link.up.jitter:g} "
            f"| {link.frames.payload}, {link.frames.overhead} | {link.mtu} | {_loss(link.up)} |"
        )


def _loss(way: DirectionParameters) -> str:
    parts = []
    for what, loss in (("frames", way.frame_loss), ("datagrams", way.datagram_loss)):
        if loss.rate:
            burst = f" in bursts of {loss.burst:g}" if loss.burst else ""
            parts.append(f"{loss.rate:.0%} of {what}{burst}")
    if way.frame_repeats:
        parts.append(f"{way.frame_repeats} repeats")
    return ", ".join(parts) or "none"


def _profile(profile: Profile) -> Iterator[str]:
    link = profile.link
    yield f"## {profile.name}"
    yield ""
    yield profile.about[0].upper() + profile.about[1:] + "."
    yield ""
    air = "one for both directions" if link.half_duplex else "one for each direction"
    yield (
        f"Header of a datagram {link.datagram_header} octets, of a TCP segment "
        f"{link.segment_header}; the air is {air}; duty cycle {link.up.duty_cycle:.0%}; "
        + (
            "addresses last for ever."
            if link.nat_timeout is None
            else f"an address lasts for {link.nat_timeout:g} s of silence."
        )
    )
    yield (
        f"Devices use CoAP blocks of {profile.block_size} octets, DTLS datagrams of {profile.mtu}, "
        f"an ACK_TIMEOUT of {profile.ack_timeout:g} s, and wait {profile.patience:g} s for a "
        "handshake."
    )
    radio = profile.radio
    yield (
        f"Radio: {radio.name}, {1e3 * radio.transmit:.1f} mW sending, "
        f"{1e3 * radio.receive:.1f} mW receiving ({radio.source})."
    )
    yield ""
    yield from (f"- {source}" for source in profile.sources)


def _microcontrollers() -> Iterator[str]:
    yield "## Microcontrollers"
    yield ""
    yield "Milliseconds for P-256 in software; symmetric cryptography is taken to cost nothing."
    yield ""
    yield "| class | sign | verify | make a key | agree | mW | source |"
    yield "|---|---|---|---|---|---|---|"
    for mcu in MICROCONTROLLERS.values():
        times = (mcu.sign, mcu.verify, mcu.make_key, mcu.agree)
        figures = " | ".join(f"{1e3 * time:.1f}" for time in times)
        yield f"| `{mcu.name}` | {figures} | {1e3 * mcu.power:.1f} | {mcu.source} |"

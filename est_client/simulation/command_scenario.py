"""From the options of ``est-client simulate`` to a scenario."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from est_client.simulation.arrivals import Arrivals, Pattern
from est_client.simulation.flash import FlashParameters, LastWrite
from est_client.simulation.loss import Loss
from est_client.simulation.microcontroller import microcontroller_named
from est_client.simulation.profiles import Profile, profile_named
from est_client.simulation.scenario import CCM_8, IdentityModel, Scenario
from est_protocol.coap.session import block_exponent
from est_protocol.errors import ConfigurationError
from est_protocol.messages import Transport
from est_protocol.secure_channel.policy import DtlsPolicy

_Value = TypeVar("_Value")


def _number(convert: Callable[[str], _Value], what: str) -> Callable[[str], _Value]:
    def parse(text: str) -> _Value:
        try:
            return convert(text)
        except ValueError:
            raise ConfigurationError(f"{text!r} is no {what}") from None

    return parse


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ConfigurationError(f"{text!r} is neither yes nor no")
    return text == "yes"


_whole = _number(int, "whole number")
_real = _number(float, "number")

#: What ``--compare`` can vary, and how its values are read.
OPTIONS: dict[str, Callable[[str], Any]] = {
    "ack-timeout": _real,
    "block-size": _whole,
    "cell": _whole,
    "cipher": str,
    "devices": _whole,
    "identity": str,
    "latency": _real,
    "loss": _real,
    "mcu": str,
    "mtu": _whole,
    "profile": str,
    "seed": _whole,
    "send-root": _yes_or_no,
    "server-time": _real,
    "server-workers": _whole,
    "transport": str,
}

_CIPHERS = {"ccm8": CCM_8, "any": DtlsPolicy().ciphers}


def scenario_of(options: argparse.Namespace) -> Scenario:
    """The scenario that the options describe.

    :raises ConfigurationError: they make no sense.
    """
    if options.block_size is not None:
        block_exponent(options.block_size)
    return Scenario(
        devices=options.devices,
        seed=options.seed,
        profile=_profile(options),
        transport=_one_of(Transport, options.transport, "transport"),
        identity=_one_of(IdentityModel, options.identity, "identity"),
        arrivals=Arrivals(_one_of(Pattern, options.arrivals, "pattern"), options.arrive_within),
        microcontroller=microcontroller_named(options.mcu),
        flash=FlashParameters(last_write=_one_of(LastWrite, options.last_write, "fate of a write")),
        block_size=options.block_size,
        mtu=options.mtu,
        ack_timeout=options.ack_timeout,
        ciphers=_cipher(options.cipher),
        gives_up_after=options.give_up,
        power_losses=options.power_losses,
        renewals=options.renewals,
        validity=timedelta(days=options.validity),
        factory_reset=options.factory_reset,
        cell=options.cell,
        maximum_sessions=options.max_sessions,
        send_root=options.send_root,
        server_workers=options.server_workers,
        server_time=options.server_time,
    )


def _profile(options: argparse.Namespace) -> Profile:
    profile = profile_named(options.profile)
    if options.latency is not None:
        profile = profile.with_latency(options.latency)
    if options.loss is not None:
        down = options.loss if options.loss_down is None else options.loss_down
        profile = profile.with_loss(
            Loss(options.loss, options.burst), down=Loss(down, options.burst)
        )
    if options.nat_timeout is not None:
        profile = replace(profile, link=replace(profile.link, nat_timeout=options.nat_timeout))
    return profile


def _cipher(name: str) -> str:
    if name not in _CIPHERS:
        raise ConfigurationError(f"{name!r} is neither {' nor '.join(_CIPHERS)}")
    return _CIPHERS[name]


def _one_of(kind: type[_Value], text: str, what: str) -> _Value:
    try:
        return kind(text)  # type: ignore[call-arg]
    except ValueError:
        known = ", ".join(member.value for member in kind)  # type: ignore[attr-defined]
        raise ConfigurationError(f"{text!r} is no {what}; known: {known}") from None

"""What a device is made of: processor, energy, flash, arrivals, identities, NAT."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from est_client.simulation.arrivals import Arrivals, Pattern
from est_client.simulation.energy import Radio
from est_client.simulation.flash import Flash, FlashParameters, LastWrite
from est_client.simulation.fleet import simulate
from est_client.simulation.identities import Factory
from est_client.simulation.link import Fate, Outage
from est_client.simulation.microcontroller import (
    MICROCONTROLLERS,
    Processor,
    microcontroller_named,
)
from est_client.simulation.profiles import PROFILES, profile_named
from est_client.simulation.scenario import IdentityModel, Scenario
from est_client.simulation.traffic import Flow, changes_cipher
from est_client.simulation.virtual_time import run_virtually
from est_protocol.errors import ConfigurationError
from est_protocol.messages import Transport
from tests.pki import PRESENT

M4 = MICROCONTROLLERS["cortex-m4"]


def test_a_handshake_is_computed_once() -> None:
    processor = Processor(M4, lambda: 10.0, chain_length=2)
    processor.compute_handshake()
    assert processor.busy == 0
    processor.begin_handshake()
    processor.compute_handshake()
    processor.compute_handshake()
    assert processor.busy == pytest.approx(3 * M4.verify + M4.sign + M4.make_key + M4.agree)
    assert processor.free_at == pytest.approx(10 + processor.busy)
    assert processor.energy == pytest.approx(processor.busy * M4.power)


def test_work_queues_up() -> None:
    processor = Processor(M4, lambda: 0.0)
    processor.sign()
    processor.verify(2)
    assert processor.free_at == pytest.approx(M4.sign + 2 * M4.verify)


@pytest.mark.parametrize("transport", list(Transport))
def test_computing_takes_its_time_and_energy(transport: Transport) -> None:
    """One handshake, one CSR, and three certificates of two answers to verify."""
    slow = simulate(Scenario(devices=1, transport=transport, microcontroller=M4)).devices[0]
    fast = simulate(Scenario(devices=1, transport=transport)).devices[0]
    expected = 3 * M4.verify + 2 * M4.sign + M4.make_key + M4.agree + 3 * M4.verify
    assert slow.computing == pytest.approx(expected)
    assert fast.computing == 0
    assert slow.seconds_to_certificate is not None
    assert fast.seconds_to_certificate is not None
    gained = slow.seconds_to_certificate - fast.seconds_to_certificate
    assert gained == pytest.approx(expected, abs=0.01)
    assert slow.computing_energy == pytest.approx(expected * M4.power)


def test_energy_is_air_time_times_power() -> None:
    radio = Radio("r", transmit=0.1, receive=0.02, source="")
    assert radio.energy(Flow(airtime=3.0), Flow(airtime=5.0)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("fate", "left"), [(LastWrite.LOST, "before"), (LastWrite.SURVIVES, "after")]
)
def test_flash_after_an_interrupted_write(fate: LastWrite, left: str) -> None:
    async def main() -> str:
        flash = Flash(FlashParameters(write_time=1.0, last_write=fate))
        await flash.write(value="before")
        writing = asyncio.create_task(flash.write(value="after"))
        await asyncio.sleep(0.5)
        writing.cancel()
        await asyncio.wait([writing])
        value: str = flash.read("value")
        return value

    assert run_virtually(main()) == left


@pytest.mark.parametrize("pattern", list(Pattern))
def test_arrivals_come_in_their_time(pattern: Pattern) -> None:
    moments = Arrivals(pattern, within=100.0).moments(2000, Random(1))
    assert len(moments) == 2000
    assert moments == sorted(moments)
    last = 1.0 if pattern is Pattern.AT_ONCE else 100.0
    assert moments[-1] == pytest.approx(last, rel=0.1)
    assert moments[1000] == pytest.approx(last / 2, rel=0.1)


def test_a_fleet_has_the_same_keys_for_the_same_seed() -> None:
    def udids(seed: int) -> list[str]:
        factory = Factory(seed, IdentityModel.BARE_KEY, PRESENT)
        return [device.udid for device in factory.devices(20)]

    assert udids(1) == udids(1)
    assert len({*udids(1), *udids(2)}) == 40


def test_a_rebound_device_begins_anew_and_gets_its_certificate() -> None:
    """An outage in the middle of the handshake lasts longer than the address translator's memory:
    what the device says then comes from nobody, and what the server says goes nowhere."""
    ethernet = PROFILES["ethernet"].with_latency(0.5)
    link = replace(ethernet.link, nat_timeout=5.0, outages=(Outage(begin=2.2, length=8.0),))
    profile = replace(ethernet, link=link, patience=20.0)
    result = simulate(Scenario(devices=10, profile=profile))
    assert result.success == 1.0, result.failures
    assert result.not_arrived[Fate.OUTAGE] > 10
    assert result.not_arrived[Fate.NAT] > 0
    assert sum(device.attempts for device in result.devices) > 10
    assert {device.certificates for device in result.devices} == {1}


def test_every_profile_and_microcontroller_says_where_its_numbers_are_from() -> None:
    for profile in PROFILES.values():
        assert profile.sources
        assert profile.about
        assert profile.radio.source
    for mcu in MICROCONTROLLERS.values():
        assert mcu.source
        assert mcu.verify > 0


def test_there_is_no_such_profile_or_microcontroller() -> None:
    with pytest.raises(ConfigurationError, match="thread"):
        profile_named("zigbee")
    with pytest.raises(ConfigurationError, match="cortex-m4"):
        microcontroller_named("z80")
    assert microcontroller_named("none") is None


@pytest.mark.parametrize("name", ["wifi", "thread-802.15.4", "nb-iot", "lte-m", "satellite"])
@pytest.mark.parametrize("transport", list(Transport))
def test_a_fleet_enrolls_over_every_network_but_the_limit_cases(
    name: str, transport: Transport
) -> None:
    result = simulate(Scenario(devices=3, profile=PROFILES[name], transport=transport))
    assert result.success == 1.0, result.failures


@pytest.mark.parametrize("datagram", [True, False])
def test_a_change_of_cipher_is_seen_wherever_it_stands(datagram: bool) -> None:
    header = bytes(8) if datagram else b""
    other = b"\x16\xfe\xfd" + header + b"\x00\x02ab"
    change = b"\x14\xfe\xfd" + header + b"\x00\x01\x01"
    assert changes_cipher(other + change, datagram=datagram)
    assert not changes_cipher(other + other, datagram=datagram)
    assert not changes_cipher(b"\x14", datagram=datagram)

"""Whole fleets at the real server, in virtual time."""

from dataclasses import replace

import pytest

from est_client.simulation.device import Outcome
from est_client.simulation.flash import FlashParameters, LastWrite
from est_client.simulation.fleet import simulate
from est_client.simulation.loss import Loss
from est_client.simulation.profiles import PROFILES
from est_client.simulation.results import FleetResult
from est_client.simulation.scenario import IdentityModel, Scenario
from est_client.simulation.traffic import Phase
from est_protocol.messages import Transport

HARD = PROFILES["ethernet"].with_loss(Loss(0.3)).with_latency(2.0)


def require_one_certificate_each(result: FleetResult) -> None:
    assert result.success == 1.0, result.failures
    assert {device.certificates for device in result.devices} == {1}


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("identity", list(IdentityModel))
def test_a_fleet_enrolls(transport: Transport, identity: IdentityModel) -> None:
    result = simulate(Scenario(devices=3, transport=transport, identity=identity))
    require_one_certificate_each(result)
    assert set(result.phases) == {Phase.HANDSHAKE, Phase.CACERTS, Phase.ENROLL, Phase.CLOSE}
    assert all(device.attempts == 1 for device in result.devices)


@pytest.mark.parametrize("transport", list(Transport))
def test_every_device_with_a_path_gets_its_one_certificate(transport: Transport) -> None:
    """30 % of the datagrams are lost each way, and each takes two seconds."""
    result = simulate(Scenario(devices=30, seed=5, profile=HARD, transport=transport))
    require_one_certificate_each(result)
    assert sum(traffic.repeats for traffic in result.phases.values()) > 30


def test_a_device_without_a_path_does_not_hang() -> None:
    profile = PROFILES["ethernet"].with_loss(Loss(1.0))
    result = simulate(Scenario(devices=2, profile=profile, gives_up_after=3600))
    assert {device.outcome for device in result.devices} == {Outcome.FAILED}
    assert result.simulated_seconds == pytest.approx(3600, abs=70)


@pytest.mark.parametrize("last_write", list(LastWrite))
@pytest.mark.parametrize(
    ("transport", "identity"),
    [
        (Transport.COAPS, IdentityModel.BARE_KEY),
        (Transport.HTTPS, IdentityModel.BARE_KEY),
        (Transport.COAPS, IdentityModel.BIRTH_CERTIFICATE),
    ],
)
def test_power_loss_at_any_step_leaves_a_device_able_to_go_on(
    last_write: LastWrite, transport: Transport, identity: IdentityModel
) -> None:
    steps = 60
    result = simulate(
        Scenario(
            devices=steps,
            transport=transport,
            identity=identity,
            power_losses=1.0,
            power_loss_steps=range(1, steps + 1),
            flash=FlashParameters(last_write=last_write),
        )
    )
    require_one_certificate_each(result)
    lost = [device.power_losses for device in result.devices]
    # It went at each step up to the last one of an enrollment, and that one is among them.
    assert lost == sorted(lost, reverse=True)
    assert 15 <= sum(lost) < steps


def test_a_device_renews_in_time() -> None:
    result = simulate(Scenario(devices=2, renewals=2))
    assert [device.renewals for device in result.devices] == [2, 2]
    assert not any(device.failures for device in result.devices)
    assert {device.certificates for device in result.devices} == {3}
    # Two times about two thirds of ninety days.
    assert result.simulated_seconds / 86400 == pytest.approx(120, abs=10)


def test_a_fleet_is_the_same_for_the_same_seed() -> None:
    scenario = Scenario(devices=5, seed=11, profile=HARD)
    one, same = simulate(scenario), simulate(scenario)
    other = simulate(replace(scenario, seed=12))
    assert [d.seconds_to_certificate for d in one.devices] == pytest.approx(
        [d.seconds_to_certificate for d in same.devices], abs=1e-3
    )
    assert one.simulated_seconds != pytest.approx(other.simulated_seconds, abs=1e-3)


def test_a_slow_answer_does_not_make_a_connection_stale() -> None:
    """/crts and the enrollment share one handshake, although the first takes more than ten
    seconds."""
    slow = replace(PROFILES["ethernet"].with_latency(6.0), patience=600.0)
    result = simulate(Scenario(devices=1, profile=slow, ack_timeout=15.0))
    assert result.success == 1.0
    assert result.phases[Phase.CACERTS].seconds > 10
    assert result.server is not None
    assert result.server.most_sessions == 1
    # The flights of one handshake, whatever was repeated of them.
    assert result.devices[0].attempts == 1
    assert result.phases[Phase.CLOSE].up.datagrams == 1


def test_a_slow_server_makes_a_queue() -> None:
    """Twenty devices come within a second; one worker takes a second for each request."""
    result = simulate(Scenario(devices=20, server_time=1.0))
    server = result.server
    assert server is not None
    assert result.success == 1.0
    assert server.most_working > 10
    assert max(server.waits) > 15
    assert result.simulated_seconds == pytest.approx(sum(server.answers.values()), abs=10)
    quick = simulate(Scenario(devices=20, server_time=1.0, server_workers=10))
    assert quick.time_to_certificate(1.0) < result.time_to_certificate(1.0) / 3


def test_after_a_factory_reset_the_claim_says_who_may_enroll_again() -> None:
    """With the key that the claim was taken with, the device gets its certificate once more."""
    same = simulate(Scenario(devices=1, factory_reset=True))
    require_one_certificate_each(same)
    renewed = simulate(Scenario(devices=1, factory_reset=True, renewals=1))
    (device,) = renewed.devices
    assert device.outcome is Outcome.FAILED
    assert len(device.failures) == 1
    assert "first enrollment already" in device.failures[0]

"""A test for a device maker's own CI: ``pytest docs/examples/fleet_test.py``."""

from dataclasses import replace

from est_client.simulation import (
    FrameFormat,
    IdentityModel,
    Loss,
    Scenario,
    microcontroller_named,
    profile_named,
    simulate,
)

#: Our meters: Thread, a Cortex-M0+, and routers that take datagrams of 320 octets at most.
METERS = Scenario(
    devices=50,
    seed=2026,
    profile=profile_named("thread-802.15.4").with_loss(Loss(0.1, burst=2)),
    identity=IdentityModel.BIRTH_CERTIFICATE,
    microcontroller=microcontroller_named("cortex-m0plus"),
    mtu=320,
    power_losses=0.2,
)


def test_our_fleet_enrolls_at_ten_percent_loss():
    result = simulate(METERS)
    assert result.success == 1.0, result.failures
    assert result.time_to_certificate(0.9) < 300
    assert result.time_to_certificate(1.0) < 1800
    # Nobody got two certificates, although every fifth lost its power on the way.
    assert all(device.certificates == 1 for device in result.devices)


def test_enrollment_costs_less_than_a_joule_of_radio():
    result = simulate(replace(METERS, devices=10))
    assert max(device.radio_energy for device in result.devices) < 1.0


def test_a_radio_of_our_own():
    link = replace(METERS.profile.link, frames=FrameFormat(payload=64, overhead=20))
    ours = replace(METERS.profile, name="our radio", link=link)
    assert simulate(replace(METERS, devices=5, profile=ours)).success == 1.0

"""Simulated devices, fleets and links: what enrollment costs before a single radio is bought.

:func:`simulate` runs a :class:`Scenario` and returns a :class:`FleetResult`::

    result = simulate(Scenario(devices=500, profile=profile_named("thread-802.15.4")))
    assert result.success == 1.0
    assert result.time_to_certificate(0.99) < 60

docs/explanation/constrained-enrollment.md says what is real in it and what is not;
docs/examples/fleet_test.py is a test for your own CI.
"""

from est_client.simulation.arrivals import Arrivals, Pattern
from est_client.simulation.device import Outcome
from est_client.simulation.energy import Radio
from est_client.simulation.flash import FlashParameters, LastWrite
from est_client.simulation.fleet import Target, simulate, simulate_elsewhere
from est_client.simulation.link import (
    DirectionParameters,
    FrameFormat,
    LinkParameters,
    Outage,
)
from est_client.simulation.loss import Loss
from est_client.simulation.microcontroller import (
    MICROCONTROLLERS,
    Microcontroller,
    microcontroller_named,
)
from est_client.simulation.profiles import PROFILES, Profile, profile_named
from est_client.simulation.report import write_report
from est_client.simulation.results import DeviceResult, FleetResult, ServerResult
from est_client.simulation.scenario import IdentityModel, Scenario
from est_client.simulation.traffic import Flow, Phase, PhaseTraffic

__all__ = [
    "MICROCONTROLLERS",
    "PROFILES",
    "Arrivals",
    "DeviceResult",
    "DirectionParameters",
    "FlashParameters",
    "FleetResult",
    "Flow",
    "FrameFormat",
    "IdentityModel",
    "LastWrite",
    "LinkParameters",
    "Loss",
    "Microcontroller",
    "Outage",
    "Outcome",
    "Pattern",
    "Phase",
    "PhaseTraffic",
    "Profile",
    "Radio",
    "Scenario",
    "ServerResult",
    "Target",
    "microcontroller_named",
    "profile_named",
    "simulate",
    "simulate_elsewhere",
    "write_report",
]

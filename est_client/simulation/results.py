"""What a run showed: every device, the fleet as a whole, and the server's view."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from est_client.simulation.device import Outcome, SimulatedDevice
from est_client.simulation.link import Fate
from est_client.simulation.scenario import Scenario
from est_client.simulation.server import StartedServer
from est_client.simulation.traffic import Flow, Phase, PhaseTraffic


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """One device. Times are in seconds, energies in joules.

    :param udid: who it was.
    :param outcome: what became of it.
    :param arrived_at: when it switched on, from the start of the run.
    :param seconds_to_certificate: from then to its certificate; ``None`` without one.
    :param attempts: how often it tried to enroll.
    :param failures: why attempts failed, the first few.
    :param power_losses: how often it lost its power.
    :param renewals: how often it renewed its certificate.
    :param phases: what crossed its link in each phase.
    :param not_arrived: why datagrams did not arrive, and how many.
    :param computing: seconds of computing.
    :param radio_energy: for its air time.
    :param computing_energy: for its computing.
    :param certificates: how many certificates the ledger holds for it; ``None`` if that is not
        known.
    """

    udid: str
    outcome: Outcome
    arrived_at: float
    seconds_to_certificate: float | None
    attempts: int
    failures: tuple[str, ...]
    power_losses: int
    renewals: int
    failed_renewals: int
    phases: Mapping[Phase, PhaseTraffic]
    not_arrived: Mapping[Fate, int]
    computing: float
    radio_energy: float
    computing_energy: float
    certificates: int | None

    @property
    def traffic(self) -> PhaseTraffic:
        """All phases together."""
        return sum(self.phases.values(), start=PhaseTraffic())


@dataclass(frozen=True, slots=True)
class ServerResult:
    """What the server saw.

    :param answers: by operation and what became of it.
    :param latencies: seconds of real time that each request took.
    :param waits: simulated seconds from each request to its answer.
    :param most_working: requests at a time, at most.
    :param most_sessions: sessions at a time, at most, as seen at requests.
    :param history: moment, sessions and requests at a time, for every request.
    """

    answers: Mapping[tuple[str, str], int]
    latencies: Sequence[float]
    waits: Sequence[float]
    most_working: int
    most_sessions: int
    history: Sequence[tuple[float, int, int]]


@dataclass(slots=True)
class FleetResult:
    """A whole run.

    :param scenario: what was simulated.
    :param devices: what became of each device.
    :param server: what the server saw; ``None`` of one that is not ours.
    :param simulated_seconds: how long it took on the simulation's clock.
    :param real_seconds: how long it took.
    """

    scenario: Scenario
    devices: Sequence[DeviceResult]
    server: ServerResult | None
    simulated_seconds: float
    real_seconds: float = 0.0
    _sorted: list[float] | None = field(default=None, repr=False)

    @property
    def enrolled(self) -> Sequence[DeviceResult]:
        """The devices that have a certificate."""
        return [device for device in self.devices if device.outcome is Outcome.ENROLLED]

    @property
    def success(self) -> float:
        """The share of devices that have a certificate."""
        return len(self.enrolled) / len(self.devices)

    @property
    def times(self) -> Sequence[float]:
        """Seconds to the certificate of all that have one, the shortest first."""
        if self._sorted is None:
            found = (device.seconds_to_certificate for device in self.devices)
            self._sorted = sorted(time for time in found if time is not None)
        return self._sorted

    def time_to_certificate(self, quantile: float) -> float:
        """Seconds within which this share of the devices that enrolled had a certificate.

        :param quantile: from 0 to 1.
        """
        return quantile_of(self.times, quantile)

    @property
    def phases(self) -> Mapping[Phase, PhaseTraffic]:
        """What crossed the links of all devices in each phase."""
        total: dict[Phase, PhaseTraffic] = {}
        for device in self.devices:
            for phase, traffic in device.phases.items():
                total[phase] = total.get(phase, PhaseTraffic()) + traffic
        return {phase: total[phase] for phase in Phase if phase in total}

    @property
    def failures(self) -> Counter[str]:
        """Why the devices without a certificate have none: their last reason, counted."""
        return Counter(
            device.failures[-1] if device.failures else "unknown"
            for device in self.devices
            if device.outcome is not Outcome.ENROLLED
        )

    @property
    def setbacks(self) -> Counter[str]:
        """Why attempts failed, those of devices that got there in the end too."""
        return Counter(failure for device in self.devices for failure in device.failures)

    @property
    def not_arrived(self) -> Counter[Fate]:
        """Why datagrams did not arrive, and how many."""
        total: Counter[Fate] = Counter()
        for device in self.devices:
            total.update(device.not_arrived)
        return total

    def mean(self, values: Iterable[float]) -> float:
        """A sum over devices as a mean per device."""
        return sum(values) / len(self.devices)


def quantile_of(ordered: Sequence[float], quantile: float) -> float:
    """The value below or at which this share of ordered values lies; NaN of none."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, max(0, math.ceil(quantile * len(ordered)) - 1))]


def collect(
    scenario: Scenario,
    devices: Sequence[SimulatedDevice],
    server: StartedServer | None,
    ended_at: float,
) -> FleetResult:
    """Sum up a run."""
    certificates = server.certificates_per_device() if server is not None else None
    view = None
    if server is not None:
        seen = server.view
        view = ServerResult(
            dict(seen.answers),
            seen.latencies,
            seen.waits,
            seen.most_working,
            max((sessions for _, sessions, _ in seen.history), default=0),
            seen.history,
        )
    return FleetResult(
        scenario,
        [_device_result(scenario, device, certificates) for device in devices],
        view,
        ended_at,
    )


def _device_result(
    scenario: Scenario, device: SimulatedDevice, certificates: Mapping[str, int] | None
) -> DeviceResult:
    life, meter, udid = device.life, device.meter, device.factory.udid
    up = sum((traffic.up for traffic in meter.phases.values()), start=Flow())
    down = sum((traffic.down for traffic in meter.phases.values()), start=Flow())
    return DeviceResult(
        udid=udid,
        outcome=life.outcome,
        arrived_at=life.arrived_at,
        seconds_to_certificate=life.seconds_to_certificate,
        attempts=life.attempts,
        failures=tuple(life.failures),
        power_losses=life.power_losses,
        renewals=life.renewals,
        failed_renewals=life.failed_renewals,
        phases=dict(meter.phases),
        not_arrived=dict(meter.fates),
        computing=device.processor.busy,
        radio_energy=scenario.profile.radio.energy(up, down),
        computing_energy=device.processor.energy,
        certificates=None if certificates is None else certificates.get(udid, 0),
    )

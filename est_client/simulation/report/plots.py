"""What is plotted of runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from est_client.simulation.outputs import seconds, summary
from est_client.simulation.report.scales import (
    Scale,
    count_scale,
    share_scale,
    time_scale,
    value_scale,
)
from est_client.simulation.report.svg import Bar, Chart, Series, bars, colour, legend
from est_client.simulation.results import FleetResult
from est_client.simulation.traffic import Phase

#: More lines than this in one plot cannot be told apart.
_MOST_LINES = 16


def time_distribution(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    """The share of devices that have a certificate within a time."""
    times = [time for result in results for time in result.times]
    chart = Chart(
        time_scale(times, from_zero=False),
        share_scale(),
        "time to certificate",
        "devices",
        "share of devices with a certificate within a time",
    )
    for number, (result, label) in enumerate(_few(results, labels)):
        count = len(result.devices)
        points = [(time, (rank + 1) / count) for rank, time in enumerate(result.times)]
        if points:
            points.insert(0, (points[0][0], 0.0))
        chart.line(Series(label, points), number, steps=True)
    return chart.render()


def completion(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    """How many devices have a certificate at a moment of the run."""
    moments = [
        sorted(
            device.arrived_at + device.seconds_to_certificate
            for device in result.devices
            if device.seconds_to_certificate is not None
        )
        for result in results
    ]
    chart = Chart(
        time_scale([moment for each in moments for moment in each], from_zero=True),
        count_scale([len(result.devices) for result in results]),
        "time since the start",
        "devices with a certificate",
        "devices with a certificate over time",
    )
    for number, (result, label) in enumerate(_few(results, labels)):
        arrived = sorted(device.arrived_at for device in result.devices)
        if len(results) == 1:
            chart.line(
                Series("arrived", [(m, i + 1) for i, m in enumerate(arrived)]), 1, steps=True
            )
        points = [(moment, i + 1) for i, moment in enumerate(moments[number])]
        chart.line(Series(label or "enrolled", [(0.0, 0), *points]), number, steps=True)
    return chart.render()


def octets_by_phase(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    """Octets of payload per device, by phase."""
    rows = []
    for result, label in zip(results, labels, strict=True):
        count = len(result.devices)
        phases = result.phases
        for direction in ("up", "down"):
            parts = [
                (colour(number), getattr(phases[phase], direction).octets / count)
                for number, phase in enumerate(Phase)
                if phase in phases
            ]
            rows.append(Bar(f"{label} {direction}".strip(), parts))
    used = {phase for result in results for phase in result.phases}
    names = [(phase.value, colour(i)) for i, phase in enumerate(Phase) if phase in used]
    chart = bars(
        rows,
        count_scale([row.total for row in rows]),
        "octets of UDP or TCP payload per device",
        "octets per device by phase",
    )
    return chart + legend(names)


def time_by_run(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    """Percentiles of the time to certificate, one bar per run."""
    rows = []
    for result, label in zip(results, labels, strict=True):
        half, most = result.time_to_certificate(0.5), result.time_to_certificate(0.99)
        if half == half:
            rows.append(Bar(label, [(colour(0), half), (colour(5), most - half)]))
    if not rows:
        return "<p>No device of any run has a certificate.</p>"
    scale = time_scale([row.total for row in rows], from_zero=True)
    chart = bars(rows, scale, "seconds to certificate", "time to certificate by run")
    return chart + legend([("half of the devices", colour(0)), ("99 %", colour(5))])


def loss_against_time(result: FleetResult) -> str:
    """Each device: how much of what was sent did not arrive, and how long it took."""
    points = []
    for device in result.devices:
        traffic = device.traffic
        sent = traffic.up.datagrams + traffic.down.datagrams
        if device.seconds_to_certificate is not None and sent:
            lost = (traffic.up.not_arrived + traffic.down.not_arrived) / sent
            points.append((lost, device.seconds_to_certificate))
    across = value_scale([0.0, *(lost for lost, _ in points)], lambda value: f"{value:.0%}")
    chart = Chart(
        across,
        time_scale([time for _, time in points], from_zero=False),
        "share of its datagrams that did not arrive",
        "time to certificate",
        "loss and time to certificate of each device",
    )
    chart.dots(Series("", points), 0)
    return chart.render()


def loss_sweep(results: Sequence[FleetResult]) -> str | None:
    """Success and time against the loss that was set; ``None`` if only one was."""
    settings = sorted(
        (
            (result.scenario.profile.link.up.datagram_loss.rate, _other(result), result)
            for result in results
        ),
        key=lambda entry: (entry[1], entry[0]),
    )
    rates = {rate for rate, _, _ in settings}
    if len(rates) < 2:
        return None
    across = value_scale([0.0, *rates], lambda value: f"{value:.0%}")
    success = Chart(across, share_scale(), "loss each way", "devices enrolled", "success over loss")
    times = [r.time_to_certificate(0.99) for r in results if r.times]
    duration = Chart(
        across, time_scale(times, from_zero=True), "loss each way", "p99 time to certificate",
        "time to certificate over loss",
    )  # fmt: skip
    for number, (name, group) in enumerate(groupby(settings, key=lambda entry: entry[1])):
        members = [(rate, result) for rate, _, result in group]
        success.line(Series(name, [(rate, r.success) for rate, r in members]), number)
        points = [(rate, r.time_to_certificate(0.99)) for rate, r in members if r.times]
        duration.line(Series(name, points), number)
        duration.dots(Series("", points), number)
    return success.render() + duration.render()


def _other(result: FleetResult) -> str:
    scenario = result.scenario
    return f"{scenario.profile.name} {scenario.transport.value} {scenario.effective_block_size}"


def server_view(result: FleetResult) -> str | None:
    """Sessions and requests at the server over time; ``None`` of a server that is not ours."""
    server = result.server
    if server is None or not server.history:
        return None
    moments = [moment for moment, _, _ in server.history]
    chart = Chart(
        time_scale(moments, from_zero=True),
        count_scale([float(server.most_sessions), float(server.most_working)]),
        "time since the start",
        "at a time",
        "sessions and requests at the server over time",
    )
    chart.line(Series("sessions", [(m, s) for m, s, _ in server.history]), 0, steps=True)
    chart.line(Series("requests", [(m, w) for m, _, w in server.history]), 1, steps=True)
    return chart.render()


def energy(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    """Energy per device: radio and computing."""
    rows = []
    for result, label in zip(results, labels, strict=True):
        figures = summary(result)
        parts = [
            (colour(0), figures["radio mJ per device"]),
            (colour(4), figures["computing mJ per device"]),
        ]
        rows.append(Bar(label or "per device", parts))
    scale: Scale = count_scale([row.total for row in rows])
    chart = bars(rows, scale, "mJ per device, by table", "energy per device")
    return chart + legend([("air time", colour(0)), ("computing", colour(4))])


def headline(result: FleetResult) -> str:
    """A run in one sentence."""
    count = len(result.devices)
    return (
        f"{len(result.enrolled)} of {count} devices have a certificate; half of them after "
        f"{seconds(result.time_to_certificate(0.5))}, the last after "
        f"{seconds(result.time_to_certificate(1.0))}."
    )


def _few(results: Sequence[FleetResult], labels: Sequence[str]) -> list[tuple[FleetResult, str]]:
    return list(zip(results, labels, strict=True))[:_MOST_LINES]

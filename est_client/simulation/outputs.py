"""The results of runs as JSON, as CSV and as text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from est_client.simulation.link import Direction
from est_client.simulation.results import DeviceResult, FleetResult, quantile_of
from est_client.simulation.scenario import Scenario
from est_client.simulation.traffic import Flow, PhaseTraffic

#: Percentiles that summaries show.
PERCENTILES = (0.5, 0.9, 0.99, 1.0)


def described(scenario: Scenario) -> dict[str, Any]:
    """A scenario in a few words, for people and for files."""
    profile = scenario.profile
    link = profile.link
    return {
        "devices": scenario.devices,
        "profile": profile.name,
        "transport": scenario.transport.value,
        "identity": scenario.identity.value,
        "loss up": link.up.datagram_loss.rate,
        "loss down": link.down.datagram_loss.rate,
        "loss burst": link.up.datagram_loss.burst,
        "latency s": link.up.latency,
        "block size": scenario.effective_block_size,
        "mtu": scenario.effective_mtu,
        "ack timeout s": scenario.effective_ack_timeout,
        "microcontroller": scenario.microcontroller.name if scenario.microcontroller else "none",
        "arrivals": scenario.arrivals.pattern.value,
        "arrivals within s": scenario.arrivals.within,
        "power losses": scenario.power_losses,
        "renewals": scenario.renewals,
        "cell": scenario.cell,
        "root in handshake": scenario.send_root,
        "seed": scenario.seed,
    }


def summary(result: FleetResult) -> dict[str, Any]:
    """The figures of a run as one flat record."""
    total = sum(result.phases.values(), start=PhaseTraffic())
    flows = (total.up, total.down)
    devices = len(result.devices)
    certificates = [d.certificates for d in result.devices if d.certificates is not None]
    return {
        "devices": devices,
        "enrolled": len(result.enrolled),
        "success": result.success,
        **{f"seconds p{q * 100:g}": result.time_to_certificate(q) for q in PERCENTILES},
        "datagrams per device": sum(flow.datagrams for flow in flows) / devices,
        "octets per device": sum(flow.octets for flow in flows) / devices,
        "frames per device": sum(flow.frames for flow in flows) / devices,
        "air octets per device": sum(flow.air_octets for flow in flows) / devices,
        "air seconds per device": sum(flow.airtime for flow in flows) / devices,
        "repeats per device": total.repeats / devices,
        "round trips per device": total.round_trips / devices,
        "radio mJ per device": 1e3 * result.mean(d.radio_energy for d in result.devices),
        "computing mJ per device": 1e3 * result.mean(d.computing_energy for d in result.devices),
        "attempts per device": result.mean(d.attempts for d in result.devices),
        "power losses": sum(d.power_losses for d in result.devices),
        "renewals": sum(d.renewals for d in result.devices),
        "failed renewals": sum(d.failed_renewals for d in result.devices),
        "certificates in ledger": sum(certificates) if certificates else None,
        "most certificates of a device": max(certificates, default=None),
        "simulated seconds": result.simulated_seconds,
        "real seconds": result.real_seconds,
    }


def to_json(results: Sequence[FleetResult]) -> str:
    """Every run with its scenario, summary, phases, server and devices."""
    return json.dumps([_run(result) for result in results], indent=1, default=str) + "\n"


def _run(result: FleetResult) -> dict[str, Any]:
    server = result.server
    return {
        "scenario": described(result.scenario),
        "summary": summary(result),
        "phases": {phase.value: _phase(traffic) for phase, traffic in result.phases.items()},
        "not arrived": {fate.value: count for fate, count in result.not_arrived.items()},
        "failures": dict(result.failures),
        "setbacks": dict(result.setbacks),
        "server": None
        if server is None
        else {
            "answers": {f"{name} {word}": n for (name, word), n in sorted(server.answers.items())},
            "most sessions": server.most_sessions,
            "most requests at a time": server.most_working,
            "simulated latency s": {
                f"p{q * 100:g}": quantile_of(sorted(server.waits), q)
                for q in PERCENTILES
                if server.waits
            },
            "latency ms": {
                f"p{q * 100:g}": 1e3 * quantile_of(sorted(server.latencies), q)
                for q in PERCENTILES
                if server.latencies
            },
        },
        "devices": [_device(device) for device in result.devices],
    }


def _phase(traffic: PhaseTraffic) -> dict[str, Any]:
    return {
        "up": _flow(traffic.up),
        "down": _flow(traffic.down),
        "repeats": traffic.repeats,
        "round trips": traffic.round_trips,
        "seconds": traffic.seconds,
    }


def _flow(flow: Flow) -> dict[str, Any]:
    return {name.replace("_", " "): getattr(flow, name) for name in Flow.__slots__}


def _device(device: DeviceResult) -> dict[str, Any]:
    return {
        "udid": device.udid,
        "outcome": device.outcome.value,
        "arrived at": device.arrived_at,
        "seconds to certificate": device.seconds_to_certificate,
        "attempts": device.attempts,
        "failures": list(device.failures),
        "power losses": device.power_losses,
        "renewals": device.renewals,
        "failed renewals": device.failed_renewals,
        "certificates": device.certificates,
        "computing s": device.computing,
        "radio J": device.radio_energy,
        "computing J": device.computing_energy,
        "phases": {phase.value: _phase(traffic) for phase, traffic in device.phases.items()},
    }


def to_csv(results: Sequence[FleetResult]) -> str:
    """One line per device; the first columns say which run it was in."""
    text = io.StringIO()
    rows = [
        {**_run_columns(number, result), **_device_columns(device)}
        for number, result in enumerate(results)
        for device in result.devices
    ]
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _run_columns(number: int, result: FleetResult) -> dict[str, Any]:
    scenario = result.scenario
    return {
        "run": number,
        "profile": scenario.profile.name,
        "transport": scenario.transport.value,
        "block_size": scenario.effective_block_size,
        "loss": scenario.profile.link.up.datagram_loss.rate,
    }


def _device_columns(device: DeviceResult) -> dict[str, Any]:
    traffic = device.traffic
    columns: dict[str, Any] = {
        "udid": device.udid,
        "outcome": device.outcome.value,
        "arrived_at": device.arrived_at,
        "seconds_to_certificate": device.seconds_to_certificate,
        "attempts": device.attempts,
        "power_losses": device.power_losses,
        "renewals": device.renewals,
        "certificates": device.certificates,
        "repeats": traffic.repeats,
        "round_trips": traffic.round_trips,
    }
    for direction in Direction:
        flow = traffic.flow(direction)
        columns |= {f"{direction.value}_{name}": getattr(flow, name) for name in Flow.__slots__}
    columns |= {
        "computing_s": device.computing,
        "radio_j": device.radio_energy,
        "computing_j": device.computing_energy,
        "last_failure": device.failures[-1] if device.failures else "",
    }
    return columns


# -- text -------------------------------------------------------------------------------------


def final_table(result: FleetResult) -> str:
    """A run for people."""
    return "\n".join([*_head(result), "", *_phase_lines(result), "", *_tail(result)])


def _head(result: FleetResult) -> Iterator[str]:
    scenario, figures = result.scenario, summary(result)
    yield (
        f"{figures['devices']} devices over {scenario.profile.name}, "
        f"{scenario.transport.value}, {scenario.identity.value}"
    )
    yield f"enrolled         {figures['enrolled']} ({figures['success']:.1%})"
    for failure, count in result.failures.most_common(5):
        yield f"  without        {count}: {failure}"
    for failure, count in result.setbacks.most_common(3):
        yield f"  set back         {count}: {failure}"
    times = "  ".join(f"p{q * 100:g} {seconds(result.time_to_certificate(q))}" for q in PERCENTILES)
    yield f"to certificate   {times}"


def _phase_lines(result: FleetResult) -> Iterator[str]:
    yield (
        f"{'per device':12}{'octets up':>10}{'down':>8}{'datagrams':>11}{'frames':>8}"
        f"{'on air':>9}{'repeats':>9}{'trips':>7}{'seconds':>9}"
    )
    phases: Mapping[str, PhaseTraffic] = {
        **{phase.value: traffic for phase, traffic in result.phases.items()},
        "together": sum(result.phases.values(), start=PhaseTraffic()),
    }
    count = len(result.devices)
    for name, traffic in phases.items():
        up, down = traffic.up, traffic.down
        yield (
            f"{name:12}{up.octets / count:>10.0f}{down.octets / count:>8.0f}"
            f"{(up.datagrams + down.datagrams) / count:>11.1f}"
            f"{(up.frames + down.frames) / count:>8.1f}"
            f"{(up.air_octets + down.air_octets) / count:>9.0f}"
            f"{traffic.repeats / count:>9.2f}{traffic.round_trips / count:>7.1f}"
            f"{traffic.seconds / count:>9.2f}"
        )


def _tail(result: FleetResult) -> Iterator[str]:
    figures = summary(result)
    yield (
        f"energy           {figures['radio mJ per device']:.1f} mJ of radio and "
        f"{figures['computing mJ per device']:.1f} mJ of computing per device, by table"
    )
    if lost := ", ".join(f"{n} {fate.value}" for fate, n in result.not_arrived.most_common()):
        yield f"not arrived      {lost}"
    if figures["power losses"]:
        yield f"power losses     {figures['power losses']}"
    if figures["renewals"] or figures["failed renewals"]:
        yield f"renewals         {figures['renewals']}, failed {figures['failed renewals']}"
    if result.server is not None:
        yield from _server_lines(result)
    speed = f"simulated {seconds(result.simulated_seconds)} in {seconds(result.real_seconds)}"
    yield f"this run         {speed}"


def _server_lines(result: FleetResult) -> Iterator[str]:
    server = result.server
    assert server is not None
    figures = summary(result)
    yield (
        f"ledger           {figures['certificates in ledger']} certificates, at most "
        f"{figures['most certificates of a device']} of one device"
    )
    answers = ", ".join(
        f"{count} {operation} {word}" for (operation, word), count in sorted(server.answers.items())
    )
    yield f"server           {answers or 'no request'}"
    if server.latencies:
        ordered = sorted(server.latencies)
        yield (
            f"                 {server.most_sessions} sessions and {server.most_working} requests "
            f"at a time at most, latency p50 {1e3 * quantile_of(ordered, 0.5):.1f} ms, "
            f"p99 {1e3 * quantile_of(ordered, 0.99):.1f} ms of real time"
        )
        waits = sorted(server.waits)
        if waits[-1]:
            yield (
                f"                 answers after p50 {seconds(quantile_of(waits, 0.5))}, "
                f"p99 {seconds(quantile_of(waits, 0.99))} of simulated time"
            )


def seconds(value: float) -> str:
    """A time for people: ``1.23 s``, ``4.5 min``, ``6.7 h``, ``8.9 d``."""
    if value != value:
        return "never"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if value < limit:
            return f"{value / unit:.3g} {name}" if value < 100 else f"{value / unit:.0f} {name}"
    return f"{value / 86400:.3g} d"


def comparison_table(results: Sequence[FleetResult], labels: Sequence[str]) -> str:
    """Several runs for people, one line each."""
    width = max(len(label) for label in labels) + 2
    lines = [
        f"{'':{width}}{'enrolled':>9}{'p50':>10}{'p99':>10}{'octets':>9}{'frames':>8}"
        f"{'on air':>9}{'repeats':>9}{'mJ':>8}"
    ]
    for label, result in zip(labels, results, strict=True):
        figures = summary(result)
        energy = figures["radio mJ per device"] + figures["computing mJ per device"]
        lines.append(
            f"{label:{width}}{figures['success']:>9.1%}"
            f"{seconds(figures['seconds p50']):>10}{seconds(figures['seconds p99']):>10}"
            f"{figures['octets per device']:>9.0f}{figures['frames per device']:>8.1f}"
            f"{figures['air octets per device']:>9.0f}{figures['repeats per device']:>9.2f}"
            f"{energy:>8.1f}"
        )
    return "\n".join(lines)

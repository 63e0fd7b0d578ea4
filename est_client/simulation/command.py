"""``est-client simulate``: from options to runs and their reports."""

from __future__ import annotations

import argparse
import csv
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from est_client.durable_files import write_durably
from est_client.location import ServerLocation
from est_client.simulation import outputs
from est_client.simulation.command_scenario import scenario_of
from est_client.simulation.compare import Axis, Variant, variants
from est_client.simulation.fleet import Target, simulate, simulate_elsewhere
from est_client.simulation.identities import Factory
from est_client.simulation.progress import progress_for
from est_client.simulation.report import prepare_report, write_report
from est_client.simulation.results import FleetResult
from est_client.simulation.scenario import IdentityModel, Scenario
from est_client.trust import TrustDatabase
from est_protocol.errors import ConfigurationError
from est_protocol.keys import spki_sha256


def simulate_fleets(options: argparse.Namespace) -> int:
    """Run what ``options`` ask for, print tables and write reports.

    :return: the exit status: 1 if a device has no certificate, or not in time; else 0.
    :raises ConfigurationError: the options make no sense.
    """
    if options.write_list:
        write_durably(
            Path(options.write_list), device_list(scenario_of(options)).encode(), mode=0o644
        )
        return 0
    axes = [Axis.parse(text) for text in options.compare]
    runs = variants(options, axes) if axes else [Variant((), scenario_of(options))]
    if options.report:
        prepare_report(Path(options.report))
    results = []
    with _quiet_log(options):
        for number, variant in enumerate(runs, 1):
            title = f"{number}/{len(runs)} {variant.label}" if axes else "enrolling"
            results.append(_run(variant.scenario, title, options))
            if axes:
                print(f"-- {variant.label}")
            print(outputs.final_table(results[-1]) + "\n", flush=True)
    labels = [variant.label for variant in runs]
    if axes:
        print(outputs.comparison_table(results, labels))
    _write(options, results, labels)
    return 0 if all(_is_success(result, options.require_within) for result in results) else 1


def _run(scenario: Scenario, title: str, options: argparse.Namespace) -> FleetResult:
    with progress_for(scenario.devices, title, quiet=options.quiet) as progress:
        if options.url is None:
            return simulate(scenario, watch=progress)
        return simulate_elsewhere(scenario, _target(options, scenario), watch=progress)


def _target(options: argparse.Namespace, scenario: Scenario) -> Target:
    if options.ca_cert is None:
        raise ConfigurationError("--url needs --ca-cert FILE: what the devices are to trust")
    location = ServerLocation.parse(options.url)
    if location.transport is not scenario.transport:
        raise ConfigurationError(
            f"{options.url} is not {scenario.transport.value}; say --transport "
            f"{location.transport.value}"
        )
    return Target(
        location.host,
        location.port,
        TrustDatabase.load(options.ca_cert).explicit,
        label=location.label,
        root=location.root,
    )


def device_list(scenario: Scenario) -> str:
    """The fleet as a CSV device list, as ``est-server devices import`` takes it.

    :raises ConfigurationError: a list does not say what its devices have.
    """
    if scenario.identity is not IdentityModel.BARE_KEY:
        raise ConfigurationError("a device list is for --identity bare-key")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["udid", "spki_sha256"])
    factory = Factory(scenario.seed, scenario.identity, datetime.now(UTC))
    for device in factory.devices(scenario.devices):
        digest = spki_sha256(device.credentials.key.public_key())
        writer.writerow([device.udid, digest.hex()])
    return text.getvalue()


def _write(
    options: argparse.Namespace, results: Sequence[FleetResult], labels: Sequence[str]
) -> None:
    if options.json:
        write_durably(Path(options.json), outputs.to_json(results).encode(), mode=0o644)
    if options.csv:
        write_durably(Path(options.csv), outputs.to_csv(results).encode(), mode=0o644)
    if options.report:
        print(f"report: {write_report(Path(options.report), results, labels)}")


def _is_success(result: FleetResult, within: float | None) -> bool:
    if result.success < 1:
        return False
    return within is None or result.time_to_certificate(1.0) <= within


@contextmanager
def _quiet_log(options: argparse.Namespace) -> Iterator[None]:
    """Thousands of devices lose thousands of answers; that is counted, not logged."""
    if options.verbose or options.debug:
        yield
        return
    loggers = [logging.getLogger(name) for name in ("est_client", "est_protocol", "est_server")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

"""The conformance runner at our own server: everything that binds passes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from est_client.conformance import Bench, BenchLimits, Outcome, Result, all_rows, report, run
from est_client.location import ServerLocation
from est_protocol.key_recipients import SymmetricKey
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials
from est_server.coaps.server import CoapsEndpoint
from est_server.coaps.server import serve as serve_coaps
from est_server.https import HttpsEndpoint, est_application
from est_server.https import serve as serve_https
from tests.behaviour.world import KEYS, LABEL, SEALED_KEYS, Device, World

#: Recommendations that our server does not follow, each a decision.
NOT_FOLLOWED = {
    # Names would keep clients with a self-signed or birth certificate from presenting it.
    "TLS-18",
}
GENERATED_KEY_ROWS = {
    Transport.HTTPS: ("SKG-04", "SKG-06", "SKG-08"),
    Transport.COAPS: ("CF-08", "CF-11", "CF-13", "CF-16"),
}
#: Of a device that shares a key with the server; for signatures only, then for key agreement.
ENCRYPTED_KEY_ROWS = {
    Transport.HTTPS: ("SKG-13", "SKG-14", "SKG-15", "SKG-18"),
    Transport.COAPS: ("SKG-13", "SKG-14", "SKG-15", "CF-14", "CF-15"),
}
SHARED = SymmetricKey(b"kek 7", bytes(range(32)))
BAD = (Outcome.FAIL, Outcome.ERROR)


@asynccontextmanager
async def serving(world: World, transport: Transport) -> AsyncIterator[str]:
    credentials, anchors = world.server_credentials, world.server_anchors
    if transport is Transport.COAPS:
        endpoint = CoapsEndpoint(credentials=credentials, anchors=anchors, port=0)
        async with await serve_coaps(world.service, endpoint) as coaps_server:
            yield f"coaps://127.0.0.1:{coaps_server.port}"
        return
    app = web.Application()
    app.add_subapp("/.well-known/est", est_application(world.service))
    https_endpoint = HttpsEndpoint(credentials=credentials, anchors=anchors, port=0)
    async with await serve_https(app, https_endpoint) as https_server:
        yield f"https://localhost:{https_server.port}"


async def results_of(
    world: World,
    device: Device | None,
    transport: Transport = Transport.HTTPS,
    *,
    label: str | None = None,
    shared_key: SymmetricKey | None = None,
    limits: BenchLimits | None = None,
) -> dict[str, Result]:
    async with serving(world, transport) as url:
        location = ServerLocation.parse(url)
        bench = Bench(
            location.with_label(label) if label else location,
            world.client_anchors,
            identity=LocalCredentials(device.key, device.chain) if device else None,
            shared_key=shared_key,
            limits=limits or BenchLimits(seconds=240, patience=20),
        )
        results = await run(bench, all_rows(transport))
    return {result.row.id: result for result in results}


def write_reports(name: str, results: dict[str, Result]) -> None:
    """Leave the run behind as a table, JSON and JUnit XML, where somebody wants to see it."""
    wanted = os.environ.get("EST_CONFORMANCE_REPORTS")
    if not wanted:
        return
    folder, at = Path(wanted), datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(results.values())
    (folder / f"{name}.txt").write_text(report.table(rows) + "\n")
    (folder / f"{name}.json").write_text(report.to_json(rows, url=name, at=at))
    (folder / f"{name}.xml").write_text(report.to_junit(rows, url=name, at=at))


def passed(results: dict[str, Result]) -> int:
    return sum(result.outcome is Outcome.PASS for result in results.values())


def bad(results: dict[str, Result]) -> dict[str, str]:
    return {r.row.id: r.evidence for r in results.values() if r.outcome in BAD}


@pytest.mark.parametrize(("transport", "least"), [(Transport.HTTPS, 55), (Transport.COAPS, 60)])
@pytest.mark.parametrize("born", [False, True], ids=["bare key", "birth certificate"])
async def test_our_server_passes(
    world: World, transport: Transport, least: int, born: bool
) -> None:
    device = await world.list_device("a", born=born)
    results = await results_of(world, device, transport)
    write_reports(f"{transport.value}-{'birth-certificate' if born else 'bare-key'}", results)
    assert set(bad(results)) <= NOT_FOLLOWED, bad(results)
    assert passed(results) >= least


@pytest.mark.parametrize("transport", Transport)
async def test_under_a_label(world: World, transport: Transport) -> None:
    results = await results_of(world, await world.list_device("a"), transport, label=LABEL)
    assert set(bad(results)) <= NOT_FOLLOWED, bad(results)
    row = "HTTP-04" if transport is Transport.HTTPS else "CU-10"
    assert results[row].outcome is Outcome.PASS
    assert results["CA-06"].outcome is Outcome.PASS


@pytest.mark.parametrize("transport", Transport)
async def test_where_keys_are_generated(world: World, transport: Transport) -> None:
    device = await world.list_device("a", born=True)
    results = await results_of(world, device, transport, label=KEYS)
    assert set(bad(results)) <= NOT_FOLLOWED, bad(results)
    rows = GENERATED_KEY_ROWS[transport]
    assert {id: results[id].outcome for id in rows} == dict.fromkeys(rows, Outcome.PASS)


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("label", [KEYS, SEALED_KEYS])
async def test_where_keys_are_encrypted(world: World, transport: Transport, label: str) -> None:
    device = await world.list_device("a", born=True)
    world.known_keys.symmetric[SHARED.identifier, device.udid] = SHARED.key
    results = await results_of(world, device, transport, label=label, shared_key=SHARED)
    assert set(bad(results)) <= NOT_FOLLOWED, bad(results)
    rows = (*ENCRYPTED_KEY_ROWS[transport], "SKG-19")
    assert {id: results[id].outcome for id in rows} == dict.fromkeys(rows, Outcome.PASS)


@pytest.mark.parametrize("transport", Transport)
async def test_where_certificates_are_for_key_agreement(world: World, transport: Transport) -> None:
    usual = world.service._labels[KEYS]
    usages = frozenset({"digital_signature", "key_agreement", "key_encipherment"})
    profile = replace(usual.profile, key_usages=usages)
    world.service._labels[KEYS] = replace(usual, profile=profile)
    device = await world.list_device("a", born=True)
    results = await results_of(world, device, transport, label=KEYS)
    assert set(bad(results)) <= NOT_FOLLOWED, bad(results)
    rows = {*ENCRYPTED_KEY_ROWS[transport], "SKG-17"} - {"SKG-15"}
    if transport is Transport.HTTPS:
        rows.add("SKG-16")
    assert {id: results[id].outcome for id in rows} == dict.fromkeys(rows, Outcome.PASS)


@pytest.mark.parametrize("transport", Transport)
async def test_where_no_keys_are_generated(world: World, transport: Transport) -> None:
    results = await results_of(world, await world.list_device("a", born=True), transport)
    rows = GENERATED_KEY_ROWS[transport]
    assert {id: results[id].outcome for id in rows} == dict.fromkeys(rows, Outcome.NOT_APPLICABLE)


async def test_anonymously(world: World) -> None:
    results = await results_of(world, None)
    assert set(bad(results)) <= NOT_FOLLOWED, bad(results)
    assert passed(results) >= 25
    assert results["SE-03"].outcome is Outcome.NOT_APPLICABLE
    assert "needs a device key" in results["SE-03"].evidence
    assert world.issued_count() == 0


async def test_device_that_gets_nothing_has_the_rest_checked(world: World) -> None:
    results = await results_of(world, world.unlisted_device("stranger"))
    assert set(bad(results)) <= NOT_FOLLOWED, bad(results)
    assert passed(results) >= 25
    assert results["POP-03"].outcome is Outcome.NOT_APPLICABLE
    assert "403" in results["POP-03"].evidence


async def test_device_that_may_not_even_read_is_no_fault_of_the_server(world: World) -> None:
    """RFC 9148 section 4: on CoAPS every request is authenticated, that for /crts too."""
    results = await results_of(world, world.unlisted_device("stranger"), Transport.COAPS)
    assert bad(results) == {}
    assert results["CA-01"].outcome is Outcome.NOT_APPLICABLE
    assert "4.03" in results["CA-01"].evidence
    assert results["CD-07"].outcome is Outcome.PASS


async def test_limit_of_connections_ends_the_checks(world: World) -> None:
    limits = BenchLimits(connections=10, seconds=240, patience=20)
    results = await results_of(world, await world.list_device("a"), limits=limits)
    assert "10 connections" in results["STAT-12"].evidence
    assert results["STAT-12"].outcome is Outcome.ERROR

"""The recorded results are those of the scenarios that there are."""

from __future__ import annotations

import json
from pathlib import Path

from docs.interop_page import scenarios
from interop.matrix import FAILED, RESULTS
from interop.registry import CLIENTS

_CLIENT_SCENARIOS = set(scenarios(Path(__file__).with_name("test_clients.py")))


def test_every_client_has_played_every_scenario() -> None:
    peers = json.loads(RESULTS.read_text())["peers"]
    for client in CLIENTS:
        assert set(peers[client.name]["scenarios"]) == _CLIENT_SCENARIOS, client.name


def test_what_is_recorded_has_passed() -> None:
    peers = json.loads(RESULTS.read_text())["peers"]
    assert {
        (peer, name)
        for peer, record in peers.items()
        for name, result in record["scenarios"].items()
        if result == FAILED
    } == set()

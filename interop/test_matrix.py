"""The recorded results are those of the scenarios that there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.interop_page import scenarios
from interop.matrix import FAILED, RESULTS
from interop.registry import CLIENTS
from interop.servers import SERVERS

_HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _recorded(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--record"):
        pytest.skip("the record is written at the end of this run")


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("test_clients.py", [client.name for client in CLIENTS]),
        ("test_servers.py", [server.name for server in SERVERS]),
        ("libest/test_proxy.py", ["libest-estproxy", "libest-estproxy-coap"]),
    ],
)
def test_every_peer_has_played_every_scenario(file: str, names: list[str]) -> None:
    peers = json.loads(RESULTS.read_text())["peers"]
    for name in names:
        assert set(peers[name]["scenarios"]) == set(scenarios(_HERE / file)), name


def test_what_is_recorded_has_passed() -> None:
    peers = json.loads(RESULTS.read_text())["peers"]
    assert {
        (peer, name)
        for peer, record in peers.items()
        for name, result in record["scenarios"].items()
        if result == FAILED
    } == set()

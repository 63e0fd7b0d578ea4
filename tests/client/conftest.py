"""What the tests of the client share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.memory import MemoryServer
from tests.client.running import CA, Run
from tests.pki import make_server


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run(tmp_path, MemoryServer(CA, make_server(CA)))
    monkeypatch.setattr("est_client.command_inputs.connector_for", run.connector_for)
    return run

"""The server may have as many files open as its limits let clients open connections."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from est_server.config import load_config
from est_server.open_files import files_needed
from tests.server.served_process import ROOT, Deployment, deploy, serving


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """A server that also serves CRLs."""
    deployment = deploy(tmp_path)
    deployment.change("[store]", "[crl]\nport = 0\n\n[store]")
    return deployment


def test_all_listeners_count(deployment: Deployment) -> None:
    assert files_needed(load_config(deployment.config)) == 1000 + 500 + 128


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_soft_limit_is_raised(deployment: Deployment, workers: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1628:
        pytest.skip(f"the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with serving(deployment, "--workers", workers) as server:
            for pid in [server.process.pid, *server.workers]:
                limits = Path(f"/proc/{pid}/limits").read_text()
                found = re.search(r"Max open files\s+(\d+)", limits)
                assert found is not None
                assert int(found[1]) == 1628
            assert "open files" not in server.errors
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_hard_limit_that_is_too_low_is_said(deployment: Deployment) -> None:
    command = f"ulimit -n 256; exec {sys.executable} -m est_server.cli serve"
    process = subprocess.Popen(
        ["sh", "-c", f"{command} --config {deployment.config}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        process.terminate()
        _, errors = process.communicate()
    assert "1628 open files, the system allows 256" in errors

"""The steps of docs/how-to/run-in-production.md, where all but the state is read-only."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 120
#: Nobody on this machine.
USER = 47_110
AS_USER = f"setpriv --reuid {USER} --regid {USER} --clear-groups --"
COMMAND = f"{shlex.quote(sys.executable)} -m est_server.cli"


def may_mount() -> bool:
    """Whether this process may have a file system of its own, and others may read its programs."""
    probe = f"mount -t tmpfs tmpfs /srv && {AS_USER} {COMMAND} --help"
    return run_apart(probe).returncode == 0


def run_apart(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script whose mounts nobody else sees."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def steps_of_the_page() -> str:
    """What the page has root do, in folders that are there, for a user that need not be."""
    page = (ROOT / "docs" / "how-to" / "run-in-production.md").read_text()
    [steps] = re.findall(r"```sh\nuseradd [^\n]*\n(.*?)```", page, re.S)
    for old, new in {
        "est-server init /etc/est": f"{COMMAND} init /srv/etc/est --https-port 0 --coaps-port 0",
        "-o est -g est": f"-o {USER} -g {USER}",
        "est:est": f"{USER}:{USER}",
        "/var/lib/": "/srv/lib/",
        " /etc/": " /srv/etc/",
        "/root/": "/srv/root/",
    }.items():
        assert old in steps
        steps = steps.replace(old, new)
    return str(steps)


def test_what_init_made_is_served_where_nothing_but_the_state_can_be_written() -> None:
    if os.getuid() != 0 or not may_mount():
        pytest.skip("needs root and file systems of its own")
    config = "/srv/etc/est/est-server.toml"
    done = run_apart(
        f"""
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir /srv/etc /srv/lib /srv/root
{steps_of_the_page()}
printf 'udid,spki_sha256\\na,%064d\\n' 1 > /srv/list.csv
{AS_USER} {COMMAND} devices import --allow-unsigned /srv/list.csv --config {config}
{COMMAND} ca server-certificate --new-key --config {config}
mount --bind /srv/etc /srv/etc
mount -o remount,bind,ro /srv/etc
for workers in 1 2; do
    mkfifo /srv/said
    {AS_USER} {COMMAND} serve --workers $workers --config {config} > /srv/said &
    read ready < /srv/said
    echo "$ready"
    kill $!
    wait $!
    rm /srv/said
done
echo of others:
find /srv/etc /srv/lib -mindepth 1 ! -user {USER}
"""
    )
    assert done.returncode == 0, done.stderr
    said, others = done.stdout.split("of others:\n")
    assert said.count("\nready https=0.0.0.0:") == 2, done.stderr
    assert others == ""

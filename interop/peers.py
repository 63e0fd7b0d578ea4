"""The programs that other people wrote: where they are, or why a test cannot run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

#: Set to 1 where every peer that Debian has must be there, as in continuous integration.
REQUIRED = "EST_REQUIRE_PEERS"

#: Where libest is installed: the ``--prefix`` that it was configured with.
LIBEST_PREFIX = "LIBEST_PREFIX"

#: The Debian package that each program or library comes in.
_PACKAGES = {
    "coap-client-openssl": "libcoap3-bin",
    "coap-client-gnutls": "libcoap3-bin",
    "curl": "curl",
    "openssl": "openssl",
    "gnutls-cli": "gnutls-bin",
    "pki": "strongswan-pki",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "nginx": "nginx-light",
    "tshark": "tshark",
    "bcpkix.jar": "libbcpkix-java",
    "bcprov.jar": "libbcprov-java",
    "bcutil.jar": "libbcutil-java",
    "bctls.jar": "libbctls-java",
}

_JARS = Path("/usr/share/java")


def find_peer(program: str) -> str:
    """The path of ``program``; without it the test is skipped, or fails if peers are required."""
    # Servers are where not every user's path leads.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    return shutil.which(program, path=path) or _missing(program)


def find_jar(name: str) -> Path:
    """The path of a Java library; likewise."""
    path = _JARS / name
    return path if path.exists() else Path(_missing(name))


def find_libest(program: str) -> str:
    """The path of a program of libest's; without libest the test is skipped."""
    prefix = os.environ.get(LIBEST_PREFIX)
    if not prefix:
        pytest.skip(f"libest is not packaged; {LIBEST_PREFIX} names no installation of it")
    path = Path(prefix) / "bin" / program
    if not path.exists():
        pytest.fail(f"{LIBEST_PREFIX}: there is no {path}", pytrace=False)
    return str(path)


def _missing(name: str) -> str:
    reason = f"{name} is not installed (Debian package {_PACKAGES[name]})"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1 wants every peer", pytrace=False)
    pytest.skip(reason)

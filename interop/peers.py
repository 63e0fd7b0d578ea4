"""The programs that other people wrote: where they are, or why a test cannot run."""

from __future__ import annotations

import os
import shutil

import pytest

#: Set to 1 where every peer has to be there, as in continuous integration.
REQUIRED = "EST_REQUIRE_PEERS"

#: The Debian package that each program comes in.
_PACKAGES = {
    "coap-client-openssl": "libcoap3-bin",
    "coap-client-gnutls": "libcoap3-bin",
    "curl": "curl",
    "openssl": "openssl",
    "gnutls-cli": "gnutls-bin",
    "pki": "strongswan-pki",
}


def find_peer(program: str) -> str:
    """The path of ``program``; without it the test is skipped, or fails if peers are required."""
    path = shutil.which(program)
    if path is not None:
        return path
    reason = f"{program} is not installed (Debian package {_PACKAGES[program]})"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1 wants every peer", pytrace=False)
    pytest.skip(reason)

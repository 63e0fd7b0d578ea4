"""Both of libcoap's TLS back ends in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.libcoap.driver import CoapClient
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.transcript import Transcript


@pytest.fixture(params=["coap-client-openssl", "coap-client-gnutls"])
def coap(
    request: pytest.FixtureRequest,
    server: ServerUnderTest,
    transcript: Transcript,
    tmp_path: Path,
) -> CoapClient:
    """A client that trusts the server."""
    return CoapClient(
        find_peer(request.param), transcript, url=server.coaps, ca=server.ca, directory=tmp_path
    )

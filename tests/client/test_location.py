"""What an operator may write for a server."""

from __future__ import annotations

import pytest

from est_client.location import ServerLocation
from est_protocol.errors import ConfigurationError
from est_protocol.messages import Transport

WELL_KNOWN = (".well-known", "est")


@pytest.mark.conformance("CL-07", "CU-12")
@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://est.example", ("https", "est.example", 443, None, WELL_KNOWN)),
        ("https://est.example:8443/", ("https", "est.example", 8443, None, WELL_KNOWN)),
        ("HTTPS://h/.well-known/est", ("https", "h", 443, None, WELL_KNOWN)),
        ("https://h/.well-known/est/", ("https", "h", 443, None, WELL_KNOWN)),
        ("https://h/.well-known/est/lab%20el", ("https", "h", 443, "lab el", WELL_KNOWN)),
        ("https://[::1]:8443", ("https", "::1", 8443, None, WELL_KNOWN)),
        ("coaps://127.0.0.1", ("coaps", "127.0.0.1", 5684, None, WELL_KNOWN)),
        ("coaps://h/.well-known/est/a", ("coaps", "h", 5684, "a", WELL_KNOWN)),
        ("coaps://h/est", ("coaps", "h", 5684, None, ("est",))),
        ("coaps://h/est/a", ("coaps", "h", 5684, "a", ("est",))),
    ],
)
def test_understands(url: str, location: tuple[str, str, int, str | None, tuple[str, ...]]) -> None:
    transport, *rest = location
    assert ServerLocation.parse(url) == ServerLocation(Transport(transport), *rest)  # type: ignore[arg-type]


@pytest.mark.conformance("HTTP-01", "CU-12")
@pytest.mark.parametrize(
    "url",
    [
        "http://est.example",
        "coap://est.example",
        "est.example",
        "",
        "https://",
        "https://:8443",
        "https://h:port",
        "https://h:99999",
        "https://[::1",
        "https://user:password@h",
        "https://h/?a=b",
        "https://h/#a",
        "https://h/est",
        "https://h/.well-known/est/cacerts",
        "https://h/.well-known/est/a/b",
        "coaps://h/est/crts",
    ],
)
def test_refuses(url: str) -> None:
    with pytest.raises(ConfigurationError):
        ServerLocation.parse(url)


def test_a_label_may_be_said_twice_but_not_differently() -> None:
    location = ServerLocation.parse("https://h/.well-known/est/a")
    assert location.with_label("a") == location
    assert ServerLocation.parse("https://h").with_label("a") == location
    for label in ("b", "", "a/b", "simpleenroll"):
        with pytest.raises(ConfigurationError):
            location.with_label(label)

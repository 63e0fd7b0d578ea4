"""Where the EST resources of a CoAPS server are: what is read, and what is not followed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_client.connectors import ConnectorOptions, connector_for
from est_client.discovery import EstLink, paths_under, read_links
from est_client.redirects import Origin
from est_protocol.errors import ConfigurationError, MessageError

SERVER = Origin.of("est.example", 5684)

#: RFC 9148 section 4.1, its first example of discovery.
RFC_9148 = (
    b'</est/crts>;rt="ace.est.crts";ct="281 287",</est/sen>;rt="ace.est.sen";ct="281 287",'
    b'</est/sren>;rt="ace.est.sren";ct="281 287",</est/att>;rt="ace.est.att";ct=285,'
    b'</est/skg>;rt="ace.est.skg";ct=62,</est/skc>;rt="ace.est.skc";ct=62'
)


def links(*hrefs: str) -> bytes:
    """A link to each, for the operation that its last segment names."""
    return ",".join(f'<{h}>;rt="ace.est.{h.rsplit("/", 1)[1]}"' for h in hrefs).encode()


def place(path: str) -> tuple[str, ...]:
    return tuple(f"{path}/{name}" for name in ("crts", "sen", "sren"))


@pytest.mark.conformance("CU-09")
def test_the_example_of_the_rfc() -> None:
    paths = paths_under(read_links(RFC_9148, SERVER), None)
    assert paths == {n: ("est", n) for n in ("crts", "sen", "sren", "att", "skg", "skc")}


@pytest.mark.conformance("CU-08", "CU-09")
def test_an_absolute_link_to_the_server_itself_is_a_path_on_it() -> None:
    server = Origin.of("2001:db8::1", 61617)
    found = read_links(links(*place("coaps://[2001:DB8:0::1]:61617/est")), server)
    assert paths_under(found, None)["sen"] == ("est", "sen")


@pytest.mark.conformance("CU-09")
@pytest.mark.parametrize(
    "base",
    [
        "coaps://elsewhere.example/est",
        "coaps://est.example:5685/est",
        "coap://est.example:5684/est",
        "https://est.example:5684/est",
        "coaps://user@est.example/est",
        "//elsewhere.example/est",
        "est",
        "",
        "/..",
        "/est/./x",
        "/est/%2e%2e",
        "/a//b",
        "/" + "/".join("abcdefgh"),
        "/" + "x" * 256,
        "coaps://[::1",
        "coaps://est.example:port/est",
        "/%ff",
    ],
)
def test_nothing_else_is_followed(base: str, caplog: pytest.LogCaptureFixture) -> None:
    targets = (f"{base}/{name}" if base else name for name in ("crts", "sen", "sren"))
    payload = ",".join(
        f"<{t}>;rt=ace.est.{n}" for t, n in zip(targets, ("crts", "sen", "sren"), strict=True)
    )
    found = read_links(payload.encode(), SERVER)
    assert found == ()
    assert "not followed" in caplog.text
    with pytest.raises(MessageError, match="does not say where"):
        paths_under(found, None)


def test_a_query_is_no_resource() -> None:
    assert read_links(b"</est/crts?a=b>;rt=ace.est.crts", SERVER) == ()


@pytest.mark.conformance("CU-09", "CU-10")
def test_a_label_has_a_place_of_its_own() -> None:
    found = read_links(links(*place("/e"), *place("/e/a"), *place("/e/b%20c")), SERVER)
    assert paths_under(found, None)["crts"] == ("e", "crts")
    assert paths_under(found, "a")["crts"] == ("e", "a", "crts")
    assert paths_under(found, "b c")["crts"] == ("e", "b c", "crts")
    with pytest.raises(MessageError, match="of the label 'c'"):
        paths_under(found, "c")


def test_names_say_nothing_where_there_is_no_choice() -> None:
    payload = b'</1>;rt=ace.est.crts,</2/x>;rt=ace.est.sen,</3>;if=a;rt="b ace.est.sren c"'
    assert paths_under(read_links(payload, SERVER), None) == {
        "crts": ("1",),
        "sen": ("2", "x"),
        "sren": ("3",),
    }


@pytest.mark.parametrize(
    "payload", [links(*place("/a"), *place("/b")), links("/a/crts", "/a/sen"), b"", b"</x>;rt=y"]
)
def test_what_is_not_said_is_not_guessed(payload: bytes) -> None:
    with pytest.raises(MessageError):
        paths_under(read_links(payload, SERVER), None)


@pytest.mark.parametrize(
    "payload",
    [b"est/crts", b"</a", b"</a>x", b'</a>;rt="x', b"</a>;;", b"\xff", b"</a><b>", b"</a>," * 300],
)
def test_what_is_no_link_format(payload: bytes) -> None:
    with pytest.raises(MessageError):
        read_links(payload, SERVER)


@given(st.binary(max_size=100))
def test_random_octets_raise_nothing_else(payload: bytes) -> None:
    try:
        read_links(payload, SERVER)
    except MessageError:
        return


@given(st.integers(0, len(RFC_9148) - 1), st.integers(0, 255))
def test_mutated_octets_raise_nothing_else(index: int, octet: int) -> None:
    payload = bytearray(RFC_9148)
    payload[index] = octet
    try:
        assert all(isinstance(link, EstLink) for link in read_links(bytes(payload), SERVER))
    except MessageError:
        return


def test_there_is_nothing_to_discover_over_https() -> None:
    with pytest.raises(ConfigurationError, match="CoAPS only"):
        connector_for("https://h", ConnectorOptions(discover=True))

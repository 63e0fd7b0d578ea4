"""Which clients play the shared scenarios."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from interop.bouncycastle.peer import BouncyCastle
from interop.client_peer import Bench, ClientPeer
from interop.curl.peer import curl_tls12, curl_tls13
from interop.libcoap.peer import libcoap_gnutls, libcoap_openssl
from interop.libest.client import EstClient
from interop.strongswan.peer import StrongSwan

#: Names one more client: ``package.module:Class``.
OWN_CLIENT = "EST_INTEROP_CLIENT"


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the matrix.

    :param name: as ``pytest -k`` knows it.
    :param make: sets it up; skips the test where the peer is not installed.
    :param transport: ``HTTPS`` or ``CoAPS``.
    :param fronted: labels that it cannot put into the path of its requests.
    :param cannot: why not, for labels that ask for what it cannot do.
    :param legacy: whether it plays with the legacy switches of all labels on.
    :param legacy_labels: labels that it needs them for, where it can do without otherwise.
    :param enrolls_with_certificate: whether it can present a certificate at a first enrollment.
    """

    name: str
    make: Callable[[Bench], ClientPeer]
    transport: str = "HTTPS"
    fronted: frozenset[str] = frozenset()
    cannot: Mapping[str, str] = field(default_factory=dict)
    enrolls_with_certificate: bool = True
    legacy: bool = False
    legacy_labels: frozenset[str] = frozenset()


_BASIC_ONLY = "knows Basic, and no Digest"

_NO_HTTP = dict.fromkeys(
    ("basic", "digest", "digest-md5", "both"), "there is no HTTP authentication on CoAP"
)

CLIENTS = (
    Client("curl-tls12", curl_tls12),
    Client("curl-tls13", curl_tls13),
    Client(
        "strongswan",
        StrongSwan,
        fronted=frozenset(
            {"basic", "digest", "digest-md5", "linked", "manual-basic", "reviewed-basic"}
        ),
        cannot={
            "digest": _BASIC_ONLY,
            "digest-md5": _BASIC_ONLY,
            "second": "knows no path segments",
        },
        enrolls_with_certificate=False,
    ),
    Client(
        "bouncycastle",
        BouncyCastle,
        legacy=True,
    ),
    Client(
        "libest-estclient",
        EstClient,
        # Its Digest is computed over a path without the segment.
        fronted=frozenset({"digest-md5"}),
        # It reads no part of the answer without a Content-Transfer-Encoding.
        legacy_labels=frozenset({"keygen"}),
        cannot={"digest": "knows Digest with MD5 only"},
    ),
    Client("libcoap-openssl", libcoap_openssl, "CoAPS", cannot=_NO_HTTP),
    Client("libcoap-gnutls", libcoap_gnutls, "CoAPS", cannot=_NO_HTTP),
)


def clients() -> list[Client]:
    """All of them, and yours if the environment names it."""
    own = os.environ.get(OWN_CLIENT)
    if not own:
        return list(CLIENTS)
    module, _, attribute = own.partition(":")
    return [*CLIENTS, Client("own", getattr(importlib.import_module(module), attribute))]

"""libcoap's clients, as the shared scenarios want them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cbor2

from interop.by_openssl import OpenSsl
from interop.client_peer import Bench, CannotPlay, Credentials, Order, Outcome
from interop.libcoap.driver import Answer, CoapClient
from interop.peers import find_peer

_NO_HTTP = "there is no HTTP authentication on CoAP"


class Libcoap:
    """One of libcoap's clients."""

    def __init__(self, bench: Bench, *, program: str) -> None:
        self._bench = bench
        self._client = CoapClient(
            find_peer(program),
            bench.transcript,
            url=bench.coaps,
            ca=bench.ca,
            directory=bench.directory,
        )

    def ca_certificates(self, credentials: Credentials | None, label: str | None) -> list[Path]:
        answer = self._client.get(_path("crts", label), credentials)
        assert answer.code == "2.05", answer.text
        return self._bench.openssl.unpack(answer.payload)

    def csr_attributes(self, credentials: Credentials | None, label: str | None) -> bytes:
        answer = self._client.get(_path("att", label), credentials)
        assert (answer.code, answer.content_format) == ("2.05", "285"), answer.text
        return answer.payload.read_bytes()

    def enroll(self, order: Order) -> Outcome:
        return self._outcome(self._post("sen", order))

    def renew(self, order: Order) -> Outcome:
        return self._outcome(self._post("sren", order))

    def generate_key(self, order: Order) -> Outcome:
        answer = self._post("skg", order)
        if answer.code != "2.04":
            return self._outcome(answer)
        return unpack_generated(self._bench.openssl, self._bench.directory, answer)

    def _post(self, name: str, order: Order) -> Answer:
        if order.user is not None:
            raise CannotPlay(_NO_HTTP)
        if order.credentials is None:
            raise CannotPlay("a client certificate comes before everything else on CoAPS")
        csr = self._bench.csr(order)
        return self._client.post(_path(name, order.label), order.credentials, csr)

    def _outcome(self, answer: Answer) -> Outcome:
        if answer.code != "2.04":
            pending = answer.code == "5.03" and "Max-Age:" in answer.text
            return Outcome(None, answer.text, pending=pending)
        [certificate] = self._bench.openssl.unpack(answer.payload)
        return Outcome(certificate, answer.text)


def unpack_generated(openssl: OpenSsl, directory: Path, answer: Answer) -> Outcome:
    """The key and the certificate of an answer to /skg or /skc (RFC 9148 section 5.3)."""
    formats_and_parts = cbor2.loads(answer.payload.read_bytes())
    parts = dict(zip(formats_and_parts[::2], formats_and_parts[1::2], strict=True))
    key, pem = directory / "generated.der", directory / "generated.pem"
    key.write_bytes(parts.pop(284))
    openssl.to_pem_key(key, pem)
    [(content_format, octets)] = parts.items()
    certificate = directory / "generated-certificate.der"
    certificate.write_bytes(octets)
    if content_format == 287:
        return Outcome(openssl.to_pem(certificate), answer.text, key=pem)
    assert content_format == 281, content_format
    [unpacked] = openssl.unpack(certificate)
    return Outcome(unpacked, answer.text, key=pem)


def _path(name: str, label: str | None) -> str:
    return f"/est/{label}/{name}" if label else f"/est/{name}"


libcoap_openssl = partial(Libcoap, program="coap-client-openssl")
libcoap_gnutls = partial(Libcoap, program="coap-client-gnutls")

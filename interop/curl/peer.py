"""curl, as the shared scenarios want it: openssl makes the requests, curl carries them."""

from __future__ import annotations

import email
import email.policy
from functools import partial
from pathlib import Path

from interop.client_peer import Bench, Credentials, Order, Outcome
from interop.curl.driver import Answer, Curl
from interop.peers import find_peer


class CurlPeer:
    """curl with one version of TLS."""

    def __init__(self, bench: Bench, *, tls: str) -> None:
        self._bench = bench
        self._curl = Curl(
            find_peer("curl"),
            bench.transcript,
            url=bench.https,
            ca=bench.ca,
            directory=bench.directory,
            tls=tls,
        )

    def ca_certificates(self, credentials: Credentials | None, label: str | None) -> list[Path]:
        answer = self._curl.get(_path("cacerts", label), credentials)
        assert answer.status == 200, answer.explanation
        return self._bench.openssl.unpack(self._bench.openssl.from_base64(answer.body))

    def csr_attributes(self, credentials: Credentials | None, label: str | None) -> bytes:
        answer = self._curl.get(_path("csrattrs", label), credentials)
        assert answer.status == 200, answer.explanation
        return self._bench.openssl.from_base64(answer.body).read_bytes()

    def enroll(self, order: Order) -> Outcome:
        return self._outcome(self._post("simpleenroll", order))

    def renew(self, order: Order) -> Outcome:
        return self._outcome(self._post("simplereenroll", order))

    def generate_key(self, order: Order) -> Outcome:
        answer = self._post("serverkeygen", order)
        if answer.status != 200:
            return self._outcome(answer)
        key, certs_only = self._parts(answer)
        pem = self._bench.directory / "generated.pem"
        openssl = self._bench.openssl
        openssl.to_pem_key(openssl.from_base64(key), pem)
        [certificate] = openssl.unpack(openssl.from_base64(certs_only))
        return Outcome(certificate, "", key=pem)

    def _post(self, operation: str, order: Order) -> Answer:
        body = self._bench.openssl.to_base64(self._bench.csr(order))
        options: tuple[str, ...] = ()
        if order.user is not None:
            options = ("--anyauth", "--user", f"{order.user.name}:{order.user.password}")
        return self._curl.post(
            _path(operation, order.label), order.credentials, body, options=options
        )

    def _outcome(self, answer: Answer) -> Outcome:
        if answer.status != 200:
            pending = answer.status == 202 and int(answer.headers["Retry-After"]) > 0
            return Outcome(None, answer.explanation, pending=pending)
        openssl = self._bench.openssl
        [certificate] = openssl.unpack(openssl.from_base64(answer.body))
        return Outcome(certificate, "")

    def _parts(self, answer: Answer) -> list[Path]:
        head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        message = email.message_from_bytes(
            head + answer.body.read_bytes(), policy=email.policy.HTTP
        )
        types = ["application/pkcs8", "application/pkcs7-mime"]
        assert [part.get_content_type() for part in message.iter_parts()] == types
        files = []
        for number, part in enumerate(message.iter_parts()):
            file = self._bench.directory / f"part-{number}"
            file.write_text(str(part.get_payload()))
            files.append(file)
        return files


def _path(operation: str, label: str | None) -> str:
    return f"/.well-known/est/{label}/{operation}" if label else f"/.well-known/est/{operation}"


curl_tls12 = partial(CurlPeer, tls="1.2")
curl_tls13 = partial(CurlPeer, tls="1.3")

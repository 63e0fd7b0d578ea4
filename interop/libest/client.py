"""libest's ``estclient``, as the shared scenarios want it.

It speaks TLS 1.2 at most, and makes its CSRs itself unless it is given one.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from interop.client_peer import Bench, CannotPlay, Credentials, Order, Outcome
from interop.peers import find_libest
from interop.transcript import Finished

#: Seconds that it may take; where it is told to wait it sleeps for 60 and more.
_PATIENCE = 10.0
_PATIENCE_TO_WAIT = 2.0

_RSA = ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")

_WAITS = re.compile(r"Retry-After value = ([1-9]\d*)")


class EstClient:
    """``estclient`` of the installation that ``LIBEST_PREFIX`` names."""

    def __init__(self, bench: Bench) -> None:
        self._program = find_libest("estclient")
        self._bench = bench

    def ca_certificates(self, credentials: Credentials | None, label: str | None) -> list[Path]:
        done, out = self._run(["-g", *_identity(credentials)], label)
        assert done.status == 0, done.text
        openssl = self._bench.openssl
        return openssl.unpack(openssl.from_base64(out / "cacert-0-0.pkcs7"))

    def csr_attributes(self, credentials: Credentials | None, label: str | None) -> bytes:
        done, out = self._run(["-a", *_identity(credentials)], label)
        assert done.status == 0, done.text
        return self._bench.openssl.from_base64(out / "csr-0-0.base64").read_bytes()

    def enroll(self, order: Order) -> Outcome:
        return self._order(["-e", *_subject(order)], order)

    def enroll_as_asked(self, order: Order) -> Outcome:
        """Fetch the CSR attributes first, and make the CSR by them."""
        return self._order(["-e", "-a", *_subject(order)], order)

    def renew(self, order: Order) -> Outcome:
        if order.credentials is None or order.key != order.credentials.key:
            raise CannotPlay("renews for the key that is certified already, and for no other")
        if order.renames:
            raise CannotPlay("renews for the name that is certified already, and for no other")
        return self._order(["-r"], order)

    def generate_key(self, order: Order) -> Outcome:
        # It takes a key for cut off that has less than 256 octets of base64, as P-256 has.
        wanted = replace(order, key=self._bench.openssl.make_key(*_RSA))
        return self._order(["-q", *_subject(wanted)], wanted)

    def _order(self, words: list[str | Path], order: Order) -> Outcome:
        if order.linked:
            words.append("-z")
        if order.spoiled or order.challenge is not None:
            csr = self._bench.openssl.to_pem_csr(self._bench.csr(order))
            words += ["-y", csr]
        elif "-r" not in words:
            words += ["-x", order.key]
        if order.user is not None:
            words += ["-u", order.user.name, "-h", order.user.password]
        try:
            done, out = self._run([*words, *_identity(order.credentials)], order.label)
        except subprocess.TimeoutExpired as waiting:
            said = (waiting.stdout or b"").decode()
            return Outcome(None, said, pending=_WAITS.search(said) is not None)
        return self._outcome(done, out)

    def _outcome(self, done: Finished, out: Path) -> Outcome:
        file = out / "cert-0-0.pkcs7"
        if not file.exists():
            return Outcome(None, done.text)
        openssl = self._bench.openssl
        [certificate] = openssl.unpack(openssl.from_base64(file))
        key_file = out / "key-0-0.key"
        if not key_file.exists():
            return Outcome(certificate, done.text)
        key = out / "generated.pem"
        openssl.to_pem_key(openssl.from_base64(key_file), key)
        return Outcome(certificate, done.text, key=key)

    def _run(self, words: list[str | Path], label: str | None) -> tuple[Finished, Path]:
        out = Path(mkdtemp(prefix="estclient-", dir=self._bench.directory))
        server = ["-v", "-s", "127.0.0.1", "-p", str(self._bench.https_port), "-o", str(out)]
        path = ["--path-seg", label] if label else []
        done = self._bench.transcript.run(
            [self._program, *server, *path, *words],
            environment={**os.environ, "EST_OPENSSL_CACERT": str(self._bench.ca)},
            patience=_PATIENCE_TO_WAIT if label == "manual" else _PATIENCE,
        )
        return done, out


def _identity(credentials: Credentials | None) -> list[str | Path]:
    if credentials is None:
        return []
    return ["-c", credentials.certificate, "-k", credentials.key]


def _subject(order: Order) -> list[str | Path]:
    return ["--common-name", order.common_name]

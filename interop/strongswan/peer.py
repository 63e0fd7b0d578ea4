"""strongSwan's ``pki``, as the shared scenarios want it."""

from __future__ import annotations

from pathlib import Path

from interop.client_peer import Bench, CannotPlay, Credentials, Order, Outcome
from interop.peers import find_peer
from interop.strongswan.driver import Pki


class StrongSwan:
    """``pki --estca`` and ``pki --est``, which renews where it is given a certificate."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def ca_certificates(self, credentials: Credentials | None, label: str | None) -> list[Path]:
        return self._pki(label).estca()

    def csr_attributes(self, credentials: Credentials | None, label: str | None) -> bytes:
        raise CannotPlay("knows no /csrattrs")

    def enroll(self, order: Order) -> Outcome:
        if order.credentials is not None:
            raise CannotPlay("renews wherever it is given a certificate")
        return self._est(order)

    def renew(self, order: Order) -> Outcome:
        return self._est(order)

    def generate_key(self, order: Order) -> Outcome:
        raise CannotPlay("knows no /serverkeygen")

    def _est(self, order: Order) -> Outcome:
        if order.spoiled:
            raise CannotPlay("checks the CSR that it is given, and sends no wrong one")
        ended = self._pki(order.label).est(
            self._bench.csr(order), order.credentials, user=order.user
        )
        return Outcome(ended.certificate, ended.text, pending=ended.pending)

    def _pki(self, label: str | None) -> Pki:
        return Pki(
            find_peer("pki"),
            self._bench.transcript,
            url=f"{self._bench.https}/.well-known/est/{label}" if label else self._bench.https,
            ca=self._bench.ca,
            directory=self._bench.directory,
        )

"""A client in a shared scenario, and what it says about the outcome."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interop.checks import Checks
from interop.client_peer import Bench, CannotPlay, ClientPeer, Credentials, Order, Outcome, User
from interop.devices import Device
from interop.operators import PASSWORD, USER
from interop.registry import Client
from interop.server import ServerUnderTest


@dataclass
class Player:
    """A client with a device.

    Where the peer cannot send a label, it gets a server of its own for it, see
    :meth:`ServerUnderTest.front`.
    """

    client: Client
    bench: Bench
    server: ServerUnderTest
    device: Device
    checks: Checks

    def peer(self, label: str | None = None) -> tuple[ClientPeer, str | None]:
        """The peer for requests under ``label``, and the label that it has to send."""
        if label is not None and label in self.client.cannot:
            raise CannotPlay(self.client.cannot[label])
        if self.client.legacy or label in self.client.legacy_labels:
            front = self.server.legacy_front()
            return self.client.make(replace(self.bench, https=front.https)), label
        if label is None or label not in self.client.fronted:
            return self.client.make(self.bench), label
        front = self.server.front(label)
        bench = replace(self.bench, https=front.https, coaps=front.coaps)
        return self.client.make(bench), None

    def order(self, label: str | None = None, **what: Any) -> Order:
        """What to ask for: what :class:`Order` says, by default for the listed key."""
        order = Order(**{"key": self.device.key, "label": label, **what})
        if order.user is not None:
            self.bench.transcript.conceal(order.user.password)
        return order

    def enroll(self, label: str | None = None, **what: Any) -> Outcome:
        """Enroll under ``label``."""
        peer, sent = self.peer(label)
        return peer.enroll(self.order(sent, **what))

    def first(self, **what: Any) -> Outcome:
        """Enroll by whatever way the peer has."""
        label = None if self.client.enrolls_with_certificate else "basic"
        return self.enroll(label, **{**self.anyhow(), **what})

    def renew(self, **what: Any) -> Outcome:
        """Renew; the CSR repeats the name of the device."""
        peer, _ = self.peer()
        return peer.renew(self.order(**{"common_name": self.device.udid, **what}))

    def wait_for(self, outcome: str, *, unless: Future[Outcome]) -> None:
        """Wait until the server has said ``outcome``.

        :param unless: what the peer is at; whatever it raises is raised here.
        """
        while outcome not in self.checks.outcomes() and not unless.done():
            time.sleep(0.05)
        if unless.done():
            unless.result()

    # -- Who the client is ---------------------------------------------------------------------

    def born(self) -> Credentials:
        """A birth certificate, the kind without a chain, which some peers do not send."""
        return Credentials(self.device.short_birth_certificate, self.device.key)

    def bare(self) -> Credentials:
        """A self-signed certificate over the listed key."""
        return Credentials(self.bench.openssl.make_self_signed(self.device.key), self.device.key)

    def hello(self) -> Credentials | None:
        """What it takes to be let in: a certificate on CoAPS, nothing on HTTPS."""
        return self.born() if self.client.transport == "CoAPS" else None

    def anyhow(self) -> dict[str, Any]:
        """A certificate for peers that enroll with one, else a user."""
        if self.client.enrolls_with_certificate:
            return {"credentials": self.born()}
        return {"user": User(USER, PASSWORD)}

    def first_certificate(self) -> Credentials:
        """A first certificate for the listed key."""
        return self.issued(self.first())

    # -- What came of it -----------------------------------------------------------------------

    def issued(self, outcome: Outcome, key: Path | None = None) -> Credentials:
        """Check that the device's certificate came, for ``key``, by default the listed one."""
        key = key or self.device.key
        assert outcome.certificate is not None, outcome.text
        self.checks.issued(outcome.certificate, udid=self.device.udid, key=key)
        return Credentials(outcome.certificate, key)

    def refused(self, outcome: Outcome, reason: str) -> None:
        """Check that no certificate came, that it was no "not yet", and why."""
        assert (outcome.certificate, outcome.pending) == (None, False), outcome.text
        self.checks.refused(reason)

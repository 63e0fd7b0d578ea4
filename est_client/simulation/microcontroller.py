"""How long a microcontroller computes, and what it has computed so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from est_protocol.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Microcontroller:
    """A class of microcontrollers. Times are in seconds, for the curve P-256 in software.

    :param name: what it is called.
    :param sign: one ECDSA signature.
    :param verify: one ECDSA verification.
    :param make_key: one key for ECDHE.
    :param agree: one ECDHE shared secret.
    :param power: in watts while it computes.
    :param source: where the times and the power were published.
    """

    name: str
    sign: float
    verify: float
    make_key: float
    agree: float
    power: float
    source: str


class Processor:
    """The processor of one device: what it computes takes its time.

    :param microcontroller: how fast it is; ``None``: it takes no time.
    :param now: seconds since the start of the simulation.
    :param chain_length: signatures to verify in a server's certificate chain.
    """

    def __init__(
        self,
        microcontroller: Microcontroller | None,
        now: Callable[[], float],
        *,
        chain_length: int = 2,
    ) -> None:
        if chain_length < 1:
            raise ConfigurationError("a certificate chain has at least one signature")
        self._microcontroller = microcontroller
        self._now = now
        self._chain_length = chain_length
        self._handshake_due = False
        #: When everything that was asked for is computed.
        self.free_at = 0.0
        #: Seconds of computing.
        self.busy = 0.0

    def begin_handshake(self) -> None:
        """A handshake begins: its computing is still to be done."""
        self._handshake_due = True

    def compute_handshake(self) -> None:
        """The client's part of a mutually authenticated ECDHE handshake, once for each.

        It verifies the server's chain and its signature over the key exchange, makes its own key
        for it, computes the shared secret and signs for its own certificate.
        """
        if self._handshake_due and (mcu := self._microcontroller) is not None:
            signatures = self._chain_length + 1
            self._compute(mcu.verify * signatures + mcu.make_key + mcu.agree + mcu.sign)
        self._handshake_due = False

    def sign(self) -> None:
        """One signature, such as that of a CSR."""
        if self._microcontroller is not None:
            self._compute(self._microcontroller.sign)

    def verify(self, signatures: int) -> None:
        """So many verifications, such as those of an issued certificate's chain."""
        if self._microcontroller is not None:
            self._compute(self._microcontroller.verify * signatures)

    def make_key(self) -> None:
        """One new key pair."""
        if self._microcontroller is not None:
            self._compute(self._microcontroller.make_key)

    def _compute(self, seconds: float) -> None:
        self.busy += seconds
        self.free_at = max(self.free_at, self._now()) + seconds

    @property
    def energy(self) -> float:
        """Joules of computing."""
        return 0.0 if self._microcontroller is None else self.busy * self._microcontroller.power

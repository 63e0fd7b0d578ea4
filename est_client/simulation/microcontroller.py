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


_WOLFSSL = "wolfSSL, IDE/STM32Cube/STM32_Benchmarks.md"

MICROCONTROLLERS: dict[str, Microcontroller] = {
    mcu.name: mcu
    for mcu in (
        Microcontroller(
            "cortex-m0plus",
            sign=0.1534,
            verify=0.3490,
            make_key=0.1122,
            agree=0.2500,
            power=0.0026 * 3.0,
            source=f"STM32G071RB at 64 MHz, {_WOLFSSL} (5.6.0, Thumb assembly, small); "
            "2.6 mA at 3 V: TI CC2340R5 data sheet, CoreMark at 48 MHz",
        ),
        Microcontroller(
            "cortex-m4",
            sign=0.0807,
            verify=0.1631,
            make_key=0.0272,
            agree=0.0595,
            power=0.0033 * 3.0,
            source=f"STM32WB55 at 64 MHz, {_WOLFSSL} (4.4.1, assembly); "
            "3.3 mA at 3 V: nRF52840 Product Specification, CoreMark at 64 MHz",
        ),
        Microcontroller(
            "cortex-m4-plain",
            sign=1.1375,
            verify=0.7450,
            make_key=1.1300,
            agree=1.1255,
            power=0.0033 * 3.0,
            source=f"STM32WB55 at 64 MHz, {_WOLFSSL} (4.4.1, no assembly); current as cortex-m4",
        ),
        Microcontroller(
            "cortex-m33",
            sign=0.0160,
            verify=0.0283,
            make_key=0.0094,
            agree=0.0178,
            power=0.0027 * 3.0 * 160 / 64,
            source=f"STM32U585 at 160 MHz, {_WOLFSSL} (5.3.1, assembly); nRF5340 Product "
            "Specification: 2.7 mA at 3 V and 64 MHz, scaled to the clock",
        ),
    )
}


def microcontroller_named(name: str) -> Microcontroller | None:
    """The class of microcontrollers with this name; ``none`` takes no time.

    :raises ConfigurationError: there is no such class.
    """
    if name == "none":
        return None
    try:
        return MICROCONTROLLERS[name]
    except KeyError:
        raise ConfigurationError(
            f"there is no microcontroller {name!r}; known: {', '.join(MICROCONTROLLERS)}, none"
        ) from None


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

"""What radio and computing time cost: a documented table, not a measurement.

Energy is air time times power plus computing time times power. Waiting with the receiver on or
off, sleeping, and everything else that the device is made of are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from est_client.simulation.traffic import Flow


@dataclass(frozen=True, slots=True)
class Radio:
    """A radio. Power is in watts.

    :param name: what it is called.
    :param transmit: while it sends.
    :param receive: while it receives.
    :param source: where the currents and the voltage were published.
    """

    name: str
    transmit: float
    receive: float
    source: str

    def energy(self, up: Flow, down: Flow) -> float:
        """Joules for the air time of both directions."""
        return up.airtime * self.transmit + down.airtime * self.receive

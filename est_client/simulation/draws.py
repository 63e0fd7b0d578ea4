"""Random numbers that belong to packets: the n-th packet of a link always draws the same ones.

A generator that simply went on would give every later packet other numbers as soon as one packet
is an octet longer and becomes a frame more, and ECDSA signatures vary by up to two octets.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Draws:
    """The numbers of one direction of one link.

    SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.

    :param seed: 64 bits.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed & _MASK
        self._packet = 0
        self._state = _mixed(self._seed)

    def next_packet(self) -> None:
        """Begin with the numbers of the next packet."""
        self._packet += 1
        self._state = _mixed(self._seed ^ _mixed(self._packet))

    def __call__(self) -> float:
        """The next number, from 0 up to 1."""
        self._state = (self._state + _GOLDEN) & _MASK
        return (_mixed(self._state) >> 11) / (1 << 53)


def _mixed(value: int) -> int:
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31

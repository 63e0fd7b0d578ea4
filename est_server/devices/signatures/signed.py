"""What a verified signature says."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Signed(NamedTuple):
    """A signature that is believed.

    :param signer: the name of the list signer.
    :param signed_at: when it was made, as it says itself.
    """

    signer: str
    signed_at: datetime | None

"""Why a device list is refused as a whole."""

from __future__ import annotations

from est_protocol.errors import ConfigurationError
from est_server.devices.list_format import RejectedRow


class ListRefused(ConfigurationError):
    """Nothing of the list is imported.

    :param rejections: the first rows that are to blame, by line.
    """

    def __init__(self, sentence: str, rejections: tuple[RejectedRow, ...] = ()) -> None:
        super().__init__(sentence)
        self.rejections = rejections


class SignatureRejected(ListRefused):
    """The list is not signed by a list signer, or not in a way that is believed."""


class NotSigned(SignatureRejected):
    """The list carries no signature, and none came with it."""

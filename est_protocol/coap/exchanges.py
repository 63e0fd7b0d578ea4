"""aiocoap's message layer with bounds: memory per session, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from aiocoap import Message
from aiocoap.messagemanager import MessageManager
from aiocoap.numbers.types import ACK, CON, RST
from aiocoap.tokenmanager import TokenManager

from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.coap.recent import RecentRequests


class SessionInterface(Protocol):
    """The session below."""

    address: Any

    def send_octets(self, octets: bytes) -> None:
        """Send one."""
        ...


class BoundedMessageManager(MessageManager):  # type: ignore[misc]
    """Message IDs, acknowledgements and retransmissions of one session.

    aiocoap remembers each request for EXCHANGE_LIFETIME, without a bound and with its whole
    answer as objects; this remembers so many octets.

    :param token_manager: the layer above.
    :param interface: the session.
    :param count: requests whose duplicates are recognized.
    :param octets: octets of answers that are kept for duplicates.
    :param parameters: the transmission parameters.
    """

    def __init__(
        self,
        token_manager: TokenManager,
        interface: SessionInterface,
        *,
        count: int,
        octets: int,
        parameters: TransmissionParameters,
    ) -> None:
        super().__init__(token_manager)
        self.message_interface = interface
        self._parameters = parameters
        self._recent = RecentRequests(
            count=count, octets=octets, lifetime=parameters.exchange_lifetime
        )

    @property
    def active(self) -> bool:
        """Whether a confirmable message of ours is not acknowledged yet."""
        return bool(self._active_exchanges)

    def is_duplicate(self, message: Message) -> bool:
        """Whether this request came before."""
        return self._recent.is_duplicate(message.mid, self.loop.time())

    def send_message(self, message: Message, messageerror_monitor: Callable[[], None]) -> Any:
        """Send a message under the session's transmission parameters."""
        message.transport_tuning = self._parameters.tuning
        return super().send_message(message, messageerror_monitor)

    def cancel(self, reason: Exception) -> None:
        """End all exchanges and requests, and leave no timer."""
        self.dispatch_error(reason, self.message_interface.address)
        for _, timer in self._piggyback_opportunities.values():
            timer.cancel()
        self._piggyback_opportunities.clear()

    def _deduplicate_message(self, message: Message) -> bool:
        if not self.is_duplicate(message):
            self._recent.begin(message.mid, self.loop.time())
            return False
        answer = self._recent.answer(message.mid)
        if message.mtype is CON and answer is not None:
            self.message_interface.send_octets(answer)
        return True

    def _store_response_for_duplicates(self, message: Message) -> None:
        # Our own confirmable messages have Message IDs of another space.
        if message.mtype in (ACK, RST):
            self._recent.complete(message.mid, message.encode())

"""What becomes of a request whose certificate authority takes its time."""

from __future__ import annotations

import asyncio

import pytest
from cryptography import x509

from est_protocol.errors import RefusalReason, ServerRefused, StillPending
from est_protocol.messages import Pending
from est_protocol.operations import Operation
from est_server.interfaces import CertificateAuthority, IssuanceOrder
from tests.behaviour.roads import Road
from tests.behaviour.world import KEYS, World

#: 503 on HTTPS; on CoAPS 5.03, which a client takes for "not yet" (RFC 9148 section 4.7).
NOT_NOW = (ServerRefused, StillPending)


class Stuck:
    """Answers nothing until it is let go; then what the authority behind it says."""

    def __init__(self, behind: CertificateAuthority) -> None:
        self._behind = behind
        self.orders = 0
        self.given_up = 0
        self.let_go = asyncio.Event()

    async def ca_certificates(self, label: str | None) -> tuple[x509.Certificate, ...]:
        await self._wait()
        return await self._behind.ca_certificates(label)

    async def issue(self, order: IssuanceOrder) -> x509.Certificate | Pending:
        self.orders += 1
        await self._wait()
        return await self._behind.issue(order)

    async def _wait(self) -> None:
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise


def make_stuck(world: World, label: str | None = None) -> Stuck:
    """Put an authority that is stuck before the one of ``label``."""
    stuck = Stuck(world.policy(label).authority)
    world.change_policy(label, authority=stuck)
    return stuck


async def test_an_authority_that_hangs_is_given_up_and_nothing_is_taken(
    world: World, road: Road
) -> None:
    world.service._issuance._timeout = 0.05
    stuck = make_stuck(world)
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(NOT_NOW) as refusal:
            await connection.simpleenroll(device.key)
        assert isinstance(refusal.value, NOT_NOW)
        assert refusal.value.retry_after == 30 or road.name == "in-process"
        assert world.last_refusal == RefusalReason.AUTHORITY_UNAVAILABLE
        assert stuck.given_up == 1
        # The claim was given back: the very next request gets as far as the authority again.
        stuck.let_go.set()
        await connection.simpleenroll(device.key)
    assert stuck.orders == 2
    assert world.issued_count() == 1


async def test_the_audit_trail_says_whose_request_the_authority_left_unanswered(
    world: World, road: Road
) -> None:
    world.service._issuance._timeout = 0.05
    make_stuck(world)
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(NOT_NOW):
            await connection.simpleenroll(device.key)
    entry = world.audit.entries[-1]
    assert (entry["outcome"], entry["reason"]) == ("refused", "authority-unavailable")
    assert entry["device"] == device.udid
    assert "0.05 s" in entry["detail"]


async def test_a_generated_key_waits_no_longer(world: World, road: Road) -> None:
    world.service._issuance._timeout = 0.05
    stuck = make_stuck(world, KEYS)
    device = await world.list_device("a", born=True)
    async with road.connection(device) as connection:
        with pytest.raises(NOT_NOW):
            await connection.serverkeygen()
        assert world.last_refusal == RefusalReason.AUTHORITY_UNAVAILABLE
        stuck.let_go.set()
        await connection.serverkeygen()
    assert world.issued_count() == 1


async def test_ca_certificates_wait_no_longer(world: World, road: Road) -> None:
    world.service._issuance._timeout = 0.05
    make_stuck(world)
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(NOT_NOW):
            await connection.get(Operation.CACERTS)
    assert world.last_refusal == RefusalReason.AUTHORITY_UNAVAILABLE


async def test_an_answer_that_takes_a_while_arrives_once(world: World, road: Road) -> None:
    """Over CoAPS as a separate response, after an empty acknowledgement (RFC 9148 section 4.7)."""
    stuck = make_stuck(world)
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        # Longer than CoAP's client takes to retransmit, and than the server to acknowledge.
        asyncio.get_running_loop().call_later(0.3, stuck.let_go.set)
        await connection.simpleenroll(device.key)
    assert stuck.orders == 1
    assert world.issued_count() == 1

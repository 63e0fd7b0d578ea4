"""What becomes of a request whose certificate is made inside of the ledger's transaction."""

from __future__ import annotations

import pytest
from cryptography import x509

from est_protocol.errors import RefusalReason, ServerRefused, StillPending
from est_protocol.messages import Pending
from est_server.interfaces import IssuanceOrder
from est_server.stores.sqlite.database import Connection
from tests.behaviour.roads import Road
from tests.behaviour.world import World


class Prompt:
    """What the authority behind it says, at once; but the first order fails."""

    def __init__(self, world: World) -> None:
        self._behind = world.policy(None).authority
        self.made: list[x509.Certificate] = []
        self.fails = True
        world.change_policy(None, authority=self)

    async def ca_certificates(self, label: str | None) -> tuple[x509.Certificate, ...]:
        return await self._behind.ca_certificates(label)

    async def issue(self, order: IssuanceOrder) -> x509.Certificate | Pending:
        raise AssertionError("there is no need to wait")

    def can_issue_now(self) -> bool:
        return True

    def issue_now(self, order: IssuanceOrder) -> x509.Certificate:
        if self.fails:
            self.fails = False
            raise OSError("the key is gone")
        self.made.append(self._behind.issue_now(order))  # type: ignore[attr-defined]
        return self.made[-1]


async def test_an_authority_that_fails_takes_nothing(world: World, road: Road) -> None:
    authority = Prompt(world)
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with pytest.raises(ServerRefused):
            await connection.simpleenroll(device.key)
        assert world.last_refusal == RefusalReason.INTERNAL_ERROR
        await connection.simpleenroll(device.key)
    assert len(authority.made) == world.issued_count() == 1


async def test_a_certificate_that_does_not_become_durable_is_named_and_not_sent(
    world: World, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Connection) -> None:
        raise OSError("the disk is gone")

    authority = Prompt(world)
    authority.fails = False
    device = await world.list_device("a")
    async with road.connection(device) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "commit", fails, raising=False)
            with pytest.raises((ServerRefused, StillPending)):
                await connection.simpleenroll(device.key)
        (discarded,) = authority.made
        entry = world.audit.entries[-1]
        assert (entry["outcome"], entry["reason"]) == ("refused", "store-unavailable")
        assert f"{discarded.serial_number:x}" in entry["detail"]
        assert world.issued_count() == 0
        enrolled = await connection.simpleenroll(device.key)
    assert authority.made[-1] == enrolled != discarded
    assert world.issued_count() == 1

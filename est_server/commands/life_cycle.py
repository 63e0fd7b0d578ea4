"""``est-server devices suspend``, ``resume``, ``revoke`` and so on: orders about devices."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from est_server.assembly import open_store
from est_server.commands.options import OneLineParser, add_command
from est_server.commands.orders import (
    actor_of,
    add_actor,
    add_reason,
    add_revocation_reason,
    audit_text,
)
from est_server.config import ServerConfig, load_config
from est_server.life_cycle import DeviceChange, DeviceOrder, LifeCycleStep, StepNotPossible

_HELP = {
    LifeCycleStep.SUSPEND: "shut devices out for now; their certificates are put on hold",
    LifeCycleStep.RESUME: "let suspended devices go on",
    LifeCycleStep.REVOKE: "shut devices out and revoke their certificates",
    LifeCycleStep.DECOMMISSION: "shut devices out for ever and revoke their certificates",
    LifeCycleStep.RESET: "let devices make one more first enrollment under each label",
    LifeCycleStep.TRANSFER: "give devices to another owner and revoke their certificates",
    LifeCycleStep.RELEASE: "let devices out of the quarantine in which they were registered",
}

_NOTES = {
    LifeCycleStep.REVOKE: """\
With --reason key-compromise none of a device's keys gets a certificate until it is reset.""",
    LifeCycleStep.RESET: """\
For devices after a factory reset or a repair, revoked ones included. The certificate that a
device has stays good until the next one supersedes it; to end it at once, revoke it too.""",
}


def add_to(subcommands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    for step in LifeCycleStep:
        takes_code = step is LifeCycleStep.REVOKE
        owner = "--owner acme " if step is LifeCycleStep.TRANSFER else ""
        why = "key-compromise" if takes_code else "'order 17'"
        parser = add_command(
            subcommands,
            step.value,
            _run,
            help=_HELP[step],
            example=f"est-server devices {step.value} sensor-0001 {owner}--reason {why} "
            "--config est/est-server.toml",
            note=_NOTES.get(step, ""),
        )
        parser.set_defaults(step=step)
        parser.add_argument("udids", metavar="UDID", nargs="+", help="unique device identifiers")
        (add_revocation_reason if takes_code else add_reason)(parser)
        if step is LifeCycleStep.TRANSFER:
            parser.add_argument(
                "--owner", metavar="NAME", type=audit_text, required=True, help="the new owner"
            )
        add_actor(parser)


def _run(options: argparse.Namespace) -> int:
    step: LifeCycleStep = options.step
    revokes = step is LifeCycleStep.REVOKE
    orders = [
        DeviceOrder(
            udid,
            step,
            actor=actor_of(options),
            reason=(options.note or options.reason.value) if revokes else options.reason,
            code=options.reason if revokes else None,
            owner=options.owner if step is LifeCycleStep.TRANSFER else None,
        )
        for udid in options.udids
    ]
    return asyncio.run(_carry_out(load_config(options.config), orders))


async def _carry_out(config: ServerConfig, orders: Sequence[DeviceOrder]) -> int:
    """Carry out one order after the other; one that fails keeps no other from it."""
    status = 0
    async with open_store(config, existing=True) as store:
        for order in orders:
            try:
                change = await store.change_device(order, now=datetime.now(UTC))
            except (KeyError, StepNotPossible) as error:
                unknown = isinstance(error, KeyError)
                why = "no such device is listed" if unknown else str(error)
                print(f"est-server: error: {order.udid}: {why}", file=sys.stderr)
                status = 1
            else:
                print(f"{order.udid}  {_describe(order.step, change)}")
    return status


def _describe(step: LifeCycleStep, change: DeviceChange) -> str:
    words = [change.device.state.value]
    if step is LifeCycleStep.TRANSFER:
        words.append(f"owner {change.device.owner}")
    if change.certificates:
        done = {LifeCycleStep.SUSPEND: "on hold", LifeCycleStep.RESUME: "off hold"}
        words.append(f"{change.certificates} certificates {done.get(step, 'revoked')}")
    if change.claims:
        words.append(f"{change.claims} first enrollments possible again")
    return ", ".join(words)

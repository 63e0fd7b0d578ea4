"""``est-server approvals``: first enrollments that wait for an operator."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime

from est_server.approvals import Approval, ApprovalState, NotWaiting
from est_server.assembly import open_store
from est_server.commands.options import OneLineParser, add_command
from est_server.commands.orders import actor_of, add_actor, add_reason
from est_server.config import ServerConfig, load_config

#: More than any store has; 64 bits, signed.
_MOST = 2**63 - 1


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser("approvals", help="first enrollments that wait for an operator")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = add_command(
        subcommands,
        "list",
        _list,
        help="list the requests that wait: number, since when, label, device, key, address",
        example="est-server approvals list --config est/est-server.toml",
    )
    show.add_argument(
        "--all", action="store_true", help="those that were decided too, by whom and why"
    )
    _add_decision(subcommands, "approve", "let requests have their certificates, once each")
    _add_decision(subcommands, "deny", "refuse requests")


def _add_decision(
    subcommands: argparse._SubParsersAction[OneLineParser], name: str, help: str
) -> None:
    parser = add_command(
        subcommands,
        name,
        _decide,
        help=help,
        example=f"est-server approvals {name} 7 --reason 'order 17' --config est/est-server.toml",
        note="""\
Compare the key's SHA-256 with what the device or its maker says. The device learns of the
decision when it asks again.""",
    )
    parser.set_defaults(approve=name == "approve")
    parser.add_argument("numbers", metavar="NUMBER", type=_number, nargs="+", help="as listed")
    add_reason(parser)
    add_actor(parser)


def _list(options: argparse.Namespace) -> int:
    asyncio.run(_print_all(load_config(options.config), options.all))
    return 0


async def _print_all(config: ServerConfig, decided: bool) -> None:
    async with open_store(config, as_it_is=True) as store:
        async for approval in store.approvals(decided=decided):
            print(_line(approval))


def _decide(options: argparse.Namespace) -> int:
    return asyncio.run(_carry_out(load_config(options.config), options))


async def _carry_out(config: ServerConfig, options: argparse.Namespace) -> int:
    """Decide about one request after the other; one that fails keeps no other from it."""
    status = 0
    async with open_store(config, existing=True) as store:
        for number in options.numbers:
            try:
                decided = await store.decide_approval(
                    number,
                    approve=options.approve,
                    actor=actor_of(options),
                    reason=options.reason,
                    now=datetime.now(UTC),
                )
            except (KeyError, NotWaiting) as error:
                why = f"there is no request {number}" if isinstance(error, KeyError) else str(error)
                print(f"est-server: error: {why}", file=sys.stderr)
                status = 1
            else:
                print(_line(decided))
    return status


def _line(approval: Approval) -> str:
    key = approval.spki_sha256 or approval.client_key
    words = [
        str(approval.number),
        f"{approval.asked_at:%Y-%m-%dT%H:%M:%SZ}",
        approval.label or "default",
        approval.device,
        f"key {key.hex() if key else '-'}",
        approval.peer or "-",
        ", ".join(approval.reasons) or "-",
    ]
    if approval.state is not ApprovalState.WAITING:
        words += [approval.state.value, f"by {approval.actor}: {approval.reason}"]
    return "  ".join(words)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a request")
    return int(text)

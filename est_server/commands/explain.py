"""``est-server explain``: what would be decided about a request, and why."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from est_protocol.errors import ConfigurationError, MessageError
from est_protocol.labels import read_label
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_protocol.pem_request import is_pem, remove_armour
from est_server.anchors import load_anchors
from est_server.assembly import open_service, open_store
from est_server.commands.options import OneLineParser, UsageError, add_command
from est_server.config import ServerConfig, load_config
from est_server.explanation import Explanation, explain
from est_server.interfaces import DeviceRegistry
from est_server.pem_files import load_certificates
from est_server.preview import PreviewedOutcome
from est_server.service import SystemClock
from est_server.supposition import (
    Supposition,
    Wanted,
    suppose_certificate,
    suppose_csr,
    suppose_device,
)

REFUSED = 1
PENDING = 3
_STATUS = {PreviewedOutcome.REFUSE: REFUSED, PreviewedOutcome.PENDING: PENDING}

#: Octets of a CSR; larger ones than the transports take by default are no use.
_LARGEST_CSR = 65536


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "explain",
        _run,
        help="say what would be decided about a device's request, and why, without issuing",
        example="est-server explain --udid sensor-0001 --config est/est-server.toml",
        note="""\
The same code decides as in the server, on the same records; nothing is issued, taken or
written down. What no handshake and no signature proves here is listed as taken for
granted. Exit status: 0 granted, 1 refused, 2 wrong usage or configuration, 3 pending.""",
    )
    parser.add_argument(
        "--cert",
        type=Path,
        metavar="FILE",
        help="PEM file with the certificate that the device presents, and its chain",
    )
    parser.add_argument(
        "--csr",
        type=Path,
        metavar="FILE",
        help="PEM or DER file with its certification request; without --cert, of a bare key",
    )
    parser.add_argument("--udid", metavar="ID", help="a device that asks with its listed key")
    parser.add_argument("--label", help="the label that it asks under, as in a URL")
    parser.add_argument(
        "--transport",
        choices=[transport.value for transport in Transport],
        default=Transport.HTTPS.value,
        help="how it asks (default: %(default)s)",
    )
    parser.add_argument(
        "--operation",
        choices=[operation.value for operation in Operation if operation.request_type],
        help="what it asks for (default: simplereenroll with a certificate of this server, else "
        "simpleenroll)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _run(options: argparse.Namespace) -> int:
    if not (options.cert or options.csr or options.udid):
        raise UsageError("say who asks, with --cert FILE, --csr FILE or --udid ID")
    if options.udid and (options.cert or options.csr):
        raise UsageError("--udid goes with neither --cert nor --csr")
    wanted = Wanted(
        Operation(options.operation) if options.operation else None,
        Transport(options.transport),
        None if options.label is None else read_label(options.label),
    )
    if options.udid and wanted.operation is Operation.SIMPLEREENROLL:
        raise UsageError("a renewal needs the certificate that is renewed: --cert FILE")
    explanation = asyncio.run(_explain(options, load_config(options.config), wanted))
    if options.json:
        print(json.dumps(explanation.as_dict(), indent=2))
    else:
        print(explanation.as_text())
    return _STATUS.get(explanation.preview.outcome, 0)


async def _explain(
    options: argparse.Namespace, config: ServerConfig, wanted: Wanted
) -> Explanation:
    async with (
        open_store(config, as_it_is=True) as store,
        open_service(config, store=store) as assembly,
    ):
        supposed = await _suppose(options, config, wanted, store)
        return await explain(assembly.service, store, store, supposed, udid=options.udid)


async def _suppose(
    options: argparse.Namespace, config: ServerConfig, wanted: Wanted, registry: DeviceRegistry
) -> Supposition:
    now = SystemClock().now()
    if options.udid:
        device = await registry.find_by_udid(options.udid)
        return suppose_device(device.listed.spki_sha256 if device else None, wanted, now)
    anchors = load_anchors(config)
    chain = load_certificates(options.cert) if options.cert else ()
    if options.csr:
        return suppose_csr(_read_csr(options.csr), chain, wanted, anchors, now)
    return suppose_certificate(chain, wanted, anchors, now)


def _read_csr(path: Path) -> bytes:
    """The DER octets of a CSR in a file, which need not be any."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_CSR + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _LARGEST_CSR:
        raise ConfigurationError(f"{path} is larger than {_LARGEST_CSR} octets")
    if not is_pem(content):
        return content
    try:
        return remove_armour(content)
    except MessageError as error:
        raise ConfigurationError(f"{path}: {error}") from error

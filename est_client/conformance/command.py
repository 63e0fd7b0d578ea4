"""``est-client conformance``: from options and files to a run and its reports."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from est_client.bootstrap import CaFingerprint, bootstrap
from est_client.conformance import report
from est_client.conformance.bench import Bench, BenchLimits, with_certificate
from est_client.conformance.registry import all_rows
from est_client.conformance.rows import Outcome, Row
from est_client.conformance.runner import Result, failed, run
from est_client.connectors import ConnectorOptions, connector_for
from est_client.durable_files import write_durably
from est_client.location import ServerLocation
from est_client.trust import TrustDatabase
from est_protocol.errors import ConfigurationError
from est_protocol.key_recipients import SymmetricKey
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials, TrustAnchors

_log = logging.getLogger(__name__)

#: Seconds for a handshake, and for an answer.
_PATIENCE = 30.0


async def check_server(
    location: ServerLocation,
    trust: TrustDatabase | CaFingerprint,
    identity: LocalCredentials | None,
    options: argparse.Namespace,
    *,
    shared_key: SymmetricKey | None = None,
) -> int:
    """Run what ``options`` ask for, print the table and write the reports.

    :param shared_key: see :class:`~est_client.conformance.bench.Bench`.
    :return: the exit status: 1 if a MUST failed, else 0.
    :raises PeerNotTrusted: the server is not trusted; nothing was sent.
    :raises ChannelError: there is no server.
    :raises ConfigurationError: there is no such row, or no key for CoAPS.
    """
    if identity is None and location.transport is Transport.COAPS:
        raise ConfigurationError("on CoAPS every request is authenticated: --key FILE is needed")
    patience = _PATIENCE if options.timeout is None else options.timeout
    limits = BenchLimits(options.max_connections, options.time_limit, patience)
    anchors = await _anchors(location, trust, identity, patience)
    bench = Bench(location, anchors, identity=identity, shared_key=shared_key, limits=limits)
    started = bench.now()
    results = await run(bench, _chosen(location.transport, options.rows), on_result=_progress)
    print(report.table(results))
    if options.json:
        text = report.to_json(results, url=options.url, at=started)
        write_durably(Path(options.json), text.encode(), mode=0o644)
    if options.junit:
        text = report.to_junit(results, url=options.url, at=started)
        write_durably(Path(options.junit), text.encode(), mode=0o644)
    return 1 if failed(results) else 0


async def _anchors(
    location: ServerLocation,
    trust: TrustDatabase | CaFingerprint,
    identity: LocalCredentials | None,
    patience: float,
) -> TrustAnchors:
    if isinstance(trust, CaFingerprint):
        now = datetime.now(UTC)
        connector = connector_for(location, ConnectorOptions(timeout=patience))
        credentials = with_certificate(identity, now) if identity else None
        trust = await bootstrap(
            connector, trust, label=location.label, credentials=credentials, now=now
        )
    return trust.anchors()


def _chosen(transport: Transport, wanted: Sequence[str] | None) -> list[Row]:
    rows = all_rows(transport)
    if not wanted:
        return list(rows)
    chosen = [row for row in rows if any(row.id.startswith(name) for name in wanted)]
    if not chosen:
        raise ConfigurationError(f"no row of {transport.value} begins with {' or '.join(wanted)}")
    return chosen


def _progress(result: Result) -> None:
    if result.outcome in (Outcome.FAIL, Outcome.ERROR):
        _log.info("%s %s: %s", result.row.id, result.outcome.value, result.evidence)

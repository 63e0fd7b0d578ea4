"""Running rows: each by itself, so that none takes another down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from est_client.conformance.bench import Bench, LimitReached
from est_client.conformance.rows import Failed, NotApplicable, Outcome, Row
from est_client.http_answers import printable
from est_protocol.errors import ChannelError, MessageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one row.

    :param seconds: how long it took.
    """

    row: Row
    outcome: Outcome
    evidence: str
    seconds: float


async def run(
    bench: Bench, rows: Iterable[Row], *, on_result: Callable[[Result], None] = lambda _: None
) -> list[Result]:
    """Run rows one after the other, within the limits of the bench.

    :param on_result: told of each as soon as it is there.
    :raises PeerNotTrusted: the server is not the one that is meant; nothing was sent.
    :raises ChannelError: there is no server.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bench.limits.seconds
    await bench.reach()
    results = []
    for row in rows:
        started = loop.time()
        outcome, evidence = await _run(bench, row, deadline)
        result = Result(row, outcome, printable(evidence), loop.time() - started)
        results.append(result)
        on_result(result)
    return results


async def _run(bench: Bench, row: Row, deadline: float) -> tuple[Outcome, str]:
    try:
        async with asyncio.timeout_at(deadline) as limit:
            return Outcome.PASS, await row.check(bench)
    except NotApplicable as why:
        return Outcome.NOT_APPLICABLE, str(why)
    except Failed as why:
        return Outcome.FAIL, str(why)
    except LimitReached as why:
        return Outcome.ERROR, f"not checked: {why}"
    except (ChannelError, MessageError) as why:
        # The server ended the connection instead of answering, or its answer makes no sense.
        return Outcome.FAIL, str(why)
    except Exception as error:
        if limit.expired():
            return Outcome.ERROR, f"not checked: the run takes {bench.limits.seconds:g} s at most"
        _log.debug("%s came to no end", row.id, exc_info=True)
        return Outcome.ERROR, f"{type(error).__name__}: {error}"


def failed(results: Iterable[Result]) -> bool:
    """Whether a MUST failed, or could not be shown because its check came to no end."""
    bad = (Outcome.FAIL, Outcome.ERROR)
    return any(result.row.level.binds and result.outcome in bad for result in results)

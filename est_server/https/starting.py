"""Getting ready what is to be served over HTTP, of either kind."""

from __future__ import annotations

import logging

from aiohttp import web

from est_server.https.connections import RunningHttp
from est_server.https.runner import RunnerLimits, start_application
from est_server.https.site import EstSite, RunningSite

#: What can be served: EST alone, or any aiohttp application.
Servable = EstSite | web.Application


async def start(
    app: Servable,
    limits: RunnerLimits,
    *,
    logger: logging.Logger,
    access_log: logging.Logger | None = None,
) -> RunningHttp:
    """Start ``app``, with ``limits`` for its connections."""
    if isinstance(app, EstSite):
        return RunningSite(app, limits, access_log)
    return await start_application(app, limits, logger=logger, access_log=access_log)

"""Alarms as HTTP requests to an address of the operator's choice."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp

from est_protocol.errors import ConfigurationError, EstError
from est_server.alarms import Alarm


class WebhookRefused(EstError):
    """The address did not take the alarm."""


class Webhook:
    """POSTs each alarm as a JSON object (an :class:`~est_server.alarms.AlarmSink`).

    Redirects are not followed, and no proxy of the environment is used. An alarm names a device
    and where it is: plain HTTP is for this machine only.

    :param url: an ``https://`` address, whose certificate has to verify with the system's
        anchors, or an ``http://`` one on this machine.
    :param timeout: seconds for one request.
    :raises ConfigurationError: ``url`` is neither.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        parts = urlsplit(url)
        local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise ConfigurationError(
                f"{url!r} is neither an https:// URL nor an http:// URL on this machine"
            )
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def __call__(self, alarm: Alarm, /) -> None:
        """Send one alarm.

        :raises WebhookRefused: the answer is not 2xx.
        """
        async with (
            aiohttp.ClientSession(timeout=self._timeout) as session,
            session.post(self._url, json=alarm.fields(), allow_redirects=False) as response,
        ):
            if not 200 <= response.status < 300:
                raise WebhookRefused(f"{self._url} answered {response.status}")

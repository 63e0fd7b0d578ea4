"""What an operator should know of a configuration that is served: at once, and every day anew."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from est_protocol.errors import ConfigurationError
from est_server.config import ServerConfig
from est_server.config.changes import changed_tables
from est_server.interfaces import Clock
from est_server.server_certificates import ServerCertificate, load_server_certificates
from est_server.service import SystemClock

_log = logging.getLogger("est_server.serve")

#: How often it is looked whether a certificate ends soon.
INTERVAL = timedelta(days=1)


class Cautions:
    """Warns in the log of what should not stay as it is.

    It goes by the certificates that are served: one that replaces a file counts from the reload on.

    :param config: what is served.
    :raises ConfigurationError: a server certificate cannot be read.
    """

    def __init__(self, config: ServerConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._certificates = load_server_certificates(config)
        self._clock = clock or SystemClock()

    def say(self) -> None:
        """Say all of it."""
        self.say_ends()
        for warning in unsafe_settings(self._config):
            _log.warning("%s", warning)

    def say_ends(self) -> None:
        """Say which certificates have ended or soon do."""
        for warning in ends(self._certificates, now=self._clock.now()):
            _log.warning("%s", warning)

    def say_ends_daily(self) -> None:
        """From a day on, by the event loop that runs."""
        asyncio.get_running_loop().call_later(INTERVAL.total_seconds(), self._say_ends_again)

    def _say_ends_again(self) -> None:
        self.say_ends()
        self.say_ends_daily()

    def take_over(self, config: ServerConfig) -> list[str]:
        """Say all of ``config``, which is served from now on.

        :return: what is different, as far as is known: tables of the configuration, and new
            server certificates with their ends.
        """
        changed = changed_tables(self._config, config)
        shown = {known.chain[0] for known in self._certificates}
        self._config = config
        try:
            self._certificates = load_server_certificates(config)
            self.say()
        except (ConfigurationError, OSError) as error:
            # It was there a moment ago, or the server would not go by it: no reason to end.
            _log.warning("%s", error)
        return changed + [
            f"{new.file} until {new.end:%Y-%m-%d}"
            for new in self._certificates
            if new.chain[0] not in shown
        ]


def ends(certificates: tuple[ServerCertificate, ...], *, now: datetime) -> list[str]:
    """A sentence for each of ``certificates`` that has ended or soon does."""
    warnings = (certificate.warning(now) for certificate in certificates)
    return [warning for warning in warnings if warning is not None]


def unsafe_settings(config: ServerConfig) -> list[str]:
    """What lets others in, or may, one sentence each."""
    warnings = []
    if config.devices.allow_unsigned:
        warnings.append(
            "[devices] allow_unsigned is on: anybody's device list can be imported; for real "
            "devices, configure [[list_signers]] and turn it off"
        )
    if config.store.unsealed:
        warnings.append(
            "[store] unsealed is on: whoever can write the store can add devices; take it out, "
            "make a key and seal the rows with: est-server devices seal --new-key"
        )
    directory = config.trust.manufacturers
    if directory is not None and directory.stat().st_mode & 0o022:
        warnings.append(f"{directory} can be written by others, who could add a manufacturer")
    return warnings

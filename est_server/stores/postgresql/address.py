"""Where a PostgreSQL database is, and how safely it is reached."""

from __future__ import annotations

import ipaddress
import logging
import os

from est_protocol.errors import ConfigurationError

_log = logging.getLogger(__name__)

_SCHEMES = ("postgresql://", "postgres://")


class PostgresqlAddress:
    """A connection URL of libpq; shown to people without its password.

    :param url: ``postgresql://user@host:port/database?sslmode=...``, with any parameter of libpq.
    :raises ConfigurationError: libpq does not take it, or psycopg is not installed.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(_SCHEMES):
            raise ConfigurationError("expected a URL that begins with postgresql://")
        self._url = url
        self.parameters()

    @classmethod
    def from_text(cls, text: str) -> PostgresqlAddress:
        """The address that a configuration or a command names."""
        return cls(text)

    @property
    def url(self) -> str:
        """The URL with all that is in it."""
        return self._url

    def parameters(self) -> dict[str, str]:
        """What the URL states, and where it says nothing of TLS, what keeps the peer honest.

        Over a network libpq would by itself take any server, with TLS or without; the default
        here is a certificate for the host's name from an authority that the system trusts.
        """
        try:
            from psycopg import ProgrammingError
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise ConfigurationError("for PostgreSQL install est-enrollment[postgresql]") from error
        try:
            stated = {key: str(value) for key, value in conninfo_to_dict(self._url).items()}
        except ProgrammingError:
            # libpq's own words repeat the URL, password and all; so nothing of them is kept.
            raise ConfigurationError("libpq does not understand the PostgreSQL URL") from None
        if "sslmode" not in stated and not _is_local(stated):
            stated["sslmode"] = "verify-full"
            stated.setdefault("sslrootcert", "system")
        return stated

    def warn_of_weakness(self) -> None:
        """Say in the log that somebody between here and the database could be it."""
        stated = self.parameters()
        if not _is_local(stated) and stated["sslmode"] != "verify-full":
            _log.warning(
                "sslmode=%s does not make sure that %s is the right server", stated["sslmode"], self
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostgresqlAddress) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __str__(self) -> str:
        stated = self.parameters()
        user = f"{stated['user']}@" if "user" in stated else ""
        host = stated.get("host", stated.get("hostaddr", ""))
        port = f":{stated['port']}" if "port" in stated else ""
        return f"postgresql://{user}{host}{port}/{stated.get('dbname', '')}"

    def __repr__(self) -> str:
        return f"PostgresqlAddress({str(self)!r})"


def _is_local(stated: dict[str, str]) -> bool:
    """Whether nothing but this machine's kernel is between us and the database."""
    if "service" in stated or "PGSERVICE" in os.environ:
        return False
    hosts = stated.get("hostaddr") or stated.get("host") or os.environ.get("PGHOST", "")
    return all(_is_local_host(host) for host in hosts.split(","))


def _is_local_host(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

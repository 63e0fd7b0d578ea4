"""Whether to follow a redirect, and where to (RFC 7030 section 3.2.1).

Within the origin that the caller named a redirect is followed without asking. Another origin is
another server: the caller has to have agreed to it, it is verified under its own name like the
first, and neither a password nor a one-time secret goes there. CoAP has no redirects.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from yarl import URL

from est_client.connection import Connector
from est_client.http_answers import printable
from est_protocol.errors import ConfigurationError, MessageError, ServerRefused
from est_protocol.operations import Operation

#: How many redirects one request follows by default; more is a loop.
MOST_REDIRECTS = 5

#: Statuses after which the same request goes to another URL (RFC 9110 section 15.4). A 301 or
#: 302 may turn a POST into a GET, but need not, and no EST operation is a GET after a POST.
_SAME_REQUEST = frozenset({301, 302, 307, 308})
_SEE_OTHER = 303


@dataclass(frozen=True, slots=True)
class Origin:
    """One web server: scheme ``https``, a host and a port (RFC 6454).

    :param host: in lower case, an IPv6 address without brackets.
    """

    host: str
    port: int = 443

    @classmethod
    def of(cls, host: str, port: int) -> Origin:
        """The origin of a host however it is written."""
        try:
            return cls(str(ipaddress.ip_address(host)), port)
        except ValueError:
            return cls(host.lower().rstrip("."), port)

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read ``HOST[:PORT]``, an IPv6 address in brackets.

        :raises ConfigurationError: it is something else.
        """
        try:
            parts = urlsplit(f"//{text}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigurationError(f"{text!r} is not HOST or HOST:PORT")
        return cls.of(host, port or 443)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedirectPolicy:
    """Which redirects a client follows.

    :param allowed: the other origins that the caller agrees to; an origin says nothing about
        those that it redirects to itself.
    :param limit: redirects of one request at most; 0 follows none.
    """

    allowed: frozenset[Origin] = frozenset()
    limit: int = MOST_REDIRECTS

    @classmethod
    def allowing(cls, *origins: str) -> RedirectPolicy:
        """The usual policy that agrees to ``origins``, each ``HOST[:PORT]``.

        :raises ConfigurationError: one is something else.
        """
        return cls(frozenset(map(Origin.parse, origins)))


@dataclass(frozen=True, slots=True)
class Target:
    """Where a redirect leads to.

    :param path: path and query, percent-encoded.
    """

    origin: Origin
    path: str


class Redirected(ServerRefused):
    """The server has redirected the request; a refusal for whoever does not follow.

    :param path: path and query of the URL, percent-encoded.
    :param connector: makes connections to its origin.
    :param home: whether that is the origin that the caller named.
    """

    def __init__(self, status: int, target: Target, *, connector: Connector, home: bool) -> None:
        super().__init__(
            str(status), printable(f"redirected to https://{target.origin}{target.path}")
        )
        self.origin = target.origin
        self.path = target.path
        self.connector = connector
        self.home = home


def target_of(
    status: int, operation: Operation, locations: Sequence[str], base: URL
) -> Target | None:
    """Where an HTTP answer redirects to; ``None`` if it is no redirect that can be followed.

    :param locations: the values of Location.
    :param base: the URL that was asked.
    :raises MessageError: it leads out of HTTPS, or to what is no URL.
    """
    sees_other = status == _SEE_OTHER and operation.method == "GET"
    if not (status in _SAME_REQUEST or sees_other) or not locations:
        return None
    if len(locations) > 1:
        raise MessageError("the server redirects to more than one URL")
    shown = printable(locations[0])
    try:
        url = base.join(URL(locations[0]))
        plain = url.scheme == "https" and url.host and not (url.user or url.password)
        origin = Origin.of(url.host or "", url.port or 443)
    except ValueError as error:
        raise MessageError(f"the server redirects to what is no URL: {shown}") from error
    if not plain:
        raise MessageError(f"redirected to {shown}; only https is followed (RFC 7030 section 3.3)")
    return Target(origin, url.raw_path_qs)


class Route:
    """The redirects that one request has followed so far."""

    def __init__(self, policy: RedirectPolicy) -> None:
        self._policy = policy
        self._followed = 0

    def follow(self, redirect: Redirected) -> None:
        """Count a redirect that is about to be followed.

        :raises ServerRefused: it is one too many, or leads to an origin that the caller has not
            agreed to.
        """
        self._followed += 1
        if self._followed > self._policy.limit:
            raise _not_followed(redirect, f"no more than {self._policy.limit} are followed")
        if not redirect.home and redirect.origin not in self._policy.allowed:
            raise _not_followed(redirect, "that is another server, and has to be allowed")


def _not_followed(redirect: Redirected, why: str) -> ServerRefused:
    return ServerRefused(redirect.status, f"{redirect.explanation}; {why}")

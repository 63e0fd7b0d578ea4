"""Where an EST server is: the URL that an operator writes (RFC 7030 section 3.2.2, RFC 9148
section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import SplitResult, unquote, urlsplit

from est_protocol.errors import ConfigurationError
from est_protocol.labels import check_label, read_label
from est_protocol.messages import Transport

_WELL_KNOWN = (".well-known", "est")
_DEFAULT_PORTS = {Transport.HTTPS: 443, Transport.COAPS: 5684}


@dataclass(frozen=True, slots=True)
class ServerLocation:
    """One EST server, or one label of it.

    :param transport: HTTPS or CoAPS.
    :param host: DNS name, or IP address literal without brackets.
    :param port: TCP or UDP port.
    :param label: the path segment that selects a CA, or ``None``.
    :param root: the path segments in front; anything but ``/.well-known/est`` on CoAPS only.
    """

    transport: Transport
    host: str
    port: int
    label: str | None = None
    root: tuple[str, ...] = _WELL_KNOWN

    @classmethod
    def parse(cls, url: str) -> ServerLocation:
        """Read ``https://HOST[:PORT][/.well-known/est[/LABEL]]`` or the same with ``coaps``.

        On CoAPS the server's short root may stand in place of ``/.well-known/est``.

        :raises ConfigurationError: it is something else; plain HTTP and CoAP above all.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{url!r} is no URL: {error}") from error
        transport = _transport(parts, url)
        if not parts.hostname:
            raise ConfigurationError(f"{url!r} names no host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigurationError(f"{url!r}: only host, port and path belong there")
        root, label = _path(parts.path, transport, url)
        return cls(transport, parts.hostname, port or _DEFAULT_PORTS[transport], label, root)

    def with_label(self, label: str) -> ServerLocation:
        """The same server under ``label``.

        :raises ConfigurationError: it has another label already, or ``label`` cannot be one.
        """
        if self.label not in (None, label):
            raise ConfigurationError(f"the URL has the label {self.label!r}, not {label!r}")
        check_label(label)
        return replace(self, label=label)


def _transport(parts: SplitResult, url: str) -> Transport:
    try:
        return Transport(parts.scheme)
    except ValueError as error:
        raise ConfigurationError(f"{url!r} must begin with https:// or coaps://") from error


def _path(path: str, transport: Transport, url: str) -> tuple[tuple[str, ...], str | None]:
    written = [segment for segment in path.split("/") if segment]
    segments = tuple(map(unquote, written))
    if not segments:
        return _WELL_KNOWN, None
    if segments[:2] == _WELL_KNOWN:
        split = len(_WELL_KNOWN)
    elif transport is Transport.COAPS:
        split = 1
    else:
        raise ConfigurationError(f"the path of {url!r} must begin with /.well-known/est")
    rest = written[split:]
    if len(rest) > 1:
        raise ConfigurationError(f"the path of {url!r} has more than one label")
    return segments[:split], read_label(rest[0]) if rest else None

"""Where log lines go and how they look.

The audit log has one line for each request, answered or refused; everything else that a server
has to say goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path

from est_protocol.errors import ConfigurationError
from est_server.config.settings import LogFormat, LogSettings

#: The fields of an audit line that are written first and without a name, with their widths.
_LEADING = {"outcome": 15, "transport": 5, "operation": 14, "peer": 21}


class JsonAuditFormatter(logging.Formatter):
    """One JSON object per line: ``time`` (RFC 3339, UTC), ``level``, and what is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for ``record``."""
        fields = getattr(record, "audit", None) or {"message": record.getMessage()}
        return json.dumps(
            {"time": _timestamp(record), "level": record.levelname.lower(), **fields},
            ensure_ascii=True,
        )


class TextAuditFormatter(logging.Formatter):
    """One line for people: time, outcome, transport, operation, peer, then ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for ``record``; what a peer chose cannot break it."""
        fields: dict[str, str] | None = getattr(record, "audit", None)
        if fields is None:
            return f"{_timestamp(record)} {_printable(record.getMessage())}"
        leading = [
            f"{_printable(fields.get(name, '-')):<{width}}" for name, width in _LEADING.items()
        ]
        rest = [
            f"{name}={_quoted(value)}" for name, value in fields.items() if name not in _LEADING
        ]
        return " ".join([_timestamp(record), *leading, *rest]).rstrip()


class AnonymousRefusals(logging.Filter):
    """Bounds the lines about refusals that name no device: a flood must not fill the disk.

    :param per_second: such lines per second, no more than one second's worth at once. The first
        line after some that were left out says how many, as ``suppressed``.
    """

    def __init__(self, per_second: int) -> None:
        super().__init__()
        self._per_second = per_second
        self._left = float(per_second)
        self._at = 0.0
        self._suppressed = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` is written."""
        fields = getattr(record, "audit", None)
        if not fields or fields.get("outcome") != "refused" or "device" in fields:
            return True
        grown = self._left + max(0.0, record.created - self._at) * self._per_second
        self._left = min(float(self._per_second), grown)
        self._at = record.created
        if self._left < 1:
            self._suppressed += 1
            return False
        self._left -= 1
        if self._suppressed:
            record.__dict__["audit"] = {**fields, "suppressed": str(self._suppressed)}
            self._suppressed = 0
        return True


class _PrivateFileHandler(WatchedFileHandler):
    """Appends to a file that only its owner reads; goes on with a new one after a rotation."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return open(descriptor, "a", encoding="utf-8")


@contextmanager
def configured_logging(settings: LogSettings, *, debug: bool = False) -> Iterator[None]:
    """Send the log of this process to where ``settings`` says, for as long as a server runs.

    :param debug: say more on standard error, the libraries included.
    :raises ConfigurationError: the file cannot be written.
    """
    root, audit = logging.getLogger(), logging.getLogger("est_server.audit")
    before = root.level, audit.level, audit.propagate
    lines = _audit_handler(settings)
    everything = logging.StreamHandler(sys.stderr)
    everything.setFormatter(logging.Formatter("est-server: %(levelname)s: %(name)s: %(message)s"))
    root.addHandler(everything)
    audit.addHandler(lines)
    root.setLevel(logging.DEBUG if debug else logging.WARNING)
    audit.setLevel(logging.INFO)
    audit.propagate = False
    try:
        yield
    finally:
        root.setLevel(before[0])
        audit.setLevel(before[1])
        audit.propagate = before[2]
        for logger, handler in ((root, everything), (audit, lines)):
            logger.removeHandler(handler)
            handler.close()


def _audit_handler(settings: LogSettings) -> logging.Handler:
    handler: logging.Handler
    if settings.file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = _open_log(settings.file)
    handler.addFilter(AnonymousRefusals(settings.refusals_per_second))
    json_lines = settings.format is LogFormat.JSON
    handler.setFormatter(JsonAuditFormatter() if json_lines else TextAuditFormatter())
    return handler


def _open_log(file: Path) -> logging.Handler:
    try:
        return _PrivateFileHandler(file)
    except OSError as error:
        raise ConfigurationError(f"audit log {file}: {error.strerror}") from error


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _quoted(value: str) -> str:
    text = _printable(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text else text

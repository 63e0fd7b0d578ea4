"""Log records about what clients send."""

from __future__ import annotations

import logging

from aiohttp.http import HttpProcessingError


class PeerErrorsInOneLine(logging.Filter):
    """Keep tracebacks for our own errors: octets that are not HTTP need none."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            record.msg = f"{record.msg}: malformed HTTP ({error.code})"
        return True

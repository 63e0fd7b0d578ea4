"""One requirement that can be seen from outside, and the check that provokes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from est_protocol.messages import Transport

if TYPE_CHECKING:
    from est_client.conformance.bench import Bench


class Level(StrEnum):
    """How much a requirement binds (RFC 2119)."""

    MUST = "MUST"
    MUST_NOT = "MUST NOT"
    SHOULD = "SHOULD"
    SHOULD_NOT = "SHOULD NOT"
    MAY = "MAY"

    @property
    def binds(self) -> bool:
        """Whether a server that fails it does not conform."""
        return self in (Level.MUST, Level.MUST_NOT)


class Outcome(StrEnum):
    """What became of one row."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"
    #: The check itself came to no end: a defect of the runner, or its limits were reached.
    ERROR = "error"


class Failed(Exception):
    """The server does not do what the row asks for; the text says what it did."""


class NotApplicable(Exception):
    """The row cannot be checked on this server with these credentials; the text says why."""


#: Provokes the requirement and returns the evidence for it.
#:
#: Raises Failed, or NotApplicable; a MessageError or ChannelError of the server counts as Failed.
Check = Callable[["Bench"], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    :param id: its name, such as ``SE-03``.
    :param level: how much it binds.
    :param reference: RFC and section.
    :param title: the requirement in one line.
    :param transports: where it applies.
    :param check: see :data:`Check`.
    """

    id: str
    level: Level
    reference: str
    title: str
    transports: frozenset[Transport]
    check: Check


#: Every row in the order in which they are run; filled by :func:`row`.
REGISTERED: list[Row] = []


def row(
    id: str, level: Level, reference: str, title: str, *transports: Transport
) -> Callable[[Check], Check]:
    """Register the decorated check as a row, on every transport unless some are named."""

    def register(check: Check) -> Check:
        REGISTERED.append(
            Row(id, level, reference, title, frozenset(transports or Transport), check)
        )
        return check

    return register


def require(condition: bool, otherwise: str) -> None:
    """Go on only if ``condition`` holds.

    :raises Failed: it does not.
    """
    if not condition:
        raise Failed(otherwise)

"""Duplicate detection of one session (RFC 7252 section 4.2 and 4.5), bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Entry:
    expires_at: float
    answer: bytes | None = None


class RecentRequests:
    """The Message IDs of a session's latest requests, and what they were answered with.

    :param count: how many are remembered at most.
    :param octets: how many octets of answers are remembered at most.
    :param lifetime: seconds for which one is remembered, if there is room.
    """

    def __init__(self, *, count: int, octets: int, lifetime: float) -> None:
        self._count = count
        self._octets = octets
        self._lifetime = lifetime
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._used = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def octets(self) -> int:
        """Octets of the answers that are remembered."""
        return self._used

    def is_duplicate(self, message_id: int, now: float) -> bool:
        """Whether a request with this Message ID came before."""
        self._expire(now)
        return message_id in self._entries

    def answer(self, message_id: int) -> bytes | None:
        """What it was answered with, if it was."""
        entry = self._entries.get(message_id)
        return entry.answer if entry is not None else None

    def begin(self, message_id: int, now: float) -> None:
        """Remember a new request; the one whose answer is oldest may be forgotten for it."""
        self._entries[message_id] = _Entry(now + self._lifetime)
        while len(self._entries) > self._count and self._forget_oldest_answered():
            pass

    def complete(self, message_id: int, answer: bytes) -> None:
        """Remember what a request was answered with."""
        entry = self._entries.get(message_id)
        if entry is None:
            return
        self._used += len(answer) - len(entry.answer or b"")
        entry.answer = answer
        while self._used > self._octets and self._forget_oldest_answered():
            pass

    def _expire(self, now: float) -> None:
        while self._entries and next(iter(self._entries.values())).expires_at <= now:
            _, entry = self._entries.popitem(last=False)
            self._used -= len(entry.answer or b"")

    def _forget_oldest_answered(self) -> bool:
        """A request that is still being worked on stays, lest a duplicate of it be a new one."""
        for message_id, entry in self._entries.items():
            if entry.answer is not None:
                self._used -= len(entry.answer)
                del self._entries[message_id]
                return True
        return False

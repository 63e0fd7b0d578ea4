"""JSON objects from outside: no name twice, no number that is none (RFC 8259 section 4)."""

from __future__ import annotations

import json
from typing import NoReturn


class NotStrictJson(Exception):
    """The text is not what it should be; the message says why."""


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrictJson("not JSON: a name stands twice in an object")
    return members


def _no_constant(text: str) -> NoReturn:
    raise NotStrictJson(f"not JSON: {text} is no number")


DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
"""Decodes text; besides :class:`NotStrictJson`, it raises what :func:`load_object` catches."""


def load_object(text: str | bytes) -> dict[str, object]:
    """The members of the one object that is all of ``text``.

    :raises NotStrictJson: it is something else.
    """
    try:
        value = DECODER.decode(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise NotStrictJson("not JSON: nested too deeply") from error
    except ValueError as error:
        raise NotStrictJson(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise NotStrictJson("not a JSON object")
    return value

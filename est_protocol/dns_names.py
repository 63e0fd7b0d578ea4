"""Which texts are names of hosts."""

from __future__ import annotations

import re

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LONGEST = 253


def is_dns_name(text: str) -> bool:
    """Whether ``text`` is the name of one host, as a dNSName has it (RFC 5280 section 4.2.1.6).

    ASCII only, internationalized names in their ``xn--`` form; no wildcard, no final dot and
    nothing that might be taken for an IP address. An underscore is tolerated, since hosts of
    private networks have it.
    """
    labels = text.split(".")
    if len(text) > _LONGEST or labels[-1].isdigit():
        return False
    return all(_LABEL.fullmatch(label) for label in labels)

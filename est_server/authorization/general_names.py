"""subjectAltName entries, from a profile's templates and a device's record.

No value of a record can make a name of another kind or reach beyond its place in the template: a
host name stays one without wildcard or NUL, and a URI keeps its scheme and its authority.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

from cryptography import x509

from est_protocol.dns_names import is_dns_name

KINDS = ("dns", "uri", "ip", "email")

#: Substitutes placeholders in a template, after passing each value through a function.
Fill = Callable[[str, Callable[[str], str]], str]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#-;=?-\[\]_a-z~]+")
_MAILBOX = re.compile(r"[!#-'*+./0-9=?A-Z^-~-]{1,64}@([^@]+)")


def general_name(kind: str, template: str, fill: Fill) -> x509.GeneralName:
    """The name of ``kind``, one of :data:`KINDS`, that ``template`` gives.

    :raises ValueError: it would not be one.
    """
    return _MAKERS[kind](template, fill)


def _unchanged(value: str) -> str:
    return value


def _dns(template: str, fill: Fill) -> x509.GeneralName:
    text = fill(template, _unchanged)
    if not is_dns_name(text):
        raise ValueError("not the name of a host")
    return x509.DNSName(text)


def _uri(template: str, fill: Fill) -> x509.GeneralName:
    # A template that is nothing but a placeholder leaves the whole URI to the record.
    whole = re.fullmatch(r"\{\w+\}", template)
    text = fill(template, _unchanged if whole else _quoted)
    if not _URI.fullmatch(text):
        raise ValueError("not a URI")
    return x509.UniformResourceIdentifier(text)


def _quoted(value: str) -> str:
    return quote(value, safe=":")


def _ip(template: str, fill: Fill) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(fill(template, _unchanged)))


def _email(template: str, fill: Fill) -> x509.GeneralName:
    text = fill(template, _unchanged)
    mailbox = _MAILBOX.fullmatch(text)
    if mailbox is None or not is_dns_name(mailbox[1]):
        raise ValueError("not a mail address")
    return x509.RFC822Name(text)


_MAKERS: Mapping[str, Callable[[str, Fill], x509.GeneralName]] = {
    "dns": _dns,
    "uri": _uri,
    "ip": _ip,
    "email": _email,
}

"""What a server asks for in a CSR, in lines for people to read."""

from __future__ import annotations

from est_protocol import name_slots, name_values
from est_protocol.csr_attributes import ExtensionTemplate, NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes
from est_protocol.oid_names import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    OTP_CHALLENGE,
    SUBJECT_ALT_NAME,
    name_of,
)

_FILL_IN = "(to fill in)"


def lines_of(wishes: CsrWishes) -> list[str]:
    """One line for each thing that is asked for, and for each part that made no sense."""
    attributes = {
        CHALLENGE_PASSWORD: (wishes.link, " with the channel binding"),
        EST_IDENTITY_LINKING: (wishes.identity_linking, " with the channel binding"),
        OTP_CHALLENGE: (wishes.otp_challenge, " with a one-time secret"),
    }
    lines = [f"attribute {name_of(o)}{what}" for o, (asked, what) in attributes.items() if asked]
    if wishes.key is not None:
        lines.append(f"key {name_of(wishes.key)}")
    if wishes.signature_algorithms:
        lines.append(f"signature {' or '.join(map(name_of, wishes.signature_algorithms))}")
    lines += [f"subject {'+'.join(map(_attribute, rdn))}" for rdn in wishes.subject]
    lines += [_extension(extension) for extension in wishes.extensions]
    lines += [f"attribute {name_of(oid)}" for oid in wishes.attributes]
    return lines + [f"malformed, ignored: {problem}" for problem in wishes.problems]


def _attribute(attribute: NameAttributeTemplate) -> str:
    name, value = name_of(attribute.oid), attribute.value
    return f"{name} {_FILL_IN}" if value is None else f"{name}={name_values.text_of(value)!r}"


def _extension(extension: ExtensionTemplate) -> str:
    critical = ", critical" if extension.critical else ""
    return f"extension {name_of(extension.oid)}{critical}: {_value(extension)}"


def _value(extension: ExtensionTemplate) -> str:
    if extension.value is None:
        return _FILL_IN
    if extension.oid != SUBJECT_ALT_NAME:
        return extension.value.hex()
    entries = name_slots.entries_of(extension.value)
    return ", ".join(f"{e.kind} {_FILL_IN}" if e.is_open else ascii(str(e))[1:-1] for e in entries)

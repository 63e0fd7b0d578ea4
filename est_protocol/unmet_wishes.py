"""What a CSR lacks of what the server asked for (RFC 8951 section 4, RFC 9908 section 3.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from est_protocol import name_slots, name_values, wanted_keys
from est_protocol.csr_attributes import ExtensionTemplate
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import MessageError
from est_protocol.keys import key_kind
from est_protocol.oid_names import SUBJECT_ALT_NAME, name_of
from est_protocol.pkcs10 import CertificationRequest


def unmet(wishes: CsrWishes, csr: CertificationRequest) -> tuple[str, ...]:
    """Each thing that ``csr`` lacks of ``wishes``, in words that the client may be told.

    What is there beyond the wishes is no fault. That a linking value is the right one is checked
    elsewhere; here it only has to be there, and estIdentityLinking will do for both (RFC 7894
    section 4).
    """
    return (
        *_linking(wishes, csr),
        *_key(wishes, csr),
        *_subject(wishes, csr),
        *(lack for extension in wishes.extensions for lack in _extension(extension, csr)),
        *(f"attribute {name_of(oid)}" for oid in wishes.attributes if not _has(csr, oid)),
    )


def _linking(wishes: CsrWishes, csr: CertificationRequest) -> Iterator[str]:
    linked = csr.challenges.identity_linking is not None
    if wishes.link and not linked and csr.challenges.challenge_password is None:
        yield "challengePassword with the channel binding"
    elif wishes.identity_linking and not linked and not wishes.link:
        yield "estIdentityLinking with the channel binding"
    if wishes.otp_challenge and csr.challenges.otp_challenge is None:
        yield "otpChallenge"


def _key(wishes: CsrWishes, csr: CertificationRequest) -> Iterator[str]:
    if wishes.key is not None and not wanted_keys.fits(wishes.key, csr.public_key):
        yield f"a key of kind {wishes.key} (it is {key_kind(csr.public_key)})"
    if wishes.signature_algorithms and csr.signature_algorithm not in wishes.signature_algorithms:
        wanted = " or ".join(map(name_of, wishes.signature_algorithms))
        yield f"a signature by {wanted} (it is {name_of(csr.signature_algorithm)})"


def _subject(wishes: CsrWishes, csr: CertificationRequest) -> Iterator[str]:
    wanted = [attribute for rdn in wishes.subject for attribute in rdn]
    left = Counter((a.oid.dotted_string, str(a.value)) for a in csr.subject)
    for attribute in wanted:
        if attribute.value is not None:
            text = name_values.text_of(attribute.value)
            if not left[attribute.oid, text]:
                yield f"subject {name_of(attribute.oid)}={text}"
            left[attribute.oid, text] -= 1
    for attribute in wanted:
        if attribute.value is None:
            found = next((k for k, n in left.items() if k[0] == attribute.oid and n > 0), None)
            if found is None:
                yield f"subject {name_of(attribute.oid)}"
            else:
                left[found] -= 1


def _extension(wanted: ExtensionTemplate, csr: CertificationRequest) -> Iterator[str]:
    name = name_of(wanted.oid)
    found = csr.extensions.get(wanted.oid)
    if found is None:
        yield f"extension {name}"
        return
    if wanted.critical and not found.critical:
        yield f"extension {name} marked critical"
    if wanted.value is None:
        return
    if wanted.oid == SUBJECT_ALT_NAME and found.value is not None:
        yield from _names(wanted.value, found.value)
    elif wanted.value != found.value:
        yield f"extension {name} with the value that was asked for"


def _names(wanted: bytes, found: bytes) -> Iterator[str]:
    entries = name_slots.entries_of(wanted)
    try:
        left = list(name_slots.entries_of(found))
    except MessageError:
        yield "extension subjectAltName that can be read"
        return
    given = [entry for entry in entries if not entry.is_open]
    for entry in given:
        if entry in left:
            left.remove(entry)
        else:
            yield f"subjectAltName {entry}"
    for entry in entries:
        if entry.is_open:
            match = next((e for e in left if e.kind == entry.kind and not e.is_open), None)
            if match is None:
                yield f"subjectAltName of kind {entry.kind}"
            else:
                left.remove(match)


def _has(csr: CertificationRequest, oid: str) -> bool:
    """Where RFC 9908 section 5 expects what a bare OID asks for."""
    in_subject = any(attribute.oid.dotted_string == oid for attribute in csr.subject)
    return in_subject or oid in csr.attributes or oid in csr.directory_attributes

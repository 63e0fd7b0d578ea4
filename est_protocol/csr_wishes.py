"""What a server asks for in a CSR, whichever way it said it (RFC 8951 section 4, RFC 9908).

:func:`read` takes a message of either language, or of both, to one :class:`CsrWishes`;
:func:`write` makes the message that says it in both. What the RFCs leave open is decided so:

- Where there is a template it alone counts (RFC 9908 section 4). It has no place for a signature
  algorithm, so clients that understand it are not told of one.
- In the list, a bare OID or an Attribute of a type that belongs into a distinguished name is a
  wish for the subject, and a bare OID of an extension a wish for that extension.
- In a template, challengePassword and its like stand as attributes without values, as RFC 9908
  section 3.2 has it for keys.
- A part that makes no sense is left out and noted, and the rest holds: RFC 7030's own example has
  such a part, and unknown ones have to be ignored anyway (RFC 8951 section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from est_protocol import name_slots, name_values, wanted_keys
from est_protocol.csr_attributes import (
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    EXTENSION_TEMPLATE_MISPRINTED,
    REQUEST_INFO_TEMPLATE,
    CsrAttribute,
    CsrAttributes,
    ExtensionTemplate,
    KeyTemplate,
    NameAttributeTemplate,
    RequestTemplate,
    asking_for,
    encode_template,
    extensions_of,
)
from est_protocol.errors import MessageError
from est_protocol.oid_names import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    NAME_ATTRIBUTES,
    OTP_CHALLENGE,
    SIGNATURE_ALGORITHMS,
    SUBJECT_ALT_NAME,
    name_of,
)

_EXTENSION_ATTRIBUTES = {EXTENSION_REQUEST, EXTENSION_TEMPLATE, EXTENSION_TEMPLATE_MISPRINTED}
_X520 = "2.5.4."
_X509_EXTENSIONS = "2.5.29."
_NAME_TYPES = frozenset(NAME_ATTRIBUTES.values())
_SIGNATURES = frozenset(SIGNATURE_ALGORITHMS.values())

_T = TypeVar("_T")

RelativeName = tuple[NameAttributeTemplate, ...]


@dataclass(frozen=True, slots=True)
class CsrWishes:
    """What a CSR should have in it; nothing at all by default.

    :param link: challengePassword with the channel binding (RFC 7030 section 3.5).
    :param identity_linking: estIdentityLinking, for the same (RFC 7894 section 3).
    :param otp_challenge: otpChallenge, for a one-time secret (RFC 7894 section 3).
    :param key: the kind of key, as :mod:`est_protocol.wanted_keys` names it; ``None`` for any.
    :param signature_algorithms: OIDs of signature algorithms, any one of which is meant.
    :param subject: the relative distinguished names; each attribute with its value, or with
        ``None`` for the client to fill in.
    :param extensions: the extensions, their values complete, filled in only in part, or open.
    :param attributes: OIDs of other attributes.
    :param problems: what was left out of a message because it made no sense, in words.
    :param as_template: whether a template says it, and so what is not in it is not wanted (RFC
        9908 section 3.4); a list leaves the rest to the client.
    """

    link: bool = False
    identity_linking: bool = False
    otp_challenge: bool = False
    key: str | None = None
    signature_algorithms: tuple[str, ...] = ()
    subject: tuple[RelativeName, ...] = ()
    extensions: tuple[ExtensionTemplate, ...] = ()
    attributes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    as_template: bool = field(default=False, compare=False)

    def __bool__(self) -> bool:
        """Whether anything is wished for."""
        return (self if not self.problems else replace(self, problems=())) != _NOTHING

    def without_names(self) -> CsrWishes:
        """The same, but for subject and subjectAltName.

        What holds for a renewal, which repeats those of the current certificate (RFC 7030
        section 4.2.2).
        """
        kept = tuple(e for e in self.extensions if e.oid != SUBJECT_ALT_NAME)
        return replace(self, subject=(), extensions=kept)


_NOTHING = CsrWishes()


def read(message: CsrAttributes) -> CsrWishes:
    """What ``message`` asks for; never fails, see ``problems`` of the result."""
    problems: list[str] = []
    try:
        template = message.template
    except MessageError as error:
        problems.append(f"template: {error}")
        template = None
    reading = _Reading(problems)
    if template is None:
        elements = [e for e in message.elements if e.oid != REQUEST_INFO_TEMPLATE]
        reading.extensions(elements)
        reading.list_elements(elements)
    else:
        reading.extensions(template.attributes)
        reading.template(template)
    return replace(reading.wishes(), as_template=template is not None)


def write(wishes: CsrWishes) -> CsrAttributes:
    """The message that says ``wishes`` as a list and, where it says of subject, key or
    extensions, as a template too (RFC 9908 section 4).

    The order of the elements means nothing to the RFCs. Bare OIDs come last: libest's estclient
    never ends with a message in which something else follows the last OID.

    :raises ValueError: an extension is there twice, a value is malformed, or the kind of key is
        unknown.
    """
    oids = [extension.oid for extension in wishes.extensions]
    if len(set(oids)) != len(oids):
        raise ValueError("an extension is asked for twice")
    elements, bare = [], [CsrAttribute(oid) for oid in _asked_attributes(wishes)]
    if wishes.subject or wishes.key is not None or wishes.extensions:
        elements.append(encode_template(_template_of(wishes)))
    for attribute in (attribute for rdn in wishes.subject for attribute in rdn):
        if attribute.value is None:
            bare.append(CsrAttribute(attribute.oid))
        else:
            elements.append(CsrAttribute(attribute.oid, (attribute.value,)))
    complete = [e for e in wishes.extensions if not is_open(e)]
    if complete:
        elements.append(asking_for(complete))
    if wishes.key is not None:
        elements.append(wanted_keys.to_attribute(wishes.key))
    bare += [CsrAttribute(e.oid) for e in wishes.extensions if is_open(e)]
    bare += [CsrAttribute(oid) for oid in (*wishes.attributes, *wishes.signature_algorithms)]
    return CsrAttributes((*elements, *bare))


def is_open(extension: ExtensionTemplate) -> bool:
    """Whether the client has to fill something in.

    :raises ValueError: it is a subjectAltName that does not decode.
    """
    if extension.value is None:
        return True
    if extension.oid != SUBJECT_ALT_NAME:
        return False
    try:
        return any(entry.is_open for entry in name_slots.entries_of(extension.value))
    except MessageError as error:
        raise ValueError(str(error)) from error


def _asked_attributes(wishes: CsrWishes) -> list[str]:
    asked = {
        CHALLENGE_PASSWORD: wishes.link,
        EST_IDENTITY_LINKING: wishes.identity_linking,
        OTP_CHALLENGE: wishes.otp_challenge,
    }
    return [oid for oid, wanted in asked.items() if wanted]


def _template_of(wishes: CsrWishes) -> RequestTemplate:
    asked = (*_asked_attributes(wishes), *wishes.attributes)
    attributes = [CsrAttribute(oid, ()) for oid in asked]
    if wishes.extensions:
        left_open = any(is_open(extension) for extension in wishes.extensions)
        attributes.append(asking_for(wishes.extensions, partial_values=left_open))
    return RequestTemplate(
        subject=wishes.subject or None,
        key=None if wishes.key is None else wanted_keys.to_template(wishes.key),
        attributes=tuple(attributes),
    )


@dataclass(slots=True)
class _Reading:
    """One message while it is read."""

    problems: list[str]
    found: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    subject: list[RelativeName] = field(default_factory=list)
    asked_extensions: list[ExtensionTemplate] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)

    def wishes(self) -> CsrWishes:
        if len(set(self.keys)) > 1:
            self.problems.append("more than one kind of key is asked for")
            self.keys.clear()
        return CsrWishes(
            link=CHALLENGE_PASSWORD in self.found,
            identity_linking=EST_IDENTITY_LINKING in self.found,
            otp_challenge=OTP_CHALLENGE in self.found,
            key=self.keys[0] if self.keys else None,
            signature_algorithms=tuple(self.signatures),
            subject=tuple(self.subject),
            extensions=tuple(self.asked_extensions),
            attributes=tuple(self.attributes),
            problems=tuple(self.problems),
        )

    def extensions(self, attributes: Sequence[CsrAttribute]) -> None:
        self._noting("extensions", self._extensions, attributes)

    def list_elements(self, elements: Iterable[CsrAttribute]) -> None:
        for element in elements:
            self._noting(name_of(element.oid), self._list_element, element)

    def template(self, template: RequestTemplate) -> None:
        for rdn in template.subject or ():
            self._noting("subject", self._relative_name, rdn)
        if template.key is not None:
            self._noting("key", self._key, template.key)
        for attribute in template.attributes:
            self._request_attribute(attribute.oid)

    def _extensions(self, attributes: Sequence[CsrAttribute]) -> None:
        extensions = extensions_of(attributes)
        for extension in extensions:
            if extension.oid == SUBJECT_ALT_NAME and extension.value is not None:
                name_slots.entries_of(extension.value)
        self.asked_extensions.extend(extensions)

    def _list_element(self, element: CsrAttribute) -> None:
        oid, bare = element.oid, element.values is None
        if bare and oid in _SIGNATURES:
            self.signatures.append(oid)
        elif oid in wanted_keys.ALGORITHMS:
            self.keys.append(wanted_keys.from_attribute(element))
        elif oid in _NAME_TYPES or oid.startswith(_X520):
            for value in element.values or (None,):
                self._relative_name((NameAttributeTemplate(oid, value),))
        elif bare and oid.startswith(_X509_EXTENSIONS):
            if oid not in (extension.oid for extension in self.asked_extensions):
                self.asked_extensions.append(ExtensionTemplate(oid, False, None))
        else:
            self._request_attribute(oid)

    def _request_attribute(self, oid: str) -> None:
        if oid in (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING, OTP_CHALLENGE):
            self.found.add(oid)
        elif oid not in _EXTENSION_ATTRIBUTES:
            self.attributes.append(oid)

    def _relative_name(self, rdn: RelativeName) -> None:
        for attribute in rdn:
            if attribute.value is not None:
                name_values.name_attribute(attribute.oid, attribute.value)
        self.subject.append(rdn)

    def _key(self, key: KeyTemplate) -> None:
        self.keys.append(wanted_keys.from_template(key))

    def _noting(self, part: str, do: Callable[[_T], None], argument: _T) -> None:
        try:
            do(argument)
        except MessageError as error:
            self.problems.append(f"{part}: {error}")

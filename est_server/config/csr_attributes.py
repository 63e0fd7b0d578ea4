"""The table ``csr_attributes`` of a label: what CSRs should have in them, in the RFCs' terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509

from est_protocol import name_slots, name_values
from est_protocol.csr_attributes import ExtensionTemplate, NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes, write
from est_protocol.oid_names import (
    EXTENDED_KEY_USAGE,
    EXTENSIONS,
    KEY_USAGE,
    NAME_ATTRIBUTES,
    REQUEST_ATTRIBUTES,
    SIGNATURE_ALGORITHMS,
    SUBJECT_ALT_NAME,
    oid_of,
)
from est_server.authorities.building import KEY_USAGES, key_usage
from est_server.authorization.general_names import general_name


@dataclass(frozen=True, slots=True)
class ExtensionSettings:
    """An extension, by its name or dotted OID.

    :param critical: whether it should be marked critical.
    :param value: the DER of its value in hex; without it the client fills it in.
    """

    critical: bool = False
    value: str | None = None


@dataclass(frozen=True, slots=True)
class CsrAttributesSettings:
    """What CSRs should have in them, as /csrattrs tells clients (RFC 8951 section 4, RFC 9908).

    It decides about CSRs only; what gets into a certificate is the profile's business. Where
    `require_pop_linking` is on, the linking is announced too.

    :param enforce: refuse CSRs that lack something of it. A renewal repeats the names of the
        current certificate, so it is held to all but those.
    :param challenge_password: ask for linking in challengePassword (RFC 7030 section 3.5).
    :param est_identity_linking: ask for linking in estIdentityLinking (RFC 7894).
    :param otp_challenge: ask for a one-time secret in otpChallenge (RFC 7894).
    :param key: the kind of key: ``ec-p256``, ``rsa-3072`` and so on; ``ec`` for any curve, ``rsa``
        for any size.
    :param signature_algorithms: what the CSR may be signed with, such as ``ecdsa-with-SHA256``.
        Clients that understand templates are not told, as a template has no place for it, and
        not held to it if there is something to put into a template.
    :param subject: attributes of the subject: ``CN`` for the client to fill in, ``OU=pumps``
        with a value; short names or dotted OIDs.
    :param subject_alt_names: entries of subjectAltName: ``dns:``, ``uri:``, ``ip:`` or ``email:``
        and a name, or nothing after the colon for the client to fill in.
    :param key_usages: names of key usage bits, such as ``digital_signature``; critical.
    :param extended_key_usages: extended key usages.
    :param attributes: other attributes, such as ``macAddress`` or a dotted OID.
    :param extensions: other extensions, or one of those above that is left open.
    """

    enforce: bool = True
    challenge_password: bool = False
    est_identity_linking: bool = False
    otp_challenge: bool = False
    key: str | None = None
    signature_algorithms: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    key_usages: frozenset[str] = frozenset()
    extended_key_usages: tuple[x509.ObjectIdentifier, ...] = ()
    attributes: tuple[str, ...] = ()
    extensions: Mapping[str, ExtensionSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check it.

        :raises ValueError: something in it makes no sense.
        """
        write(self.wishes())

    def wishes(self) -> CsrWishes:
        """The same as a value.

        :raises ValueError: something in it makes no sense.
        """
        algorithms = tuple(oid_of(text, SIGNATURE_ALGORITHMS) for text in self.signature_algorithms)
        return CsrWishes(
            link=self.challenge_password,
            identity_linking=self.est_identity_linking,
            otp_challenge=self.otp_challenge,
            key=self.key,
            signature_algorithms=algorithms,
            subject=tuple((_name_attribute(text),) for text in self.subject),
            extensions=self._extensions(),
            attributes=tuple(oid_of(text, REQUEST_ATTRIBUTES) for text in self.attributes),
        )

    def _extensions(self) -> tuple[ExtensionTemplate, ...]:
        extensions = []
        if self.subject_alt_names:
            value = name_slots.encode(_name_entry(text) for text in self.subject_alt_names)
            extensions.append(ExtensionTemplate(SUBJECT_ALT_NAME, False, value))
        if self.key_usages:
            unknown = self.key_usages - KEY_USAGES
            if unknown:
                raise ValueError(f"no such key usage: {', '.join(sorted(unknown))}")
            value = key_usage(self.key_usages).public_bytes()
            extensions.append(ExtensionTemplate(KEY_USAGE, True, value))
        if self.extended_key_usages:
            value = x509.ExtendedKeyUsage(self.extended_key_usages).public_bytes()
            extensions.append(ExtensionTemplate(EXTENDED_KEY_USAGE, False, value))
        for name, settings in self.extensions.items():
            octets = None if settings.value is None else bytes.fromhex(settings.value)
            oid = oid_of(name, EXTENSIONS)
            extensions.append(ExtensionTemplate(oid, settings.critical, octets))
        return tuple(extensions)


def _name_attribute(text: str) -> NameAttributeTemplate:
    name, separator, value = text.partition("=")
    oid = oid_of(name, NAME_ATTRIBUTES)
    if not separator:
        return NameAttributeTemplate(oid, None)
    try:
        return NameAttributeTemplate(oid, name_values.encoded(oid, value))
    except ValueError as error:
        raise ValueError(f"subject {text!r}: {error}") from error


def _name_entry(text: str) -> bytes:
    kind, separator, value = text.partition(":")
    if not separator or kind not in name_slots.OPEN_ENTRIES:
        raise ValueError(f"{text!r} is not dns:, uri:, ip: or email: and a name or nothing")
    if not value:
        return name_slots.OPEN_ENTRIES[kind]
    try:
        name = general_name(kind, value, lambda text, _: text)
    except ValueError as error:
        raise ValueError(f"subject_alt_names {text!r}: {error}") from error
    return name_slots.entry_of(name).der

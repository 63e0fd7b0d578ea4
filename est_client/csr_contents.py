"""What goes into a CSR: what the device wants, or what the server asks for (RFC 9908)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from est_protocol import name_slots, name_values, pkcs10, wanted_keys
from est_protocol.change_subject_name import ChangeSubjectName
from est_protocol.channel_binding import ChannelBinding
from est_protocol.csr_attributes import ExtensionTemplate, NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import ConfigurationError, MessageError
from est_protocol.keys import SigningKey, key_kind
from est_protocol.oid_names import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    NAME_ATTRIBUTES,
    OTP_CHALLENGE,
    REQUEST_ATTRIBUTES,
    SUBJECT_ALT_NAME,
    name_of,
    oid_of,
)

_log = logging.getLogger(__name__)

#: What a device puts into extensions that the server leaves open: clientAuth, digitalSignature.
_DEFAULT_VALUES = {
    EXTENDED_KEY_USAGE: x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]).public_bytes(),
    KEY_USAGE: b"\x03\x02\x07\x80",
}


@dataclass(frozen=True, slots=True)
class CsrContents:
    """What goes into a CSR beside its key and the channel binding.

    :param change: the names to ask for in place of the others.
    :param must_link: the server asks for the binding, whatever the client would do.
    :param linked_by: OID of the attribute that the binding goes into.
    """

    subject: x509.Name
    subject_alt_names: tuple[x509.GeneralName, ...] = ()
    extensions: tuple[ExtensionTemplate, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    algorithm: pkcs10.SignatureHash = None
    must_link: bool = False
    linked_by: str = CHALLENGE_PASSWORD
    change: ChangeSubjectName | None = None

    def build(self, key: SigningKey, binding: ChannelBinding | None) -> bytes:
        """The DER octets of the CSR for ``key``."""
        return pkcs10.build(
            key,
            self.subject,
            subject_alt_names=self.subject_alt_names,
            extensions=self.extensions,
            attributes=self.attributes,
            binding=binding,
            linked_by=self.linked_by,
            algorithm=self.algorithm,
            change=self.change,
        ).der


def contents_as_wished(
    wishes: CsrWishes,
    key: SigningKey,
    *,
    subject: x509.Name,
    subject_alt_names: tuple[x509.GeneralName, ...] = (),
    values: Mapping[str, str] | None = None,
) -> CsrContents:
    """Fill in what the server leaves open, and take over what it gives.

    Where a template of the server's has a subject, nothing else gets into it; a list of attributes
    says what the server wants to see, and the rest of ``subject`` stands in front of them.

    :param subject: where an attribute of the subject comes from that ``values`` does not have;
        the whole subject if the server asks for none.
    :param subject_alt_names: what the slots of a subjectAltName are filled with.
    :param values: texts of attributes of the subject or the request, by OID or short name.
    :raises ConfigurationError: the key is not of the kind that is asked for, or there is nothing
        to fill a name with.
    """
    for problem in wishes.problems:
        _log.warning("ignoring a part of what the server asks for: %s", problem)
    _check_key(wishes, key)
    given = _by_oid(values or {})
    names_wished = any(extension.oid == SUBJECT_ALT_NAME for extension in wishes.extensions)
    return CsrContents(
        subject=_subject(wishes, subject, given) if wishes.subject else subject,
        subject_alt_names=() if names_wished else subject_alt_names,
        extensions=tuple(
            filled
            for extension in wishes.extensions
            if (filled := _filled(extension, subject_alt_names)) is not None
        ),
        attributes=_attributes(wishes, given),
        algorithm=_algorithm(wishes, key),
        must_link=wishes.link or wishes.identity_linking,
        # RFC 7894 section 4: the attribute that is made for it, where the server takes it.
        linked_by=EST_IDENTITY_LINKING if wishes.identity_linking else CHALLENGE_PASSWORD,
    )


def names_to_ask_for(
    subject: x509.Name | None, subject_alt_names: tuple[x509.GeneralName, ...]
) -> ChangeSubjectName:
    """The wish for other names than those of the certificate.

    :raises ConfigurationError: there are none.
    """
    if subject is None and not subject_alt_names:
        raise ConfigurationError("there is no new name to ask for by ChangeSubjectName")
    return ChangeSubjectName(subject, subject_alt_names or None)


def kind_wished(wishes: CsrWishes | None) -> str | None:
    """What kind of key to make so that it is as the server asks; ``None``: it does not care."""
    if wishes is None or wishes.key is None:
        return None
    return {"ec": "ec-p256", "rsa": "rsa-3072"}.get(wishes.key, wishes.key)


def _by_oid(values: Mapping[str, str]) -> dict[str, str]:
    try:
        return {oid_of(k, NAME_ATTRIBUTES | REQUEST_ATTRIBUTES): v for k, v in values.items()}
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _check_key(wishes: CsrWishes, key: SigningKey) -> None:
    if wishes.key is not None and not wanted_keys.fits(wishes.key, key.public_key()):
        raise ConfigurationError(
            f"the server asks for a key of kind {name_of(wishes.key)}, and this one is "
            f"{key_kind(key.public_key())}"
        )


def _algorithm(wishes: CsrWishes, key: SigningKey) -> pkcs10.SignatureHash:
    if not wishes.signature_algorithms:
        return None
    try:
        return pkcs10.hash_of_algorithm(key, wishes.signature_algorithms)
    except LookupError as error:
        wanted = " or ".join(map(name_of, wishes.signature_algorithms))
        raise ConfigurationError(
            f"the server asks for a signature by {wanted}, which a key of kind "
            f"{key_kind(key.public_key())} cannot make"
        ) from error


def _subject(wishes: CsrWishes, subject: x509.Name, given: Mapping[str, str]) -> x509.Name:
    supply: dict[str, list[str]] = {}
    for attribute in subject:
        supply.setdefault(attribute.oid.dotted_string, []).append(str(attribute.value))
    supply |= {oid: [text] for oid, text in given.items()}
    asked = [
        x509.RelativeDistinguishedName([_name_attribute(item, supply) for item in rdn])
        for rdn in wishes.subject
    ]
    oids = {attribute.oid for rdn in wishes.subject for attribute in rdn}
    others = [rdn for rdn in subject.rdns if not any(a.oid.dotted_string in oids for a in rdn)]
    return x509.Name(asked if wishes.as_template else [*others, *asked])


def _name_attribute(
    wished: NameAttributeTemplate, supply: Mapping[str, list[str]]
) -> x509.NameAttribute[str]:
    if wished.value is not None:
        return name_values.name_attribute(wished.oid, wished.value)
    name = name_of(wished.oid)
    texts = supply.get(wished.oid)
    if not texts:
        raise ConfigurationError(f"the server asks for {name} in the subject; no value is given")
    try:
        return x509.NameAttribute(x509.ObjectIdentifier(wished.oid), texts.pop(0))
    except ValueError as error:
        raise ConfigurationError(f"{name} in the subject: {error}") from error


def _filled(
    extension: ExtensionTemplate, names: tuple[x509.GeneralName, ...]
) -> ExtensionTemplate | None:
    """The extension with its value complete; ``None`` if a device cannot know what to put in."""
    if extension.oid == SUBJECT_ALT_NAME:
        value = _alt_names(extension.value, names)
    else:
        value = extension.value or _DEFAULT_VALUES.get(extension.oid, b"")
    if not value:
        _log.warning("the server asks for %s, which is left out", name_of(extension.oid))
        return None
    return ExtensionTemplate(extension.oid, extension.critical, value)


def _alt_names(value: bytes | None, names: tuple[x509.GeneralName, ...]) -> bytes:
    if value is None:
        if not names:
            raise ConfigurationError("the server asks for a subjectAltName; none is given")
        return x509.SubjectAlternativeName(names).public_bytes()
    try:
        return name_slots.fill(value, names)
    except LookupError as error:
        raise ConfigurationError(
            f"the server asks for {error.args[0]} in subjectAltName; none is given"
        ) from error
    except MessageError as error:
        raise ConfigurationError(f"a name for subjectAltName is not allowed: {error}") from error


def _attributes(wishes: CsrWishes, given: Mapping[str, str]) -> Mapping[str, str]:
    if wishes.otp_challenge and OTP_CHALLENGE not in given:
        raise ConfigurationError("the server asks for a one-time secret; no otpChallenge is given")
    wanted = (*wishes.attributes, *((OTP_CHALLENGE,) if wishes.otp_challenge else ()))
    for oid in wanted:
        if oid not in given:
            _log.warning("the server asks for %s, which is left out", name_of(oid))
    return {oid: given[oid] for oid in wanted if oid in given}

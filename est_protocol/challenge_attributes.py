"""The challenge attributes of a CSR: challengePassword and what RFC 7894 divides it into.

::

    challengePassword    RFC 2985 section 5.4.1; in EST it is POP linking data (RFC 7030 3.5)
    otpChallenge         RFC 7894 section 3.1; a one-time secret
    revocationChallenge  RFC 7894 section 3.2; for a later request to revoke
    estIdentityLinking   RFC 7894 section 3.3; POP linking data, and nothing else

    ATTRIBUTE ::= { WITH SYNTAX DirectoryString {255}  SINGLE VALUE TRUE }

Each that is present is judged on its own, and all have to be right (RFC 7894 section 4).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509

from est_protocol.errors import MessageError
from est_protocol.oid_names import (
    CHALLENGE_PASSWORD,
    EST_IDENTITY_LINKING,
    OTP_CHALLENGE,
    REVOCATION_CHALLENGE,
    name_of,
)

#: ub-aa-otpChallenge and its brothers, in characters (RFC 7894 appendix A).
LONGEST = 255

#: ASN.1 tags of the string types that are read; IA5String is what older clients write.
_ENCODINGS = {12: "utf-8", 19: "ascii", 22: "ascii"}


@dataclass(frozen=True, slots=True)
class ChallengeAttributes:
    """The challenge attributes of one CSR; ``None`` for what it does not carry.

    What may be a secret is not shown by ``repr``.
    """

    challenge_password: str | None = field(default=None, repr=False)
    otp_challenge: str | None = field(default=None, repr=False)
    revocation_challenge: str | None = field(default=None, repr=False)
    identity_linking: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, csr: x509.CertificateSigningRequest) -> ChallengeAttributes:
        """Read them.

        :raises MessageError: one is there twice, is no DirectoryString, or is empty or longer
            than RFC 7894 allows.
        """
        return cls(
            challenge_password=_read(csr, CHALLENGE_PASSWORD),
            otp_challenge=_read(csr, OTP_CHALLENGE),
            revocation_challenge=_read(csr, REVOCATION_CHALLENGE),
            identity_linking=_read(csr, EST_IDENTITY_LINKING),
        )

    @property
    def linking(self) -> Mapping[str, str]:
        """The texts that have to be this channel's binding, every one, by attribute name."""
        found = {
            "challengePassword": self.challenge_password,
            "estIdentityLinking": self.identity_linking,
        }
        return {name: text for name, text in found.items() if text is not None}


@dataclass(frozen=True, slots=True)
class OneTimeSecret:
    """What an otpChallenge carries here: ``NAME:SECRET``, as HTTP Basic does (RFC 7617).

    RFC 7894 leaves the form open. A name in front lets the server keep nothing but a slow hash.
    """

    name: str
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> OneTimeSecret:
        """Read the text of an otpChallenge.

        :raises MessageError: there is no colon in it, or a control character.
        """
        name, colon, secret = unicodedata.normalize("NFC", text).partition(":")
        if not colon:
            raise MessageError("the otpChallenge is not NAME:SECRET")
        if any(unicodedata.category(character) == "Cc" for character in text):
            raise MessageError("there is a control character in the otpChallenge")
        return cls(name, secret)

    def __str__(self) -> str:
        """The text for an otpChallenge; this is the secret."""
        return f"{self.name}:{self.secret}"


def _read(csr: x509.CertificateSigningRequest, oid: str) -> str | None:
    values = [attribute for attribute in csr.attributes if attribute.oid.dotted_string == oid]
    if not values:
        return None
    name = name_of(oid)
    if len(values) > 1:
        raise MessageError(f"the certification request has two {name} attributes")
    encoding = _ENCODINGS.get(values[0]._type)
    if encoding is None:
        raise MessageError(f"{name} is not a PrintableString or UTF8String")
    try:
        text = str(values[0].value, encoding)
    except UnicodeDecodeError as error:
        # Without the cause, whose text has the octets in it.
        raise MessageError(f"{name} is not {encoding}: {error.reason}") from None
    if not 0 < len(text) <= LONGEST:
        raise MessageError(f"{name} is {len(text)} characters long, not 1 to {LONGEST}")
    return text

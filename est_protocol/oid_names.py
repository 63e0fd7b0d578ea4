"""Names of object identifiers: how people write them in a configuration and read them on a screen.

Any object identifier may be written in dotted form instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
#: RFC 7894 section 3; the registry's arc, of which the RFC prints the end only.
OTP_CHALLENGE = "1.2.840.113549.1.9.16.2.56"
REVOCATION_CHALLENGE = "1.2.840.113549.1.9.16.2.57"
EST_IDENTITY_LINKING = "1.2.840.113549.1.9.16.2.58"

SUBJECT_ALT_NAME = "2.5.29.17"
KEY_USAGE = "2.5.29.15"
EXTENDED_KEY_USAGE = "2.5.29.37"
#: RFC 6402 section 2.10; the extended key usage of registration authorities and of EST servers.
ID_KP_CMC_RA = "1.3.6.1.5.5.7.3.28"
SUBJECT_DIRECTORY_ATTRIBUTES = "2.5.29.9"

#: Attributes of a distinguished name.
NAME_ATTRIBUTES = {
    "CN": "2.5.4.3",
    "surname": "2.5.4.4",
    "serialNumber": "2.5.4.5",
    "C": "2.5.4.6",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "STREET": "2.5.4.9",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "title": "2.5.4.12",
    "postalCode": "2.5.4.17",
    "givenName": "2.5.4.42",
    "dnQualifier": "2.5.4.46",
    "pseudonym": "2.5.4.65",
    "organizationIdentifier": "2.5.4.97",
    "UID": "0.9.2342.19200300.100.1.1",
    "DC": "0.9.2342.19200300.100.1.25",
    "emailAddress": "1.2.840.113549.1.9.1",
}

#: Attributes of a CSR or of subjectDirectoryAttributes.
REQUEST_ATTRIBUTES = {
    "challengePassword": CHALLENGE_PASSWORD,
    "otpChallenge": OTP_CHALLENGE,
    "revocationChallenge": REVOCATION_CHALLENGE,
    "estIdentityLinking": EST_IDENTITY_LINKING,
    "friendlyName": "1.2.840.113549.1.9.20",
    "favouriteDrink": "0.9.2342.19200300.100.1.5",
    "macAddress": "1.3.6.1.1.1.1.22",
}

EXTENSIONS = {
    "subjectAltName": SUBJECT_ALT_NAME,
    "keyUsage": KEY_USAGE,
    "extKeyUsage": EXTENDED_KEY_USAGE,
    "subjectDirectoryAttributes": SUBJECT_DIRECTORY_ATTRIBUTES,
    "basicConstraints": "2.5.29.19",
    "certificatePolicies": "2.5.29.32",
}

SIGNATURE_ALGORITHMS = {
    "ecdsa-with-SHA256": "1.2.840.10045.4.3.2",
    "ecdsa-with-SHA384": "1.2.840.10045.4.3.3",
    "ecdsa-with-SHA512": "1.2.840.10045.4.3.4",
    "sha256WithRSAEncryption": "1.2.840.113549.1.1.11",
    "sha384WithRSAEncryption": "1.2.840.113549.1.1.12",
    "sha512WithRSAEncryption": "1.2.840.113549.1.1.13",
    "rsassaPss": "1.2.840.113549.1.1.10",
    "Ed25519": "1.3.101.112",
    "Ed448": "1.3.101.113",
    "ML-DSA-44": "2.16.840.1.101.3.4.3.17",
    "ML-DSA-65": "2.16.840.1.101.3.4.3.18",
    "ML-DSA-87": "2.16.840.1.101.3.4.3.19",
}

_DOTTED = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,38})){1,32}")
_NAMES = {
    oid: name
    for table in (SIGNATURE_ALGORITHMS, EXTENSIONS, REQUEST_ATTRIBUTES, NAME_ATTRIBUTES)
    for name, oid in table.items()
}


def name_of(oid: str) -> str:
    """The name of ``oid``, or ``oid`` itself if it has none here."""
    return _NAMES.get(oid, oid)


def oid_of(text: str, known: Mapping[str, str]) -> str:
    """The dotted form of a name in ``known``, without regard to case, or of a dotted form.

    :raises ValueError: ``text`` is neither.
    """
    if _DOTTED.fullmatch(text):
        return text
    for name, oid in known.items():
        if name.lower() == text.lower():
            return oid
    raise ValueError(f"{text!r} is neither a dotted OID nor one of {', '.join(known)}")

"""The headers of HTTP authentication: WWW-Authenticate and Authorization, Basic and Digest.

RFC 9110 section 11, RFC 7617, RFC 7616 with qop=auth. Header values are ``str`` as HTTP libraries
hand them out: UTF-8, with surrogates for octets that are not.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, unquote

from est_protocol.errors import MessageError

#: Characters of a header value that are read at most, and parameters of one challenge.
_LONGEST_HEADER = 8192
_MOST_PARAMETERS = 32

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*"'
_SCHEME = re.compile(rf"({_TOKEN})(?:[ ]+|(?=[ \t]*(?:,|$)))")
_TOKEN68 = re.compile(r"([A-Za-z0-9\-._~+/]+=*)(?=[ \t]*(?:,|$))")
_PARAMETER = re.compile(rf"({_TOKEN})[ \t]*=[ \t]*({_TOKEN}|{_QUOTED})(?=[ \t]*(?:,|$))")
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)+|[ \t]*$")
_NONCE_COUNT = re.compile(r"[0-9a-fA-F]{8}")
_HEX = re.compile(r"[0-9a-f]+")


class DigestAlgorithm(StrEnum):
    """The hash of a Digest; MD5 is for peers that know no other."""

    SHA_256 = "SHA-256"
    MD5 = "MD5"

    @property
    def hex_digits(self) -> int:
        """How long a digest is when written in hex."""
        return 64 if self is DigestAlgorithm.SHA_256 else 32


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header.

    :param scheme: such as ``Basic``; compared without regard to case.
    :param parameters: by name in lower case.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The challenge as it stands in the header."""
        return self.written()

    def written(self, *, quote_all: bool = False) -> str:
        """The challenge as it stands in the header.

        :param quote_all: put in quotes what RFC 7616 section 3.3 wants without, too.
        """
        # Everything else is safest in quotes.
        bare = () if quote_all else ("algorithm", "stale")
        pairs = (f"{k}={v if k in bare else quoted(v)}" for k, v in self.parameters.items())
        return f"{self.scheme} {', '.join(pairs)}".rstrip()


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """User name and password (RFC 7617); ``repr`` does not show the password."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DigestCredentials:
    """What stands in place of the password (RFC 7616 section 3.4).

    :param uri: the request target that the response is for.
    :param response: hex digits in lower case.
    """

    user: str
    realm: str
    nonce: str
    uri: str
    cnonce: str
    nonce_count: int
    algorithm: DigestAlgorithm
    response: str = field(repr=False)
    opaque: str | None = None


HttpCredentials = BasicCredentials | DigestCredentials


def prepared(text: str) -> str:
    """A user name or password as both ends compare it: NFC (RFC 8265), no control characters.

    :raises MessageError: there is a control character in it.
    """
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise MessageError("there is a control character in the user name or the password")
    return unicodedata.normalize("NFC", text)


def quoted(text: str) -> str:
    """``text`` as a quoted-string (RFC 9110 section 5.6.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Read one WWW-Authenticate header value, which may hold several challenges.

    :raises MessageError: it is not one.
    """
    _check(header)
    challenges, position = [], _skip(header, 0)
    while position < len(header):
        challenge, position = _read_challenge(header, position)
        challenges.append(challenge)
    return tuple(challenges)


def parse_credentials(header: str) -> HttpCredentials | None:
    """Read one Authorization header value.

    :return: ``None`` if the scheme is neither Basic nor Digest.
    :raises MessageError: it is malformed; the sentence repeats nothing of it.
    """
    _check(header)
    challenge, position = _read_challenge(header, 0)
    if position < len(header):
        raise MessageError("there is more than one Authorization")
    scheme = challenge.scheme.lower()
    if scheme == "basic":
        return _basic(challenge.parameters)
    return _digest(challenge.parameters) if scheme == "digest" else None


def format_credentials(credentials: HttpCredentials) -> str:
    """The value of an Authorization header.

    :raises MessageError: the user name cannot be sent: a colon in Basic, or a control character.
    """
    if isinstance(credentials, BasicCredentials):
        user, password = prepared(credentials.user), prepared(credentials.password)
        if ":" in user:
            raise MessageError("a user name with a colon cannot be sent by Basic")
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode('ascii')}"
    given = credentials
    user = prepared(given.user)
    name = f"username={quoted(user)}" if user.isascii() else f"username*=UTF-8''{quote(user, '')}"
    parts = [
        name,
        f"realm={quoted(given.realm)}",
        f"nonce={quoted(given.nonce)}",
        f"uri={quoted(given.uri)}",
        f"algorithm={given.algorithm.value}",
        f"response={quoted(given.response)}",
        "qop=auth",
        f"nc={given.nonce_count:08x}",
        f"cnonce={quoted(given.cnonce)}",
    ]
    if given.opaque is not None:
        parts.append(f"opaque={quoted(given.opaque)}")
    return f"Digest {', '.join(parts)}"


def _check(header: str) -> None:
    if len(header) > _LONGEST_HEADER:
        raise MessageError(f"the authentication header is longer than {_LONGEST_HEADER} octets")
    try:
        header.encode()
    except UnicodeEncodeError:
        raise MessageError("the authentication header is not UTF-8") from None


def _skip(header: str, position: int) -> int:
    """Past the commas and blanks at ``position``."""
    separator = _SEPARATOR.match(header, position)
    return separator.end() if separator else position


def _read_challenge(header: str, position: int) -> tuple[Challenge, int]:
    scheme = _SCHEME.match(header, position)
    if scheme is None:
        raise MessageError("the authentication header has no scheme where one is expected")
    parameters: dict[str, str] = {}
    position = scheme.end()
    if token68 := _TOKEN68.match(header, position):
        return Challenge(scheme[1], {"": token68[1]}), _skip(header, token68.end())
    while parameter := _PARAMETER.match(header, position):
        name = parameter[1].lower()
        if name in parameters or len(parameters) == _MOST_PARAMETERS:
            raise MessageError("the authentication header has a parameter too many")
        parameters[name] = _unquoted(parameter[2])
        position = _skip(header, parameter.end())
    position = _skip(header, position)
    if position < len(header) and _SCHEME.match(header, position) is None:
        raise MessageError("a parameter of the authentication header is malformed")
    return Challenge(scheme[1], parameters), position


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _basic(parameters: Mapping[str, str]) -> BasicCredentials:
    try:
        octets = base64.b64decode(parameters.get("", "").encode("ascii"), validate=True)
        text = octets.decode("utf-8")
    except (binascii.Error, ValueError):
        # Without the cause: its text may have the password in it.
        raise MessageError("the Basic credentials are not the base64 of UTF-8") from None
    user, colon, password = text.partition(":")
    if not colon:
        raise MessageError("there is no colon in the Basic credentials")
    return BasicCredentials(prepared(user), prepared(password))


def _digest(given: Mapping[str, str]) -> DigestCredentials:
    if given.get("userhash", "false").lower() == "true":
        raise MessageError("a hashed user name was not offered")
    if given.get("qop", "").lower() != "auth":
        raise MessageError("Digest is served with qop=auth only")
    missing = {"realm", "nonce", "uri", "response", "cnonce", "nc"} - given.keys()
    if missing:
        raise MessageError(f"the Digest credentials have no {', '.join(sorted(missing))}")
    algorithm, response = _algorithm(given.get("algorithm", "MD5")), given["response"].lower()
    if len(response) != algorithm.hex_digits or not _HEX.fullmatch(response):
        raise MessageError(f"the Digest response is no {algorithm.value} in hex")
    if not _NONCE_COUNT.fullmatch(given["nc"]) or int(given["nc"], 16) == 0:
        raise MessageError("the nonce count is not eight hex digits greater than zero")
    return DigestCredentials(
        user=_digest_user(given),
        realm=given["realm"],
        nonce=given["nonce"],
        uri=given["uri"],
        cnonce=given["cnonce"],
        nonce_count=int(given["nc"], 16),
        algorithm=algorithm,
        response=response,
        opaque=given.get("opaque"),
    )


def _algorithm(name: str) -> DigestAlgorithm:
    for algorithm in DigestAlgorithm:
        if algorithm.value.lower() == name.lower():
            return algorithm
    raise MessageError("the Digest algorithm is neither SHA-256 nor MD5")


def _digest_user(given: Mapping[str, str]) -> str:
    extended = given.get("username*")
    if (extended is None) == ("username" not in given):
        raise MessageError("the Digest credentials need one of username and username*")
    if extended is None:
        return prepared(given["username"])
    charset, _, rest = extended.partition("'")
    _, apostrophe, encoded = rest.partition("'")
    if charset.upper() != "UTF-8" or not apostrophe:
        raise MessageError("username* is not UTF-8 as RFC 8187 writes it")
    try:
        return prepared(unquote(encoded, errors="strict"))
    except UnicodeDecodeError:
        raise MessageError("username* is not UTF-8") from None

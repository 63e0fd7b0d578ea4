"""The commands of ``est-client``: from options and files to :class:`EstClient` and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client.bootstrap import CaFingerprint
from est_client.client import EstClient
from est_client.connectors import ConnectorOptions, connector_for
from est_client.device_keys import (
    chain_from_pem,
    chain_to_pem,
    key_from_pem,
    key_to_pem,
)
from est_client.durable_files import require_private, write_durably
from est_client.location import ServerLocation
from est_client.redirects import RedirectPolicy
from est_client.retry import RetryPolicy
from est_client.secrets import HttpLogin
from est_client.system_trust import system_trust_anchors
from est_client.trust import TrustDatabase
from est_client.wishes_text import lines_of
from est_protocol.csr_wishes import CsrWishes, read
from est_protocol.errors import ConfigurationError
from est_protocol.key_recipients import SymmetricKey
from est_protocol.keys import SigningKey, generate_key, spki_der
from est_protocol.labels import read_label
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials
from est_protocol.secure_channel.policy import TlsPolicy, TlsVersion

#: The kind of key that is made where nobody has said otherwise.
_DEFAULT_KIND = "ec-p256"
_ALT_NAMES: dict[str, Callable[[str], x509.GeneralName]] = {
    "dns": x509.DNSName,
    "uri": x509.UniformResourceIdentifier,
    "email": x509.RFC822Name,
}
#: As much as an otpChallenge can hold (RFC 7894 appendix A).
_LONGEST_SECRET = 255


async def cacerts(options: argparse.Namespace) -> None:
    """``est-client cacerts``.

    :raises EstError: it did not work.
    """
    location = _location(options)
    trust = _trust(options)
    identity = _optional_identity(options, location)
    async with _client(options, location, identity, trust) as client:
        certificates = await client.cacerts()
    _deliver(options.out, certificates)
    for certificate in certificates:
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        _say(f"{_text(certificate.subject)} sha256={fingerprint}")


async def csrattrs(options: argparse.Namespace) -> None:
    """``est-client csrattrs``.

    :raises EstError: it did not work.
    """
    location = _location(options)
    trust = _trust(options)
    identity = _optional_identity(options, location)
    async with _client(options, location, identity, trust) as client:
        message = await client.csr_attributes()
    if message is None or not message.elements:
        _say("the server asks for nothing")
        return
    for line in lines_of(read(message)):
        print(line)
    if options.out is not None:
        write_durably(Path(options.out), message.encode(), mode=0o644)


async def conformance(options: argparse.Namespace) -> int:
    """``est-client conformance``.

    :return: the exit status: 1 if a MUST failed, else 0.
    :raises EstError: it could not be run.
    """
    # Of no use to a device, so not imported for one.
    from est_client.conformance.command import check_server

    location, trust = _location(options), _trust(options)
    if options.cert is not None and options.key is None:
        raise ConfigurationError("--cert FILE needs --key FILE")
    identity = _identity(options) if options.key else None
    return await check_server(location, trust, identity, options)


async def enroll(options: argparse.Namespace) -> None:
    """``est-client enroll``.

    :raises EstError: it did not work.
    """
    location, subject = _location(options), _subject(options.subject)
    trust = _trust(options)
    identity = _identity(options)
    values, names = _values(options.value), _alt_names(options.alt_name)
    async with _client(
        options,
        location,
        identity,
        trust,
        present_bare_key=bool(options.new_key),
        http_credentials=_http_credentials(options),
        otp_challenge=_secret(options.otp_file) if options.otp_file else None,
    ) as client:
        wishes = await client.csrattrs() if options.follow_csrattrs else None
        key = identity.key
        if options.new_key:
            key = _key(options.new_key, options.key_type or _kind_wished(wishes))
        certificate = await client.simpleenroll(
            key=key,
            subject=subject,
            subject_alt_names=names,
            follow_csr_attributes=wishes or False,
            values=values,
            wait=options.wait,
        )
    _deliver(options.out, [certificate])
    _announce("enrolled", certificate)


async def serverkeygen(options: argparse.Namespace) -> None:
    """``est-client serverkeygen``.

    :raises EstError: it did not work.
    """
    location, subject = _location(options), _subject(options.subject)
    shared = None if options.decrypt_key is None else _shared_key(options.decrypt_key)
    trust = _trust(options)
    identity = _identity(options)
    async with _client(options, location, identity, trust, present_bare_key=True) as client:
        generated = await client.serverkeygen(
            subject=subject,
            subject_alt_names=_alt_names(options.alt_name),
            kind=options.generate,
            shared_key=shared,
            encrypted=not options.unencrypted,
            wait=options.wait,
        )
    # First the key: a certificate without it is of no use, and nobody else has the key.
    write_durably(Path(options.key_out), key_to_pem(generated.key), mode=0o600)
    _deliver(options.out, generated.chain[:1])
    _announce("enrolled with a generated key", generated.chain[0])


def _shared_key(path: str) -> SymmetricKey:
    """Read a shared key: two words of hex digits, its identifier and the key itself."""
    try:
        identifier, key = map(bytes.fromhex, _read(path).decode("ascii").split())
    except ValueError as error:
        raise ConfigurationError(
            f"{path} is not the identifier and the octets of a key, both in hex"
        ) from error
    if len(key) not in (16, 24, 32) or not identifier:
        raise ConfigurationError(f"the key in {path} has not 16, 24 or 32 octets")
    return SymmetricKey(identifier, key)


async def reenroll(options: argparse.Namespace) -> None:
    """``est-client reenroll``.

    :raises EstError: it did not work.
    """
    if options.cert is None:
        raise ConfigurationError("reenroll renews a certificate: --cert FILE is needed")
    location, subject = _location(options), _subject(options.subject)
    trust = _trust(options)
    identity = _identity(options)
    async with _client(options, location, identity, trust) as client:
        wishes = await client.csrattrs() if options.follow_csrattrs else None
        key = identity.key
        if options.new_key:
            key = _key(options.new_key, options.key_type or _kind_wished(wishes))
        certificate = await client.simplereenroll(
            key=key,
            subject=subject,
            follow_csr_attributes=wishes or False,
            values=_values(options.value),
            wait=options.wait,
        )
    _deliver(options.out, [certificate])
    _announce("renewed", certificate)


def _client(
    options: argparse.Namespace,
    location: ServerLocation,
    identity: LocalCredentials | None,
    trust: TrustDatabase | CaFingerprint,
    *,
    present_bare_key: bool = False,
    http_credentials: HttpLogin | None = None,
    otp_challenge: str | None = None,
) -> EstClient:
    maximum = TlsVersion.TLS1_2 if options.tls_max == "1.2" else TlsVersion.TLS1_3
    connector = connector_for(
        location,
        ConnectorOptions(
            timeout=options.timeout,
            block_size=options.block_size,
            tls=TlsPolicy(maximum_version=maximum),
        ),
    )
    return EstClient(
        connector,
        trust=trust,
        identity=identity,
        label=location.label,
        pop_linking=not getattr(options, "no_pop_linking", False),
        present_bare_key=present_bare_key,
        adopt_trust=not options.keep_trust,
        http_credentials=http_credentials,
        otp_challenge=otp_challenge,
        redirects=RedirectPolicy.allowing(*options.allow_redirect),
        retry=RetryPolicy(attempts=options.attempts),
    )


def _location(options: argparse.Namespace) -> ServerLocation:
    location = ServerLocation.parse(options.url)
    return location.with_label(read_label(options.label)) if options.label else location


def _trust(options: argparse.Namespace) -> TrustDatabase | CaFingerprint:
    chosen = [options.ca_cert, options.ca_fingerprint, options.system_trust]
    if sum(map(bool, chosen)) != 1:
        raise ConfigurationError(
            "say by what to trust the server, with one of --ca-cert FILE, --ca-fingerprint SHA256 "
            "and --system-trust; nothing is trusted unasked"
        )
    if options.ca_cert:
        return TrustDatabase.load(options.ca_cert)
    if options.ca_fingerprint:
        return CaFingerprint.parse(options.ca_fingerprint)
    return TrustDatabase(implicit=system_trust_anchors())


def _http_credentials(options: argparse.Namespace) -> HttpLogin | None:
    if (options.user is None) != (options.password_file is None):
        raise ConfigurationError("--user NAME and --password-file FILE go together")
    if options.user is None:
        return None
    if ServerLocation.parse(options.url).transport is Transport.COAPS:
        raise ConfigurationError("there is no HTTP authentication on CoAPS: use --otp-file FILE")
    return HttpLogin(options.user, _secret(options.password_file), md5=options.allow_md5)


def _secret(path: str) -> str:
    """The one line of a file; not an option itself, which every user of a machine can read."""
    try:
        text = _read(path).decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8") from None
    if not text or len(text) > _LONGEST_SECRET or not text.isprintable():
        raise ConfigurationError(
            f"{path} has to hold one line of 1 to {_LONGEST_SECRET} printable characters"
        )
    return text


def _subject(text: str | None) -> x509.Name | None:
    if text is None:
        return None
    try:
        return x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--subject {text!r} is not a name such as 'CN=pump 7,O=Example'"
        ) from error


def _optional_identity(
    options: argparse.Namespace, location: ServerLocation
) -> LocalCredentials | None:
    if options.key is not None:
        return _identity(options)
    if location.transport is Transport.COAPS:
        raise ConfigurationError("on CoAPS every request is authenticated: --key FILE is needed")
    if options.cert is not None:
        raise ConfigurationError("--cert FILE needs --key FILE")
    return None


def _kind_wished(wishes: CsrWishes | None) -> str:
    """What kind of key to make where nobody here has said."""
    if wishes is None or wishes.key is None:
        return _DEFAULT_KIND
    return {"ec": _DEFAULT_KIND, "rsa": "rsa-3072"}.get(wishes.key, wishes.key)


def _values(texts: Sequence[str]) -> dict[str, str]:
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not value:
            raise ConfigurationError(f"--value {text!r} is not such as 'serialNumber=4711'")
        values[name] = value
    return values


def _alt_names(texts: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    return tuple(_alt_name(text) for text in texts)


def _alt_name(text: str) -> x509.GeneralName:
    kind, _, value = text.partition(":")
    try:
        if kind == "ip":
            return x509.IPAddress(ip_address(value))
        return _ALT_NAMES[kind](value)
    except (KeyError, ValueError) as error:
        raise ConfigurationError(
            f"--alt-name {text!r} is not dns:, ip:, uri: or email: and such a name"
        ) from error


def _identity(options: argparse.Namespace) -> LocalCredentials:
    chain = chain_from_pem(_read(options.cert), options.cert) if options.cert else ()
    if chain and not Path(options.key).exists():
        raise ConfigurationError(f"there is a certificate in {options.cert}, but no {options.key}")
    key = _key(options.key, options.key_type or _DEFAULT_KIND)
    if chain and spki_der(chain[0].public_key()) != spki_der(key.public_key()):
        raise ConfigurationError(
            f"the certificate in {options.cert} is not for the key in {options.key}"
        )
    return LocalCredentials(key, chain)


def _key(path: str, kind: str) -> SigningKey:
    """Load a key, or make it and have it on the disk before anything is done with it."""
    if Path(path).exists():
        key = key_from_pem(_read(path), path)
        require_private(Path(path))
        return key
    key = generate_key(kind)
    write_durably(Path(path), key_to_pem(key), mode=0o600)
    _say(f"made a new {kind} key in {path}")
    return key


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def _deliver(path: str | None, certificates: Sequence[x509.Certificate]) -> None:
    pem = chain_to_pem(certificates)
    if path is None:
        sys.stdout.write(pem.decode("ascii"))
        sys.stdout.flush()
    else:
        write_durably(Path(path), pem, mode=0o644)


def _announce(what: str, certificate: x509.Certificate) -> None:
    _say(
        f"{what}: subject={_text(certificate.subject)} issuer={_text(certificate.issuer)} "
        f"serial={certificate.serial_number:x} "
        f"notAfter={certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    )


def _text(name: x509.Name) -> str:
    return repr(name.rfc4514_string())


def _say(words: str) -> None:
    print(words, file=sys.stderr)

"""From the options and files of ``est-client`` to what its commands work with, and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

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
from est_protocol.errors import ConfigurationError
from est_protocol.key_recipients import SymmetricKey
from est_protocol.keys import SigningKey, generate_key, spki_der
from est_protocol.labels import read_label
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import LocalCredentials
from est_protocol.secure_channel.policy import TlsPolicy, TlsVersion

#: The kind of key that is made where nobody has said otherwise.
DEFAULT_KIND = "ec-p256"
_ALT_NAMES: dict[str, Callable[[str], x509.GeneralName]] = {
    "dns": x509.DNSName,
    "uri": x509.UniformResourceIdentifier,
    "email": x509.RFC822Name,
}
#: As much as an otpChallenge can hold (RFC 7894 appendix A).
_LONGEST_SECRET = 255


def make_client(
    options: argparse.Namespace,
    location: ServerLocation,
    identity: LocalCredentials | None,
    trust: TrustDatabase | CaFingerprint,
    *,
    present_bare_key: bool = False,
    keep_secrets: bool = False,
) -> EstClient:
    """A client as the options say.

    :param keep_secrets: tell them at a renewal, which they were given for.
    """
    maximum = TlsVersion.TLS1_2 if options.tls_max == "1.2" else TlsVersion.TLS1_3
    connector = connector_for(
        location,
        ConnectorOptions(
            timeout=options.timeout,
            block_size=options.block_size,
            ack_timeout=options.ack_timeout,
            discover=options.discover,
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
        http_credentials=_http_credentials_of(options),
        otp_challenge=_otp_challenge_of(options),
        keep_secrets=keep_secrets,
        redirects=RedirectPolicy.allowing(*options.allow_redirect),
        retry=RetryPolicy(attempts=options.attempts, longest_heeded=options.longest_retry_after),
    )


def location_of(options: argparse.Namespace) -> ServerLocation:
    """Where the server is."""
    location = ServerLocation.parse(options.url)
    return location.with_label(read_label(options.label)) if options.label else location


def trust_of(
    options: argparse.Namespace, learned: Sequence[x509.Certificate] = ()
) -> TrustDatabase | CaFingerprint:
    """What to trust the server by; nothing is trusted unasked.

    :param learned: what a key store has learned to trust, for where no option says otherwise.
    """
    chosen = [options.ca_cert, options.ca_fingerprint, options.system_trust]
    if learned and not any(chosen):
        return TrustDatabase(explicit=tuple(learned))
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


def _http_credentials_of(options: argparse.Namespace) -> HttpLogin | None:
    """The user and the password, if there are any."""
    if not hasattr(options, "user"):
        return None
    if (options.user is None) != (options.password_file is None):
        raise ConfigurationError("--user NAME and --password-file FILE go together")
    if options.user is None:
        return None
    if ServerLocation.parse(options.url).transport is Transport.COAPS:
        raise ConfigurationError("there is no HTTP authentication on CoAPS: use --otp-file FILE")
    return HttpLogin(options.user, secret_in(options.password_file), md5=options.allow_md5)


def _otp_challenge_of(options: argparse.Namespace) -> str | None:
    """The one-time secret, if there is one."""
    path = getattr(options, "otp_file", None)
    return None if path is None else secret_in(path)


def secret_in(path: str) -> str:
    """The one line of a file; not an option itself, which every user of a machine can read."""
    _warn_of_readers(path)
    try:
        text = _read(path).decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8") from None
    if not text or len(text) > _LONGEST_SECRET or not text.isprintable():
        raise ConfigurationError(
            f"{path} has to hold one line of 1 to {_LONGEST_SECRET} printable characters"
        )
    return text


def _warn_of_readers(path: str) -> None:
    """Say that others can read a secret; it is not refused, since it may have been handed out in
    such a file."""
    try:
        require_private(Path(path))
    except ConfigurationError as error:
        say(f"warning: {error}")
    except OSError:
        # Whoever reads it says so.
        return


def subject_of(text: str | None) -> x509.Name | None:
    """The name in ``--subject``."""
    if text is None:
        return None
    try:
        return x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--subject {text!r} is not a name such as 'CN=pump 7,O=Example'"
        ) from error


def optional_identity_of(
    options: argparse.Namespace, location: ServerLocation
) -> LocalCredentials | None:
    """The identity for a request that HTTPS answers anybody."""
    if options.key is not None:
        return identity_of(options)
    if location.transport is Transport.COAPS:
        raise ConfigurationError("on CoAPS every request is authenticated: --key FILE is needed")
    if options.cert is not None:
        raise ConfigurationError("--cert FILE needs --key FILE")
    return None


def values_of(texts: Sequence[str]) -> dict[str, str]:
    """What ``--value`` gives for each attribute."""
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not value:
            raise ConfigurationError(f"--value {text!r} is not such as 'serialNumber=4711'")
        values[name] = value
    return values


def alt_names_of(texts: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    """The names in ``--alt-name``."""
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


def identity_of(options: argparse.Namespace) -> LocalCredentials:
    """The key and the certificate to authenticate with."""
    chain = chain_from_pem(_read(options.cert), options.cert) if options.cert else ()
    if chain and not Path(options.key).exists():
        raise ConfigurationError(f"there is a certificate in {options.cert}, but no {options.key}")
    key = key_in(options.key, options.key_type or DEFAULT_KIND)
    if chain and spki_der(chain[0].public_key()) != spki_der(key.public_key()):
        raise ConfigurationError(
            f"the certificate in {options.cert} is not for the key in {options.key}"
        )
    return LocalCredentials(key, chain)


def key_in(path: str, kind: str) -> SigningKey:
    """Load a key, or make it and have it on the disk before anything is done with it."""
    if Path(path).exists():
        key = key_from_pem(_read(path), path)
        require_private(Path(path))
        return key
    key = generate_key(kind)
    write_durably(Path(path), key_to_pem(key), mode=0o600)
    say(f"made a new {kind} key in {path}")
    return key


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def deliver(path: str | None, certificates: Sequence[x509.Certificate]) -> None:
    """Write certificates where ``--out`` says, and where that fails to standard output.

    :raises OSError: it failed.
    """
    pem = chain_to_pem(certificates)
    if path is None:
        _print(pem)
        return
    try:
        write_durably(Path(path), pem, mode=0o644)
    except OSError:
        say(f"what cannot be written to {path} goes to standard output")
        _print(pem)
        raise


def _print(pem: bytes) -> None:
    sys.stdout.write(pem.decode("ascii"))
    sys.stdout.flush()


def announce(what: str, certificate: x509.Certificate) -> None:
    """Say which certificate there is now."""
    say(
        f"{what}: subject={text_of(certificate.subject)} issuer={text_of(certificate.issuer)} "
        f"serial={certificate.serial_number:x} "
        f"notAfter={certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    )


def text_of(name: x509.Name) -> str:
    """A name for people."""
    return repr(name.rfc4514_string())


def say(words: str) -> None:
    """Say something beside the result."""
    print(words, file=sys.stderr)


def shared_key_in(path: str) -> SymmetricKey:
    """Read a shared key: two words of hex digits, its identifier and the key itself."""
    try:
        identifier, key = map(bytes.fromhex, _read(path).decode("ascii").split())
    except ValueError as error:
        raise ConfigurationError(
            f"{path} is not the identifier and the octets of a key, both in hex"
        ) from error
    if len(key) not in (16, 24, 32) or not identifier:
        raise ConfigurationError(f"the key in {path} has not 16, 24 or 32 octets")
    require_private(Path(path))
    return SymmetricKey(identifier, key)

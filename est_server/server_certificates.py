"""The certificates that the server shows its clients: when they end, and new ones for them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from est_protocol.chain import is_self_signed
from est_protocol.errors import ConfigurationError
from est_protocol.issuers import is_issued_by
from est_protocol.keys import SigningKey, generate_key, key_kind, spki_sha256
from est_server.authorities.creation import hosts_of, issue_server_certificate
from est_server.authorities.signers.file import (
    FileSigner,
    passphrase_from_environment,
    read_private_key,
)
from est_server.config import ServerConfig
from est_server.config.settings import AuthoritySettings, CoapsSettings, HttpsSettings
from est_server.pem_files import certificates_pem, key_pem, load_certificates
from est_server.private_files import remove_unfinished, replace_file

#: A certificate that ends sooner is worth a word.
_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate of one transport.

    :param table: of the configuration.
    :param chain: the certificate, and those that are sent with it.
    """

    table: str
    settings: HttpsSettings | CoapsSettings
    chain: tuple[x509.Certificate, ...]

    @property
    def file(self) -> Path:
        """Where it is."""
        return self.settings.certificate

    @property
    def key_file(self) -> Path:
        """Where its key is, which may be that of the other transport too."""
        return self.settings.key.resolve()

    @property
    def end(self) -> datetime:
        """Until when it is good: it, and the CA certificates that are sent with it.

        A root does not count: clients have their own.
        """
        return min([self.chain[0].not_valid_after_utc, *self._ca_ends])

    @property
    def _ca_ends(self) -> list[datetime]:
        return [c.not_valid_after_utc for c in self.chain[1:] if not is_self_signed(c)]

    def warning(self, now: datetime) -> str | None:
        """A sentence for the operator, if it has ended or soon does."""
        if self.end < now:
            said = "has expired: devices will not connect"
        elif self.end < now + _SOON:
            said = f"expires on {self.end:%Y-%m-%d}, and then devices will not connect"
        else:
            return None
        renewal = "est-server ca server-certificate makes a new one"
        if self.end in self._ca_ends:
            renewal = f"it ends with its CA; once that is replaced, {renewal}"
        return f"{self.file} {said}; {renewal}"


def load_server_certificates(config: ServerConfig) -> tuple[ServerCertificate, ...]:
    """What the files are now that ``config`` names.

    :raises ConfigurationError: one cannot be read, or has no certificate in it.
    """
    return tuple(
        ServerCertificate(table, settings, load_certificates(settings.certificate))
        for table, settings in _transports(config)
    )


def _transports(config: ServerConfig) -> Iterator[tuple[str, HttpsSettings | CoapsSettings]]:
    for table, settings in (("https", config.https), ("coaps", config.coaps)):
        if settings is not None:
            yield table, settings


def renew_server_certificates(
    config: ServerConfig,
    *,
    table: str | None = None,
    new_key: bool = False,
    validity: timedelta,
    now: datetime,
) -> Iterator[ServerCertificate]:
    """Put new certificates for the same hosts in the place of those that there are.

    All are made before the first file is replaced. A file is replaced at once and keeps its owner;
    private keys have mode 0600, certificates 0644. A server goes on with what it has read. Other
    processes that do the same are kept out until the end.

    :param table: that transport's only, and another's that has its key if that is made anew.
    :param new_key: for keys of the same kind that are made anew, in place of those that there are.
    :param validity: for how long; not beyond the end of the issuing CA.
    :returns: the new ones, each once it is in place.
    :raises ConfigurationError: one was not issued by a CA of ``config``, the CA has ended, its key
        is another's, a key is not usable, or another process is at it.
    :raises OSError: a file cannot be written.
    """
    with _alone(config):
        for _, settings in _transports(config):
            remove_unfinished(settings.key)
            remove_unfinished(settings.certificate)
        yield from _renew(config, table, new_key, validity, now)


@contextmanager
def _alone(config: ServerConfig) -> Iterator[None]:
    """Two at once would leave the key of one and the certificate of the other."""
    directory = config.file.resolve().parent
    with ExitStack() as stack:
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{config.file}: another run is under way that renews its certificates"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"cannot lock {directory}: {error.strerror}") from error
        yield


def _renew(
    config: ServerConfig, table: str | None, new_key: bool, validity: timedelta, now: datetime
) -> Iterator[ServerCertificate]:
    every = load_server_certificates(config)
    chosen = [old for old in every if table in (None, old.table)]
    if not chosen:
        raise ConfigurationError(f"{config.file}: there is no table [{table or 'https'}]")
    if new_key:
        files = {old.key_file for old in chosen}
        chosen = [old for old in every if old.key_file in files]
    # Both transports may have one and the same certificate, or key.
    keys = {old.key_file: _key(old, new_key) for old in chosen}
    olds = {old.file.resolve(): old for old in chosen}.values()
    made = [_renewed(old, keys[old.key_file][0], config, validity, now) for old in olds]
    # If it ends after the keys, the server does not start. The next time without new keys,
    # certificates for those that are there make that good.
    for file, (_, pem) in keys.items():
        if pem is not None:
            replace_file(file, pem)
    for new in made:
        replace_file(new.file, certificates_pem(*new.chain), private=False)
        yield new


def _key(old: ServerCertificate, new_key: bool) -> tuple[SigningKey, bytes | None]:
    """The key to certify; in PEM if it is a new one."""
    passphrase = passphrase_from_environment(old.settings.key_passphrase_variable)
    if not new_key:
        return read_private_key(old.key_file, passphrase=passphrase), None
    key = generate_key(key_kind(old.chain[0].public_key()))
    return key, key_pem(key, passphrase=None if passphrase is None else passphrase())


def _renewed(
    old: ServerCertificate,
    key: SigningKey,
    config: ServerConfig,
    validity: timedelta,
    now: datetime,
) -> ServerCertificate:
    authority, issuers = _issuers(old, config)
    end = min(issuer.not_valid_after_utc for issuer in issuers)
    if end <= now:
        raise ConfigurationError(
            f"{authority.certificate} has expired, and nobody believes what it issues: "
            "see est-server ca rollover"
        )
    certificate = issue_server_certificate(
        FileSigner(
            authority.key, passphrase=passphrase_from_environment(authority.key_passphrase_variable)
        ),
        issuers[0],
        key.public_key(),
        hosts_of(old.chain[0]),
        now=now,
        validity=min(validity, end - now),
    )
    if not is_issued_by(certificate, issuers[0]):
        raise ConfigurationError(
            f"{authority.key} is not the key of the first certificate in {authority.certificate}"
        )
    chain = (certificate, *_sent_along(old.chain[1:], issuers, now))
    return ServerCertificate(old.table, old.settings, chain)


def _issuers(
    old: ServerCertificate, config: ServerConfig
) -> tuple[AuthoritySettings, tuple[x509.Certificate, ...]]:
    """The CA that has issued the old one, and its certificates up to the root."""
    for authority in config.authorities.values():
        issuers = load_certificates(authority.certificate)
        if is_issued_by(old.chain[0], issuers[0]):
            return authority, issuers
    raise ConfigurationError(
        f"{old.file}: its issuer, {old.chain[0].issuer.rfc4514_string()}, is none of the CAs in "
        f"{config.file}: have it renewed there, put it into the file, and send SIGHUP"
    )


def _sent_along(
    before: Sequence[x509.Certificate], issuers: Sequence[x509.Certificate], now: datetime
) -> list[x509.Certificate]:
    """What is sent with a new certificate, where ``before`` was with the old one.

    That is the CA as it is configured now, which may have a later end under the same key. From
    before stays what leads from the root to the one that it replaces, until that has ended; and
    whether roots are sent.
    """
    roots = [c for c in issuers if is_self_signed(c)]
    known = {(root.subject, spki_sha256(root.public_key())) for root in roots}
    links = [
        c
        for c in before
        if not is_self_signed(c)
        and (c.subject, spki_sha256(c.public_key())) in known
        and c.not_valid_after_utc > now
    ]
    sent = [*(c for c in issuers if c not in roots), *links]
    sent_roots = [c for c in before if is_self_signed(c)]
    if not sent_roots:
        return sent
    replaced = [c for c in sent_roots if any(is_issued_by(link, c) for link in links)]
    return [*sent, *roots, *replaced]

"""Making a CA from nothing, and certificates for the EST server itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from est_protocol.dns_names import is_dns_name
from est_protocol.errors import ConfigurationError
from est_protocol.keys import PublicKey, SigningKey, generate_key
from est_protocol.oid_names import ID_KP_CMC_RA
from est_server.authorities.building import (
    authority_key_identifier,
    begin_certificate,
    key_usage,
)
from est_server.authorities.signers.key import KeySigner
from est_server.interfaces import Signer

#: Clients of RFC 9148 section 9.2 and of RFC 7030 section 3.6.1 take it as the CA's word that this
#: is its EST server.
CMC_RA = x509.ObjectIdentifier(ID_KP_CMC_RA)

#: How long a server certificate is good.
SERVER_VALIDITY = timedelta(days=365)

#: X.520's upper bound of a common name.
_LONGEST_COMMON_NAME = 64


@dataclass(frozen=True, slots=True)
class NewCa:
    """A root and the issuing CA under it, as :func:`create_ca` makes them.

    ``root_key`` is needed again only to make another issuing CA: keep it offline.
    """

    root_key: SigningKey
    root: x509.Certificate
    issuing_key: SigningKey
    issuing: x509.Certificate


def create_ca(
    name: str,
    *,
    now: datetime,
    key_kind: str = "ec-p256",
    root_validity: timedelta = timedelta(days=25 * 365),
    issuing_validity: timedelta = timedelta(days=10 * 365),
    backdate: timedelta = timedelta(days=1),
) -> NewCa:
    """Make a root CA and an issuing CA under it, with fresh keys.

    The root allows one CA below it, the issuing CA none.

    :param name: such as the organization; the subjects are ``CN=NAME Root CA`` and ``CN=NAME
        Issuing CA``.
    :param now: the time from which they are valid.
    :param key_kind: of both keys, one of :data:`est_protocol.keys.KEY_KINDS`.
    :param backdate: how far notBefore lies in the past, for devices whose clock is slow.
    :raises ConfigurationError: the name is empty or too long, the kind of key is unknown, or the
        issuing CA would outlive the root.
    """
    if issuing_validity > root_validity:
        raise ConfigurationError("the issuing CA would be valid for longer than the root")
    return create_named_ca(
        _common_name(f"{name} Root CA"),
        _common_name(f"{name} Issuing CA"),
        key_kind=key_kind,
        start=now - backdate,
        root_end=now + root_validity,
        issuing_end=now + issuing_validity,
    )


def create_named_ca(
    root_name: x509.Name,
    issuing_name: x509.Name,
    *,
    key_kind: str,
    start: datetime,
    root_end: datetime,
    issuing_end: datetime,
) -> NewCa:
    """Make a root CA and an issuing CA under it, with fresh keys and these names.

    :param start: notBefore of both; the ends are their notAfter.
    :raises ConfigurationError: the kind of key is unknown.
    """
    root_key, issuing_key = generate_key(key_kind), generate_key(key_kind)
    root = KeySigner(root_key).sign_certificate(
        begin_ca(root_name, root_key.public_key(), root_name, start, root_end, certificates_below=1)
    )
    builder = begin_ca(
        issuing_name, issuing_key.public_key(), root_name, start, issuing_end, certificates_below=0
    ).add_extension(authority_key_identifier(root), critical=False)
    return NewCa(root_key, root, issuing_key, KeySigner(root_key).sign_certificate(builder))


def issue_server_certificate(
    signer: Signer,
    issuing: x509.Certificate,
    public_key: PublicKey,
    hosts: Sequence[str],
    *,
    now: datetime,
    validity: timedelta = SERVER_VALIDITY,
    backdate: timedelta = timedelta(days=1),
) -> x509.Certificate:
    """Issue a certificate for an EST server, on both transports.

    :param signer: signs with the key of ``issuing``.
    :param public_key: the server's key.
    :param hosts: the DNS names and IP addresses under which clients know it, at least one.
    :param now: the time from which it is valid; not beyond the end of ``issuing``.
    :raises ConfigurationError: there is no host, or one is neither a DNS name nor an IP address.
    """
    if not hosts:
        raise ConfigurationError("a server certificate needs at least one host name")
    names = host_names(hosts)
    fits = len(hosts[0]) <= _LONGEST_COMMON_NAME
    subject = _common_name(hosts[0]) if fits else x509.Name([])
    builder = begin_certificate(
        subject,
        public_key,
        issuer=issuing.subject,
        not_before=max(now - backdate, issuing.not_valid_before_utc),
        not_after=min(now + validity, issuing.not_valid_after_utc),
    )
    builder = (
        builder.add_extension(authority_key_identifier(issuing), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage({"digital_signature"}), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, CMC_RA]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)
    )
    return signer.sign_certificate(builder)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses of a server, for another certificate of its own.

    :raises ConfigurationError: there is none.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        subject = certificate.subject.rfc4514_string()
        raise ConfigurationError(f"the certificate of {subject} names no host") from None
    return [str(name.value) for name in names]


def host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Entries of a subjectAltName for DNS names and IP addresses.

    :raises ConfigurationError: one is neither.
    """
    return [_host(host) for host in hosts]


def begin_ca(
    subject: x509.Name,
    key: PublicKey,
    issuer: x509.Name,
    not_before: datetime,
    not_after: datetime,
    *,
    certificates_below: int,
) -> x509.CertificateBuilder:
    """A CA certificate, complete but for the identifier of its issuer's key.

    :param certificates_below: how many CA certificates may come between it and a device's.
    """
    return (
        begin_certificate(subject, key, issuer=issuer, not_before=not_before, not_after=not_after)
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=certificates_below), critical=True
        )
        .add_extension(key_usage({"key_cert_sign", "crl_sign"}), critical=True)
    )


def _common_name(text: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    except ValueError as error:
        raise ConfigurationError(f"cannot be a common name: {text!r}") from error


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    if not is_dns_name(text):
        raise ConfigurationError(f"neither a DNS name in ASCII nor an IP address: {text!r}")
    return x509.DNSName(text)

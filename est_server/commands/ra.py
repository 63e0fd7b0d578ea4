"""``est-server ra``: certificates for registration authorities."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from est_protocol.errors import ConfigurationError, MessageError, RefusalReason, RequestRefused
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_server.assembly import load_authority, open_store
from est_server.authorities.creation import CMC_RA, host_names
from est_server.authorities.local import LocalAuthority
from est_server.commands.options import OneLineParser, add_command
from est_server.config import ServerConfig, load_config
from est_server.intents import order_id
from est_server.interfaces import IssuanceOrder
from est_server.ledger_records import EnrollmentIntent, IssuanceTicket, IssuedCertificate
from est_server.private_files import write_new
from est_server.profiles import CertificateProfile

#: Octets of a file with a certification request; more is something else.
_LARGEST_CSR = 65536

#: Nobody's CA lives longer.
_MOST_DAYS = 36500

_PROFILE = CertificateProfile(
    name="registration-authority",
    extended_key_usages=(ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA),
)

#: For one certificate towards both sides: to the EST server and to devices.
_FRONT_PROFILE = replace(
    _PROFILE,
    extended_key_usages=(*_PROFILE.extended_key_usages, ExtendedKeyUsageOID.SERVER_AUTH),
)


def add_to(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Add the commands."""
    parser = commands.add_parser(
        "ra", help="certificates for registration authorities, which enroll for devices"
    )
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    issue = add_command(
        subcommands,
        "issue",
        _issue,
        help="issue a certificate with the extended key usage id-kp-cmcRA",
        example="est-server ra issue line-3 --csr line-3.csr --out line-3.pem "
        "--config est/est-server.toml",
        note="""\
Prints what to add to est-server.toml: by itself the certificate allows nothing. It is in
the ledger as of the device ra:NAME; the same request again gets the same certificate.""",
    )
    issue.add_argument("name", metavar="NAME", help="its common name")
    issue.add_argument(
        "--csr", type=Path, required=True, metavar="FILE", help="PKCS #10 in PEM or DER"
    )
    issue.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="new file for certificate and chain"
    )
    issue.add_argument(
        "--days", type=int, default=365, metavar="N", help="days of validity (%(default)s)"
    )
    issue.add_argument(
        "--authority", default="default", metavar="NAME", help="which authority (%(default)s)"
    )
    issue.add_argument(
        "--server-name",
        action="append",
        default=[],
        metavar="HOST",
        help="a DNS name or IP address that devices reach it by: it may present the certificate "
        "to them too (serverAuth); may be repeated",
    )
    issue.add_argument(
        "--replace",
        action="store_true",
        help="supersede the certificate that it has: from now on that one is refused",
    )


def _issue(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    settings = config.authorities.get(options.authority)
    if settings is None:
        raise ConfigurationError(f"there is no table [authorities.{options.authority}]")
    if not 1 <= options.days <= _MOST_DAYS:
        raise ConfigurationError(f"--days has to be between 1 and {_MOST_DAYS}")
    if options.out.exists():
        raise ConfigurationError(f"{options.out} exists; nothing was issued")
    authority = load_authority(settings)
    csr = _read_csr(options.csr)
    hosts: list[str] = options.server_name
    intent = _intent(options.name, csr, hosts, datetime.now(UTC), again=options.replace)
    order = IssuanceOrder(
        order_id=order_id(intent, csr.key_sha256),
        public_key=csr.public_key,
        subject=_subject(options.name),
        subject_alt_names=tuple(host_names(hosts)),
        validity=timedelta(days=options.days),
        profile=_FRONT_PROFILE if hosts else _PROFILE,
        label=None,
        pop_linked=False,
        now=intent.requested_at,
    )
    certificate = asyncio.run(
        _issue_once(config, authority, order, intent, replace=options.replace)
    )
    issuing = asyncio.run(authority.ca_certificates(None))[0]
    pem = b"".join(c.public_bytes(Encoding.PEM) for c in (certificate, issuing))
    write_new(options.out, pem, private=False)
    print(f"""\
{options.out} is the certificate of {order.subject.rfc4514_string()}. It allows nothing until a \
label names it:

  [default.registration_authorities]
  certificates = ["{certificate.fingerprint(hashes.SHA256()).hex()}"]

A server that is running takes notice at SIGHUP.""")
    return 0


def _read_csr(file: Path) -> CertificationRequest:
    with file.open("rb") as stream:
        octets = stream.read(_LARGEST_CSR + 1)
    if len(octets) > _LARGEST_CSR:
        raise ConfigurationError(f"{file} is larger than {_LARGEST_CSR} octets")
    try:
        if b"-----BEGIN" in octets:
            octets = x509.load_pem_x509_csr(octets).public_bytes(Encoding.DER)
        csr = CertificationRequest.decode(octets)
    except (MessageError, ValueError) as error:
        raise ConfigurationError(f"{file}: no certification request: {error}") from error
    if not csr.proves_possession():
        raise ConfigurationError(f"{file}: the signature does not verify with the key in it")
    return csr


def _subject(name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError as error:
        raise ConfigurationError(f"cannot be a common name: {name!r}") from error


async def _issue_once(
    config: ServerConfig,
    authority: LocalAuthority,
    order: IssuanceOrder,
    intent: EnrollmentIntent,
    *,
    replace: bool,
) -> x509.Certificate:
    """Issue as the service does: nothing leaves that is not in the ledger, where it can be
    revoked."""
    async with open_store(config) as store:
        if await store.find_by_udid(intent.device) is not None:
            raise ConfigurationError(f"{intent.device} is a device on the list")
        if replace:
            await store.release_claim(
                intent.device, None, actor="est-server ra", reason="replaced", now=order.now
            )
        try:
            begun = await store.begin(intent)
        except RequestRefused as refused:
            if refused.reason is RefusalReason.ALREADY_CLAIMED:
                raise ConfigurationError(
                    f"{intent.device} has had a certificate; --replace supersedes it"
                ) from refused
            raise
        if isinstance(begun, IssuedCertificate):
            return begun.certificate
        assert isinstance(begun, IssuanceTicket), "nothing about this intent needs approval"
        try:
            certificate = await authority.issue(order)
        except BaseException as error:
            await store.abandon(begun, reason=repr(error), now=order.now)
            raise
        return (await store.complete(begun, certificate, now=datetime.now(UTC))).certificate


def _intent(
    name: str, csr: CertificationRequest, hosts: Sequence[str], now: datetime, *, again: bool
) -> EnrollmentIntent:
    """What the ledger is asked for.

    :param hosts: what devices reach it by.
    :param again: this is not the retry of an earlier request, whatever it looks like.
    """
    device = f"ra:{name}"
    parts = (device, csr.key_sha256.hex(), now.isoformat() if again else "", *hosts)
    return EnrollmentIntent(
        request_key=hashlib.sha256("\0".join(parts).encode()).digest(),
        operation=Operation.SIMPLEENROLL,
        label=None,
        device=device,
        spki_sha256=csr.key_sha256,
        predecessor=None,
        transport=Transport.HTTPS,
        peer="est-server ra",
        reasons=("registration authority, by an operator",),
        requested_at=now,
    )

"""The settings of ``est-server.toml``, table by table, with their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from est_protocol.coap.parameters import TransmissionParameters
from est_protocol.errors import ConfigurationError
from est_protocol.http_authentication import DigestAlgorithm
from est_protocol.secure_channel.policy import DtlsPolicy, TlsPolicy
from est_server.alarms import AlarmLimits
from est_server.approvals import ApprovalTerms
from est_server.birth_certificates import BirthCertificateSettings
from est_server.coaps.limits import CoapsLimits
from est_server.config.csr_attributes import CsrAttributesSettings
from est_server.config.proxy import ProxySettings
from est_server.config.reader import NOT_A_SETTING, InputDirectory, InputFile, Port
from est_server.config.registration_authorities import RegistrationAuthoritySettings
from est_server.devices.list_format import ListLimits
from est_server.https import HttpsLimits, PlainHttpLimits
from est_server.legacy_forms import NO_LEGACY_FORMS, LegacyForms
from est_server.profiles import CertificateProfile
from est_server.quotas import DeviceQuotas
from est_server.retirement import ReloadLimits
from est_server.revocation.publisher import CrlSchedule
from est_server.stores.opening import Location
from est_server.stores.options import StoreOptions
from est_server.stores.postgresql import PostgresqlAddress, PostgresqlOptions
from est_server.stores.sqlite import SqliteOptions
from est_server.user_credentials import UserRequirement
from est_server.users import UserLimits
from est_server.workers.limits import WorkerLimits

#: Stands in a profile for the address of the label's CRL under ``[crl] url``.
CRL_PLACEHOLDER = "{crl}"

#: The integrity key, beside the configuration, if this names no other.
INTEGRITY_KEY_NAME = "integrity.key"

#: The characters of a URI (RFC 3986 section 2).
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,2048}")


class Combination(StrEnum):
    """How several authorizers come to one decision."""

    ALL_OF = "all-of"
    FIRST_OF = "first-of"


class LogFormat(StrEnum):
    """How a line of the audit log is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """A certificate authority with its key in a file.

    :param certificate: PEM file with the issuing CA's certificate and those above it up to the
        root, the issuing one first; all of them are answered to /cacerts.
    :param key: PEM file with the issuing CA's private key.
    :param key_passphrase_variable: name of the environment variable with the key's passphrase;
        without it the key is read as unencrypted.
    :param rollover: PEM file with what /cacerts answers beside ``certificate`` while the CA is
        being replaced, as ``est-server ca rollover`` makes it; leave it out when the old root has
        expired. The CA before keeps a table of its own under ``authorities``, so that its
        certificates are still taken for renewal.
    :param crl_name: what its revocation list is called under ``[crl] url``; by default the name of
        this table. Certificates name their list by it for as long as they are valid, so the CA
        before keeps it through a roll-over, and the new one has another.
    """

    certificate: InputFile
    key: InputFile
    key_passphrase_variable: str | None = None
    rollover: InputFile | None = None
    crl_name: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceListSettings:
    """What the authorizer ``device-list`` takes for proof that a device is the listed one.

    :param birth_certificates: a chain that ends at a trusted manufacturer, over a listed key.
    :param bare_keys: a listed key that is proved without such a chain.
    :param expired_birth_certificates: a birth certificate whose only fault is that it has expired
        (RFC 9148 section 3 allows it, since devices can lie in store for years).
    """

    birth_certificates: bool = True
    bare_keys: bool = True
    expired_birth_certificates: bool = False


@dataclass(frozen=True, slots=True)
class HttpAuthenticationSettings:
    """HTTP authentication (RFC 7030 section 3.2.3); without this table nobody is asked for it.

    :param verifier: who knows the users: ``one-time-secret`` for those of ``est-server secrets``,
        by Basic; or ``package.module:object``, an object of your own with the methods of
        ``est_server.user_credentials.CredentialsVerifier``, in an installed package.
    :param required: ``http``: HTTP credentials are necessary and enough; ``both``: necessary
        beside a client certificate that verifies or a listed key, proved by a certificate or by a
        CSR that is linked to its channel; ``either``: HTTP credentials, a certificate or such a
        CSR are enough. CoAPS has no HTTP authentication: with the first two, requests that come
        over it need the secret of the same verifier as ``otp_challenge``, and are refused
        otherwise.
    :param realm: shown to clients, and part of what Digest hashes.
    :param basic: take Basic.
    :param digest: take Digest with these algorithms, the best first; ``["SHA-256"]`` where it is
        left out and the verifier can do it. ``MD5`` is for clients that know nothing else.
    :param renewals: ask at renewals too.
    """

    verifier: str
    required: UserRequirement = UserRequirement.EITHER
    realm: str = "EST"
    basic: bool = True
    digest: tuple[DigestAlgorithm, ...] | None = None
    renewals: bool = False


@dataclass(frozen=True, slots=True)
class KeyGenerationSettings:
    """Private keys that the server makes for devices (RFC 7030 section 4.4). Without this table
    it makes none; the key is known to somebody else, so leave it out unless devices need it.

    Where a device asks for it, the key is encrypted for the key of its certificate and signed
    with the key of the HTTPS server, or else of the CoAPS server.

    :param kinds: kinds of key to make; the kind that a device asks for if it is one of them, else
        the first. The profile has to allow certificates for all of them.
    :param require_protected_key: refuse devices that do not have the key encrypted beside TLS.
    :param retry_window: for how long a device may ask again because the answer was lost. The
        certificate that it then gets supersedes the one whose key it never saw.
    """

    kinds: tuple[str, ...] = ("ec-p256",)
    require_protected_key: bool = False
    retry_window: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """What requests under one label get.

    :param authorizers: who decides; there is no default, and a label without one keeps the
        server from starting. ``device-list`` grants to the devices of imported lists;
        ``one-time-secret`` grants for the secrets of ``est-server secrets``; ``http-user`` grants
        to the users in ``http_users``; ``birth-certificate`` registers devices of manufacturers
        that are trusted when they first come; ``approval`` has an operator look at each first
        enrollment: with ``all-of`` at those that the others grant, alone or with ``first-of`` at
        those of anybody who proves to hold a key;
        ``package.module:function`` is an ``async def`` of your own, in an installed package.
    :param combination: what several authorizers decide together: ``all-of`` them have to grant,
        or the ``first-of`` them that grants decides.
    :param authority: name of the table under ``authorities`` that issues for this label.
    :param require_pop_linking: refuse requests that are not linked to their channel (RFC 7030
        section 3.5). Without a client certificate linking is required in any case, unless the
        client knows a secret.
    :param http_authentication: ask for HTTP authentication.
    :param otp_challenge: take the secrets of ``est-server secrets`` in the otpChallenge of a CSR
        (RFC 7894), on both transports; a CSR with one is refused otherwise.
    :param http_users: for ``http-user``: the UDID of each user's device, or ``*`` for any listed
        one.
    :param unlisted_devices: let ``one-time-secret`` and ``http-user`` grant to devices too that
        are not on the list. They are registered with their first enrollments.
    :param owners: whose devices may have certificates of this label; without it, everybody's.
        A device's owner is its attribute ``owner`` in the list, or who it was transferred to.
    :param device_list: what ``device-list`` takes for proof.
    :param quotas: how many devices ``device-list`` grants to.
    :param birth_certificate: whose devices ``birth-certificate`` registers.
    :param serve_quarantined: whether devices in quarantine may have certificates of this label.
    :param approval: what holds for requests that wait for ``approval``.
    :param csr_attributes: what CSRs should have in them.
    :param server_key_generation: keys that the server makes; without this table, none.
    :param registration_authorities: who may enroll on behalf of devices; without this table,
        nobody.
    :param legacy: what the label does otherwise than the RFCs, for peers that need it.
    :param profile: what the certificates look like.
    """

    authorizers: tuple[str, ...] = ()
    combination: Combination = Combination.ALL_OF
    authority: str = "default"
    require_pop_linking: bool = False
    http_authentication: HttpAuthenticationSettings | None = None
    otp_challenge: bool = False
    http_users: Mapping[str, str] = field(default_factory=dict)
    unlisted_devices: bool = False
    owners: tuple[str, ...] | None = None
    device_list: DeviceListSettings = field(default_factory=DeviceListSettings)
    quotas: DeviceQuotas = field(default_factory=DeviceQuotas)
    approval: ApprovalTerms = field(default_factory=ApprovalTerms)
    birth_certificate: BirthCertificateSettings | None = None
    serve_quarantined: bool = False
    csr_attributes: CsrAttributesSettings = field(default_factory=CsrAttributesSettings)
    legacy: LegacyForms = NO_LEGACY_FORMS
    profile: CertificateProfile = field(default_factory=CertificateProfile)
    server_key_generation: KeyGenerationSettings | None = None
    registration_authorities: RegistrationAuthoritySettings | None = None

    @property
    def allowed_owners(self) -> frozenset[str] | None:
        """``owners`` as a set."""
        return None if self.owners is None else frozenset(self.owners)


@dataclass(frozen=True, slots=True)
class HttpsSettings:
    """EST over HTTPS (RFC 7030). Without this table HTTPS is not served.

    :param certificate: PEM file with the server's certificate and the chain to send with it.
    :param key: PEM file with its private key.
    :param listen: address to listen on; the default is reachable from this machine only.
    :param port: TCP port, 0 for any that is free.
    :param key_passphrase_variable: name of the environment variable with the key's passphrase.
    :param tls: versions, suites, groups.
    :param limits: sizes, times and counts.
    """

    certificate: InputFile
    key: InputFile
    listen: str = "127.0.0.1"
    port: Port = 8443
    key_passphrase_variable: str | None = None
    tls: TlsPolicy = field(default_factory=TlsPolicy)
    limits: HttpsLimits = field(default_factory=HttpsLimits)


@dataclass(frozen=True, slots=True)
class CoapsSettings:
    """EST over CoAPS (RFC 9148). Without this table CoAPS is not served.

    :param certificate: PEM file with the server's certificate and the chain to send with it;
        an EC key, as the mandatory suite of RFC 9148 section 3 authenticates with ECDSA.
    :param key: PEM file with its private key.
    :param listen: address to listen on; the default is reachable from this machine only.
    :param port: UDP port, 0 for any that is free.
    :param key_passphrase_variable: name of the environment variable with the key's passphrase.
    :param send_root: send the root certificate in the handshake too, so that a client that
        knows nothing but the root's fingerprint can check it; costs its size on the air.
    :param dtls: suites, groups, MTU.
    :param transmission: CoAP's transmission parameters; the clients' should be the same.
    :param limits: sizes, times and counts.
    """

    certificate: InputFile
    key: InputFile
    listen: str = "127.0.0.1"
    port: Port = 5684
    key_passphrase_variable: str | None = None
    send_root: bool = True
    dtls: DtlsPolicy = field(default_factory=DtlsPolicy)
    transmission: TransmissionParameters = field(default_factory=TransmissionParameters)
    limits: CoapsLimits = field(default_factory=CoapsLimits)


@dataclass(frozen=True, slots=True)
class CrlSettings:
    """Certificate revocation lists over plain HTTP, one for each table under `authorities`:
    `/NAME.crl`, where NAME is its `crl_name`. Without this table none are made.

    :param url: the address under which devices and services reach this listener, such as
        ``http://crl.example.com``; certificates name it where a profile's
        ``crl_distribution_points`` has ``{crl}``.
    :param listen: address to listen on; the default is reachable from this machine only.
    :param port: TCP port, 0 for any that is free.
    :param max_age: for how long caches on the way may answer without asking.
    :param schedule: when new ones are made.
    :param limits: sizes, times and counts.
    """

    url: str | None = None
    listen: str = "127.0.0.1"
    port: Port = 8081
    max_age: timedelta = timedelta(minutes=5)
    schedule: CrlSchedule = field(default_factory=CrlSchedule)
    limits: PlainHttpLimits = field(default_factory=PlainHttpLimits)

    def __post_init__(self) -> None:
        """Check it.

        :raises ValueError: the address is no URL of plain HTTP.
        """
        if self.url is not None:
            require_http_url(self.url)

    def address_of(self, name: str) -> str | None:
        """The URL of the CRL called ``name``, as certificates name it."""
        return None if self.url is None else f"{self.url.rstrip('/')}/{name}.crl"


def require_http_url(text: str) -> None:
    """Check an address of a CRL.

    :raises ValueError: it is no ``http://`` URL in ASCII. RFC 5280 section 8: not ``https://``,
        whose certificate would have to be checked before the CRL can be read.
    """
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or not _URL.fullmatch(text):
        raise ValueError(f"{text!r} is no http:// URL in ASCII")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The store of devices and of everything that was asked and issued: an SQLite file, or a
    PostgreSQL database. For the latter, ``store = "postgresql://..."`` at the top of the file
    will do in place of the table.

    :param path: the SQLite file; made if it does not exist.
    :param url: URL of the PostgreSQL database, as libpq understands it; needs
        ``est-enrollment[postgresql]``. Over a network ``sslmode=verify-full`` with the system's
        authorities is the default. A password does not belong here but where libpq looks for it:
        in the file ``passfile=...``, or in the environment variable ``PGPASSWORD``.
    :param integrity_key: file with the key that seals the rows, which ``init`` and ``devices
        seal`` make; all servers of one database have the same. If it is not said, it is
        ``integrity.key`` beside the configuration.
    :param unsealed: do without a key. Whoever can write the database can then add devices, undo
        revocations and reset quotas, and nobody notices; the server warns at every start.
    :param bounds: sizes and times.
    :param sqlite: sizes and times of the SQLite file.
    :param postgresql: times and counts of the connections to PostgreSQL.
    """

    path: Path | None = None
    url: PostgresqlAddress | None = None
    integrity_key: Path | None = None
    unsealed: bool = False
    bounds: StoreOptions = field(default_factory=StoreOptions)
    sqlite: SqliteOptions = field(default_factory=SqliteOptions)
    postgresql: PostgresqlOptions = field(default_factory=PostgresqlOptions)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.url is None):
            raise ConfigurationError("needs either path or url")
        if self.unsealed and self.integrity_key is not None:
            raise ConfigurationError("either has an integrity_key or is unsealed")

    @classmethod
    def from_text(cls, text: str) -> StoreSettings:
        """The table that ``store = "postgresql://..."`` stands for."""
        return cls(url=PostgresqlAddress.from_text(text))

    @property
    def location(self) -> Location:
        """Where the store is."""
        location = self.path or self.url
        assert location is not None
        return location


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Whose birth certificates are believed.

    :param manufacturers: directory of PEM files, one manufacturer CA certificate each.
    """

    manufacturers: InputDirectory | None = None


@dataclass(frozen=True, slots=True)
class DevicesSettings:
    """The import of device lists.

    :param allow_unsigned: whether ``devices import --allow-unsigned`` may import a list that
        carries no signature. For a first try only: whoever can write such a file decides which
        devices are genuine. The server warns at every start as long as this is on.
    :param limits: what a list may be like.
    """

    allow_unsigned: bool = False
    limits: ListLimits = field(default_factory=ListLimits)


@dataclass(frozen=True, slots=True)
class ListSignerSettings:
    """Somebody whose signatures over device lists are believed; the table may be there several
    times. They are known by exactly one of `certificate`, `public_key` and `ca`.

    :param name: what they are called in the record of an imported list.
    :param certificate: PEM file with their certificate, or several; its key is what counts, and
        it must not have expired.
    :param public_key: PEM file with their public key.
    :param ca: PEM file with CA certificates. Their certificate is one that such a CA has issued
        and that has what the next two say; at least one of these has to be there, since a CA
        certifies others too. The certificate must come with the signature.
    :param extended_key_usages: with `ca`: all of which their certificate must have. Those for
        clients and servers of TLS, and the one for anything, are not enough alone.
    :param subject: with `ca`: the subject of their certificate, such as ``CN=lists,O=Acme``.
    :param judge_at_signing_time: take a certificate that has expired, if it was valid when the
        list was signed. When that was only the signature itself says, so whoever gets hold of
        the key later can sign with an earlier time.
    """

    name: str
    certificate: InputFile | None = None
    public_key: InputFile | None = None
    ca: InputFile | None = None
    extended_key_usages: frozenset[x509.ObjectIdentifier] = frozenset()
    subject: str | None = None
    judge_at_signing_time: bool = False


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Bounds that hold for both transports.

    :param authorizer_timeout: seconds that an authorizer may take; longer means refused.
    :param issuance_timeout: seconds that a certificate may take once it is granted, a key made by
        the server included; less than the store's lease.
    :param users: bounds of HTTP authentication and one-time secrets.
    :param reload: what becomes of open connections when the configuration is read again.
    :param workers: processes of ``est-server serve --workers``.
    """

    authorizer_timeout: float = 10.0
    issuance_timeout: float = 20.0
    users: UserLimits = field(default_factory=UserLimits)
    reload: ReloadLimits = field(default_factory=ReloadLimits)
    workers: WorkerLimits = field(default_factory=WorkerLimits)


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """Signs of cloning and of stolen keys. They are errors of ``est_server.alarm`` in the log in
    any case, once for each kind and device in a while.

    :param webhook: an ``https://`` URL (or an ``http://`` one on this machine) that each alarm is
        sent to by POST, as a JSON object.
    :param webhook_timeout: seconds for one such request.
    :param limits: how many alarms, and for how long.
    """

    webhook: str | None = None
    webhook_timeout: float = 5.0
    limits: AlarmLimits = field(default_factory=AlarmLimits)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The audit log: one line for each request, answered or refused.

    :param format: ``text`` for people, ``json`` for one JSON object per line.
    :param file: file to append to, made with mode 0600; without it, standard error.
    :param refusals_per_second: lines per second, of all workers together, about refused requests
        of nobody known. Anybody who can connect makes such lines; the next one says how many were
        left out.
    """

    format: LogFormat = LogFormat.TEXT
    file: Path | None = None
    refusals_per_second: int = 100


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything in ``est-server.toml``.

    :param default: requests without a label.
    :param authorities: certificate authorities by name.
    :param store: the store.
    :param labels: requests with a label, by label; in the file it may be percent-encoded as in a
        URL.
    :param https: EST over HTTPS.
    :param coaps: EST over CoAPS.
    :param proxy: TLS-terminating proxies.
    :param crl: certificate revocation lists.
    :param trust: whose birth certificates are believed.
    :param devices: the import of device lists.
    :param list_signers: whose signatures over device lists are believed.
    :param service: bounds for both transports.
    :param alarms: who hears of signs of cloning.
    :param log: the audit log.
    :param file: where all this was read; for messages.
    """

    default: LabelSettings
    authorities: Mapping[str, AuthoritySettings]
    store: StoreSettings
    labels: Mapping[str, LabelSettings] = field(default_factory=dict)
    https: HttpsSettings | None = None
    coaps: CoapsSettings | None = None
    proxy: ProxySettings | None = None
    crl: CrlSettings | None = None
    trust: TrustSettings = field(default_factory=TrustSettings)
    devices: DevicesSettings = field(default_factory=DevicesSettings)
    list_signers: tuple[ListSignerSettings, ...] = ()
    service: ServiceSettings = field(default_factory=ServiceSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    log: LogSettings = field(default_factory=LogSettings)
    file: Path = field(default=Path("est-server.toml"), metadata={NOT_A_SETTING: True})

    @property
    def integrity_key(self) -> Path | None:
        """The file of the key that seals the store; ``None`` if it is to be unsealed."""
        if self.store.unsealed:
            return None
        return self.store.integrity_key or self.file.parent / INTEGRITY_KEY_NAME

    def crl_name(self, authority: str) -> str:
        """What the CRL of the authority of this name is called."""
        return self.authorities[authority].crl_name or authority

    def profile(self, label: str | None) -> CertificateProfile:
        """The profile of ``label``, with the addresses of its CRL as certificates name them.

        :raises ConfigurationError: an address is no ``http://`` URL, or nobody knows it.
        """
        settings = self.policies[label]
        crl = self.crl.address_of(self.crl_name(settings.authority)) if self.crl else None
        points = []
        for point in settings.profile.crl_distribution_points:
            if point == CRL_PLACEHOLDER and crl is None:
                raise ConfigurationError(
                    f"crl_distribution_points: {CRL_PLACEHOLDER} needs [crl] with its url"
                )
            address = crl if point == CRL_PLACEHOLDER and crl else point
            try:
                require_http_url(address)
            except ValueError as error:
                raise ConfigurationError(f"crl_distribution_points: {error}") from error
            points.append(address)
        return replace(settings.profile, crl_distribution_points=tuple(points))

    @property
    def policies(self) -> Mapping[str | None, LabelSettings]:
        """The settings of every label, ``None`` for the default."""
        policies: dict[str | None, LabelSettings] = {None: self.default}
        policies.update(self.labels)
        return policies

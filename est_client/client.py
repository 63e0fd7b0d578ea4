"""EST operations as a device calls them (RFC 7030 section 4, RFC 9148 section 4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from cryptography import x509

from est_client.bootstrap import CaFingerprint
from est_client.connection import Connector, EstConnection
from est_client.connectors import connector_for
from est_client.csr_contents import CsrContents, contents_as_wished, names_to_ask_for
from est_client.exchange import Exchange
from est_client.generated_key import accept_generated, protection_by
from est_client.issued import accept_issued
from est_client.location import ServerLocation
from est_client.redirects import RedirectPolicy
from est_client.retry import RetryPolicy
from est_client.secrets import ClientSecrets, HttpLogin
from est_client.self_signed import udid_name
from est_client.session import Session
from est_client.trust import TrustDatabase
from est_protocol import decrypt_key, pkcs10
from est_protocol.change_subject_name import ChangeSubjectName
from est_protocol.credentials import AnchorSet
from est_protocol.csr_attributes import CsrAttributes
from est_protocol.csr_wishes import CsrWishes, read
from est_protocol.errors import (
    ConfigurationError,
    MessageError,
    PeerNotTrusted,
    ServerRefused,
)
from est_protocol.key_recipients import SymmetricKey
from est_protocol.keys import SigningKey, generate_key
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    GeneratedKeyResponse,
)
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import LocalCredentials
from est_protocol.trust_anchors import CaCertificates, read_ca_certificates

#: What a server says that has no CSR attributes, or does not know of them (RFC 7030 section 4.5.2,
#: RFC 9148 section 4.5); 204 is no refusal.
_NO_CSR_ATTRIBUTES = frozenset({"404", "501", "4.04", "5.01"})


def _now() -> datetime:
    return datetime.now(UTC)


class EstClient:
    """A client of one EST server; an async context manager that closes its channel.

    No request is written before the server's chain and name have been verified.

    :param server: ``https://HOST[:PORT][/.well-known/est[/LABEL]]``, the same with ``coaps``, or
        what makes the connections; :func:`est_client.connectors.connector_for` takes options.
    :param trust: what to verify the server with: the databases, or the fingerprint of the CA
        certificate that makes the Explicit one (RFC 7030 section 4.1.1).
    :param identity: the key and certificate chain to authenticate with. An empty chain is a bare
        key: it authenticates by POP linking on HTTPS, by a self-signed certificate on CoAPS.
    :param label: the path segment that selects a CA (RFC 7030 section 3.2.2).
    :param pop_linking: link each CSR to its channel (RFC 7030 section 3.5); a server whose
        channel gives nothing to link to is then sent none.
    :param present_bare_key: present a self-signed certificate for a bare key on HTTPS too, which
        proves possession of it where another key is to be certified.
    :param adopt_trust: let the answer to /cacerts replace the trust anchors (RFC 7030 section
        4.1.3), but for an Explicit one that the server itself is of. Without it they all stay as
        configured, for servers whose own certificate is of another CA than the one that issues.
    :param fetch_ca_certificates: get /cacerts before the first enrollment (RFC 7030 section
        4.2), so that the issued certificate can be verified.
    :param http_credentials: what to answer a verified server with that asks for HTTP
        authentication (RFC 7030 section 3.2.3); dropped after the first enrollment. It is told to
        nobody who does not ask.
    :param otp_challenge: a one-time secret to put into the CSR of the first enrollment (RFC 7894
        section 3.1), on either transport; our server takes ``NAME:SECRET``.
    :param secrets_over_implicit_trust: tell these two also to a server that only an Implicit
        trust anchor verified (RFC 7030 section 6 advises against it).
    :param keep_secrets: do not drop these two, and tell them at renewals as well, for servers that
        ask for them there (RFC 7030 section 6: a certificate should be enough).
    :param redirects: which redirects to follow: those within the server, unless told otherwise.
    :param retry: what to do when an answer is lost.
    :param keep_connection: seconds from one request to the next within which both use the same
        channel.
    :param sleep: waits for a number of seconds.
    :param monotonic: seconds of a clock that never jumps.
    :param now: the current time, timezone-aware.
    :raises ConfigurationError: the URL is none of an EST server.
    """

    def __init__(
        self,
        server: Connector | str,
        *,
        trust: TrustDatabase | CaFingerprint,
        identity: LocalCredentials | None = None,
        label: str | None = None,
        pop_linking: bool = True,
        present_bare_key: bool = False,
        adopt_trust: bool = True,
        fetch_ca_certificates: bool = True,
        http_credentials: HttpLogin | None = None,
        otp_challenge: str | None = None,
        secrets_over_implicit_trust: bool = False,
        keep_secrets: bool = False,
        redirects: RedirectPolicy | None = None,
        retry: RetryPolicy | None = None,
        keep_connection: float = 10.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _now,
    ) -> None:
        if isinstance(server, str):
            location = ServerLocation.parse(server)
            if label is not None:
                location = location.with_label(label)
            server, label = connector_for(location), location.label
        self._session = Session(
            server,
            label=label,
            trust=trust,
            identity=identity,
            present_bare_key=present_bare_key,
            keep=keep_connection,
            monotonic=monotonic,
            now=now,
        )
        self._secrets = ClientSecrets(
            http_credentials,
            otp_challenge,
            over_implicit_trust=secrets_over_implicit_trust,
            keep=keep_secrets,
        )
        self._exchange = Exchange(
            self._session,
            label=label,
            secrets=self._secrets,
            redirects=redirects or RedirectPolicy(),
            retry=retry or RetryPolicy(),
            sleep=sleep,
            monotonic=monotonic,
        )
        self._pop_linking = pop_linking
        self._adopt_trust = adopt_trust
        self._fetch_ca_certificates = fetch_ca_certificates
        self._now = now
        #: What /cacerts gave last; ``None`` before.
        self.authority: CaCertificates | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel, if there is one; the client may be used again."""
        await self._session.close()

    @property
    def identity(self) -> LocalCredentials | None:
        """The key and chain to authenticate with; assign another for the next connection."""
        return self._session.identity

    @identity.setter
    def identity(self, identity: LocalCredentials | None) -> None:
        self._session.identity = identity

    @property
    def trust(self) -> TrustDatabase | None:
        """The trust databases as they are now, to be kept for the next start."""
        return self._session.trust

    @property
    def adopts_trust(self) -> bool:
        """Whether the answer to /cacerts replaces the trust anchors."""
        return self._adopt_trust

    @property
    def verified_by(self) -> AnchorSet | None:
        """The database that verified the server of the latest connection."""
        return self._session.verified_by

    async def cacerts(self) -> tuple[x509.Certificate, ...]:
        """Get the CA certificates and trust them from now on (RFC 7030 section 4.1).

        :return: the current CA certificate, and every other one that verified under it.
        :raises PeerNotTrusted: the server is not trusted; also if it is not one of the CA that
            its answer names (RFC 9148 section 9.1), but for an HTTPS server that an Explicit
            trust anchor verifies, which then stays one.
        :raises MessageError: the answer does not decode, or has no CA certificate in it.
        :raises ServerRefused: the server refused.
        :raises ChannelError: there was no answer.
        """
        answer = await self._exchange.send(
            Operation.CACERTS, lambda _: b"", expected=CertificatesResponse
        )
        authority = read_ca_certificates(answer.certificates, now=self._now())
        if self._adopt_trust:
            await self._session.adopt_trust(authority.anchors)
        self.authority = authority
        return authority.all

    async def csrattrs(self) -> CsrWishes | None:
        """Ask what the server wants to see in a CSR (RFC 7030 section 4.5).

        :return: ``None`` if it wants nothing, or does not say.
        :raises EstError: as :meth:`csr_attributes`.
        """
        message = await self.csr_attributes()
        return None if message is None else read(message)

    async def csr_attributes(self) -> CsrAttributes | None:
        """The same as the message that the server sends.

        :raises MessageError: the answer does not decode.
        :raises ServerRefused: the server refused, which is another thing than having nothing.
        :raises PeerNotTrusted: the server is not trusted; no request was sent.
        :raises ChannelError: there was no answer.
        """
        try:
            answer = await self._exchange.send(
                Operation.CSRATTRS, lambda _: b"", expected=CsrAttributesResponse
            )
        except ServerRefused as refused:
            if refused.status in _NO_CSR_ATTRIBUTES:
                return None
            raise
        return None if answer.der is None else CsrAttributes.decode(answer.der)

    async def simpleenroll(
        self,
        *,
        key: SigningKey | None = None,
        subject: x509.Name | None = None,
        subject_alt_names: tuple[x509.GeneralName, ...] = (),
        change_names: bool = False,
        follow_csr_attributes: bool | CsrWishes = False,
        values: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> x509.Certificate:
        """Ask for a certificate (RFC 7030 section 4.2.1).

        :param key: the key to certify; the identity's by default.
        :param subject: the name to ask for; the UDID of ``key`` as common name by default.
        :param subject_alt_names: subjectAltName entries to ask for.
        :param change_names: ask for these two by ChangeSubjectName (RFC 6402 section 2.8), beside
            the names of the certificate that the client authenticates with.
        :param follow_csr_attributes: make the CSR as the server asks for it at /csrattrs, or as
            these wishes of it say: names that it gives are used, those that it leaves open are
            filled in from ``values``, ``subject`` and ``subject_alt_names``.
        :param values: texts for attributes that the server asks for, by short name or OID.
        :param wait: seconds to wait in all while the server says "not yet".
        :return: the certificate of ``key``, verified.
        :raises CertificateRejected: the server issued something else.
        :raises StillPending: it has not decided after ``wait`` seconds.
        :raises ServerRefused: it refused.
        :raises PeerNotTrusted: it is not trusted; no request was sent.
        :raises ChannelError: there was no answer, and no attempt is left.
        :raises MessageError: the answer does not decode.
        :raises ConfigurationError: there is no key, or no trust anchor; or the key is not what
            the server asks for, or nothing is given for what it leaves open.
        """
        if key is None:
            if self.identity is None:
                raise ConfigurationError("there is no key to certify")
            key = self.identity.key
        name = udid_name(key.public_key()) if subject is None else subject
        wishes = await self._followed(follow_csr_attributes)
        given = self._secrets.values(values, first=True)
        if change_names:
            change = names_to_ask_for(subject, subject_alt_names)
            contents = self._repeated_names(key, change, wishes, given)
        elif wishes is not None:
            contents = contents_as_wished(
                wishes, key, subject=name, subject_alt_names=subject_alt_names, values=given
            )
        else:
            contents = CsrContents(name, subject_alt_names)
        path = await self._enroll(Operation.SIMPLEENROLL, key, contents, wait)
        return path[0]

    async def simplereenroll(
        self,
        *,
        key: SigningKey | None = None,
        subject: x509.Name | None = None,
        subject_alt_names: tuple[x509.GeneralName, ...] | None = None,
        follow_csr_attributes: bool | CsrWishes = False,
        values: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> x509.Certificate:
        """Renew the identity's certificate, or rekey it (RFC 7030 section 4.2.2).

        The request repeats its subject and subjectAltName. On success the client goes on under
        the new identity, since the server counts the old one as superseded; on any error it
        keeps the old one.

        :param key: the key to certify; the identity's, which renews it, by default.
        :param subject: a new name to ask for, by ChangeSubjectName (RFC 6402 section 2.8): the
            request itself repeats the current one. A server has to know of it, and grant it.
        :param subject_alt_names: new subjectAltName entries to ask for; likewise.
        :param follow_csr_attributes: as for :meth:`simpleenroll`, but for the names, which the
            request repeats whatever the server asks for.
        :param values: as for :meth:`simpleenroll`.
        :param wait: seconds to wait in all while the server says "not yet".
        :return: the new certificate, verified.
        :raises ConfigurationError: the identity has no certificate.
        :raises EstError: as :meth:`simpleenroll`.
        """
        if self.identity is None or not self.identity.chain:
            raise ConfigurationError("there is no certificate to renew")
        key = key or self.identity.key
        wishes = await self._followed(follow_csr_attributes)
        changes = subject is not None or bool(subject_alt_names)
        change = ChangeSubjectName(subject, subject_alt_names) if changes else None
        given = self._secrets.values(values, first=False)
        contents = self._repeated_names(key, change, wishes, given)
        path = await self._enroll(Operation.SIMPLEREENROLL, key, contents, wait)
        self.identity = LocalCredentials(key, path)
        return path[0]

    async def serverkeygen(
        self,
        *,
        subject: x509.Name | None = None,
        subject_alt_names: tuple[x509.GeneralName, ...] = (),
        kind: str | None = None,
        shared_key: SymmetricKey | None = None,
        encrypted: bool = True,
        wait: float = 0.0,
    ) -> LocalCredentials:
        """Have the server generate a key, with its certificate (RFC 7030 section 4.4).

        Somebody else has then known the key: for devices that cannot make a good one only. It is
        asked for from servers that Explicit trust anchors verify, never from others. The
        identity of this client stays as it is.

        :param subject: the name to ask for; the UDID of the identity's key by default.
        :param subject_alt_names: subjectAltName entries to ask for.
        :param kind: the kind of key to ask for, one of :data:`est_protocol.keys.KEY_KINDS`, which
            the server may take no notice of; that of the identity's key by default.
        :param shared_key: a key that the server shares, to encrypt with.
        :param encrypted: have the key encrypted beside the channel, if there is a shared key or
            the identity's certified key may decrypt; then nothing else is accepted.
        :param wait: seconds to wait in all while the server says "not yet".
        :return: the key and its verified certificate, with those between it and the anchor.
        :raises CertificateRejected: the key is not encrypted as asked, or not the certificate's.
        :raises PeerNotTrusted: the server is not trusted, or by Implicit anchors only.
        :raises EstError: as :meth:`simpleenroll`.
        """
        identity = self.identity
        if identity is None:
            raise ConfigurationError("there is no identity to ask for a key with")
        protection = protection_by(identity, shared_key) if encrypted else None
        signer = identity.key if kind is None else generate_key(kind)
        name = udid_name(identity.key.public_key()) if subject is None else subject
        if self._fetch_ca_certificates and self.authority is None:
            await self.cacerts()
        if self.verified_by is AnchorSet.IMPLICIT:
            # The anchors that /cacerts gave verify the next connection.
            await self._session.close()
        server: tuple[x509.Certificate, ...] = ()

        def body(connection: EstConnection) -> bytes:
            nonlocal server
            if connection.server.anchor_set is not AnchorSet.EXPLICIT:
                raise PeerNotTrusted(
                    "a private key is taken only from a server that an Explicit trust anchor "
                    "verifies (RFC 7030 section 6)"
                )
            server = connection.server.chain
            binding = connection.server.channel_binding if self._pop_linking else None
            csr = pkcs10.build(
                signer,
                name,
                subject_alt_names=subject_alt_names,
                attributes=self._secrets.csr_attributes({}, self._session.server, first=True),
                binding=binding,
            )
            if protection is not None:
                csr = decrypt_key.write(csr, protection.request, signer)
            return csr.der

        answer = await self._exchange.send(
            Operation.SERVERKEYGEN, body, expected=GeneratedKeyResponse, wait=wait
        )
        generated = accept_generated(
            answer, protection, server=server, authority=self.authority, now=self._now()
        )
        self._secrets.have_worked()
        return generated

    def chain_of(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """``certificate`` and the CA certificates between it and the trust anchor.

        What a TLS client presents; of no more than ``certificate`` before /cacerts was asked.

        :raises CertificateRejected: it does not chain to the CA.
        """
        return accept_issued(
            (certificate,),
            certificate.public_key(),
            authority=self.authority,
            now=self._now(),
        )

    async def _followed(self, follow: bool | CsrWishes) -> CsrWishes | None:
        if isinstance(follow, CsrWishes):
            return follow
        return await self.csrattrs() if follow else None

    def _repeated_names(
        self,
        key: SigningKey,
        change: ChangeSubjectName | None,
        wishes: CsrWishes | None,
        values: Mapping[str, str] | None,
    ) -> CsrContents:
        """What goes into a CSR that repeats the names of the current certificate."""
        if self.identity is None or not self.identity.chain:
            raise ConfigurationError("there is no certificate whose names could be changed")
        current = self.identity.chain[0]
        name, names = current.subject, _subject_alt_names(current)
        contents = CsrContents(name, names)
        if wishes is not None:
            contents = contents_as_wished(
                wishes.without_names(), key, subject=name, subject_alt_names=names, values=values
            )
        return replace(contents, change=change)

    async def _enroll(
        self,
        operation: Operation,
        key: SigningKey,
        contents: CsrContents,
        wait: float,
    ) -> tuple[x509.Certificate, ...]:
        """The issued certificate and what belongs between it and the anchor."""
        if self._fetch_ca_certificates and self.authority is None:
            await self.cacerts()

        def body(connection: EstConnection) -> bytes:
            attributes = self._secrets.csr_attributes(
                contents.attributes,
                self._session.server,
                first=operation is not Operation.SIMPLEREENROLL,
            )
            complete = replace(contents, attributes=attributes)
            if not (self._pop_linking or contents.must_link):
                return complete.build(key, None)
            binding = connection.server.channel_binding
            if binding is None:
                raise PeerNotTrusted(
                    "the request cannot be linked to the channel: the server speaks TLS 1.2 "
                    "without the extended master secret (RFC 7627)"
                )
            return complete.build(key, binding)

        answer = await self._exchange.send(
            operation, body, expected=CertificatesResponse, wait=wait
        )
        path = accept_issued(
            answer.certificates,
            key.public_key(),
            authority=self.authority,
            now=self._now(),
        )
        self._secrets.have_worked()
        return path


def _subject_alt_names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise MessageError("the current certificate has unreadable extensions") from error
    return tuple(extension.value)

"""The rules that hold for every request, whoever the extension points are.

Each is a plain function of what it is given: no clock, no store, nobody to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from est_protocol.credentials import PeerCredentials
from est_protocol.errors import ConfigurationError, MessageError, RefusalReason, RequestRefused
from est_protocol.keys import PublicKey, defect_of, key_kind
from est_protocol.labels import check_label
from est_protocol.messages import EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.pkcs10 import CertificationRequest
from est_server.alarms import AlarmingRefusal, AlarmKind
from est_server.interfaces import IssuanceGrant, LabelPolicy
from est_server.key_generation import check_policy
from est_server.ledger_records import CertificateState, IssuedCertificate
from est_server.registration_authorities import RegistrationAuthority
from est_server.user_credentials import UserRequirement, VerifiedUser


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request for a certificate on its way through the service.

    :param is_preview: nobody asked, and nothing may come of it.
    """

    request: EstRequest
    peer: PeerCredentials
    policy: LabelPolicy
    csr: CertificationRequest
    pop_linked: bool
    received_at: datetime
    is_preview: bool = False
    http_user: VerifiedUser | None = None
    otp_user: VerifiedUser | None = None
    registration_authority: RegistrationAuthority | None = None

    @property
    def user(self) -> VerifiedUser | None:
        """Whoever the client is by a secret that it knows."""
        return self.otp_user or self.http_user

    @property
    def key_sha256(self) -> bytes | None:
        """The hash of the key to certify; ``None`` if it is yet to be generated."""
        generates = self.request.operation is Operation.SERVERKEYGEN
        return None if generates else self.csr.key_sha256

    @property
    def client_key(self) -> bytes | None:
        """The hash of the key that the device proved itself by: its certificate's, or else that
        of a CSR that is linked to the channel.

        Through a registration authority the device is asking, by whichever of them and however.
        """
        if self.registration_authority is not None:
            return self.csr.key_sha256
        return self.peer.key_sha256 or (self.csr.key_sha256 if self.pop_linked else None)

    def predecessor(self, issued: IssuedCertificate | None) -> IssuedCertificate | None:
        """The certificate that the answer supersedes: the client's, if it renews.

        A generated key takes the place of the client's, where it is of the same label.
        """
        if issued is None or self.request.operation is Operation.SIMPLEENROLL:
            return None
        return issued if issued.label == self.request.label else None


def check_labels(labels: Mapping[str | None, LabelPolicy]) -> None:
    if None not in labels:
        raise ConfigurationError("there is no default label: RFC 7030 section 3.2.2 wants one")
    for label, policy in labels.items():
        if label is not None:
            check_label(label)
        if not callable(policy.authorizer):
            raise ConfigurationError(f"label {label!r} has no authorizer: refusing to start")
        if policy.key_generation is not None:
            check_policy(policy.key_generation, policy.profile)


def begin_exchange(
    csr: CertificationRequest,
    request: EstRequest,
    peer: PeerCredentials,
    policy: LabelPolicy,
    now: datetime,
    authority: RegistrationAuthority | None = None,
) -> Exchange:
    """Check all of a CSR that can be checked without asking anybody.

    :param authority: the registration authority that the client is.
    :raises RequestRefused: its key may not be certified, it proves no possession of its key, or
        it is not linked to the channel although it has to be.
    """
    _require_sound_key(csr.public_key, policy)
    if not csr.proves_possession():
        raise RequestRefused(
            RefusalReason.POP_FAILED,
            "the signature of the certification request does not verify with its key",
        )
    linked = _check_linking(csr, peer, policy, authority)
    return Exchange(request, peer, policy, csr, linked, now, registration_authority=authority)


def _require_sound_key(key: PublicKey, policy: LabelPolicy) -> None:
    kind = key_kind(key)
    if kind not in policy.profile.allowed_keys:
        allowed = ", ".join(sorted(policy.profile.allowed_keys))
        raise RequestRefused(
            RefusalReason.KEY_NOT_ALLOWED,
            f"certificates are not issued for {kind} keys here, but for {allowed}",
        )
    if defect := defect_of(key):
        raise RequestRefused(
            RefusalReason.KEY_NOT_ALLOWED, f"the key is not certified: {defect} (FIPS 186-5)"
        )


def begin_key_generation(
    csr: CertificationRequest,
    request: EstRequest,
    peer: PeerCredentials,
    policy: LabelPolicy,
    now: datetime,
    authority: RegistrationAuthority | None = None,
) -> Exchange:
    """Check the CSR of a request for a generated key.

    Its key and its signature are ignored (RFC 7030 section 4.4.1), so it proves nothing of its
    sender, linked to the channel or not.

    :raises RequestRefused: the CSR is linked to another channel; or the client is a registration
        authority, whose devices it then does not identify either.
    """
    if authority is not None:
        raise RequestRefused(
            RefusalReason.NOT_AUTHORIZED,
            "keys are not generated through a registration authority: the certification request "
            "does not prove which device it is of",
        )
    _check_linking(csr, peer, policy, None)
    return Exchange(request, peer, policy, csr, pop_linked=False, received_at=now)


def decode_csr(request: EstRequest) -> CertificationRequest:
    """The CSR in the body of ``request``.

    :raises RequestRefused: there is none, or it is malformed.
    """
    if not request.body:
        raise RequestRefused(RefusalReason.MALFORMED_BODY, "the body is empty")
    try:
        return CertificationRequest.decode(request.body)
    except MessageError as error:
        raise RequestRefused(RefusalReason.MALFORMED_CSR, str(error)) from error


def _check_linking(
    csr: CertificationRequest,
    peer: PeerCredentials,
    policy: LabelPolicy,
    authority: RegistrationAuthority | None,
) -> bool:
    """Whether the CSR is linked to the channel, which the policy may require.

    A registration authority may be believed to have checked a link to a channel of its own; what
    is linked to none it cannot have checked.
    """
    authorities = policy.registration_authorities
    is_believed = authority is not None and authorities is not None and authorities.foreign_linking
    vouched = is_believed and bool(csr.challenges.linking)
    linked = not vouched and is_linked(csr, peer)
    if policy.require_pop_linking and not (linked or vouched):
        raise RequestRefused(
            RefusalReason.POP_LINKING_REQUIRED,
            "linking of identity and proof of possession is required: put the channel "
            "binding into challengePassword or estIdentityLinking (RFC 7030 section 3.5)",
        )
    return linked


def require_authentication(exchange: Exchange) -> None:
    """Refuse a client that has shown neither a key nor a secret, or not both where both have to
    be. On CoAPS neither a secret nor linking replaces the certificate (RFC 9148 section 3)."""
    _require_secret(exchange)
    coaps = exchange.request.transport is Transport.COAPS
    if exchange.peer.certificate is not None or (exchange.pop_linked and not coaps):
        return
    if exchange.user is None or requires_both(exchange) or coaps:
        if exchange.request.operation is Operation.SERVERKEYGEN:
            raise RequestRefused(
                RefusalReason.AUTHENTICATION_REQUIRED,
                "authentication is required: where the server makes the key, the certification "
                "request proves nothing, so present a client certificate",
            )
        raise authentication_required(exchange.request.transport)


def _require_secret(exchange: Exchange) -> None:
    """Where HTTP credentials are necessary, CoAPS is no way around them: it has none, but the same
    secret may come in the CSR."""
    http, otp = exchange.policy.http, exchange.otp_user
    if http is None or not http.is_necessary_for(exchange.request.operation):
        return
    if exchange.http_user is None and (otp is None or otp.verifier is not http.verifier):
        raise RequestRefused(
            RefusalReason.AUTHENTICATION_REQUIRED,
            "HTTP authentication is required here, which CoAPS does not have",
        )


def requires_both(exchange: Exchange) -> bool:
    """Whether a secret is necessary beside the authentication of the channel."""
    http = exchange.policy.http
    return (
        http is not None
        and http.required is UserRequirement.BOTH
        and http.is_necessary_for(exchange.request.operation)
    )


def authentication_required(transport: Transport) -> RequestRefused:
    if transport is Transport.COAPS:
        sentence = "a client certificate is required (RFC 9148 section 3)"
    else:
        sentence = (
            "authentication is required: present a client certificate, or link the "
            "certification request of a listed key to this channel (RFC 7030 section 3.5)"
        )
    return RequestRefused(RefusalReason.AUTHENTICATION_REQUIRED, sentence)


def is_linked(csr: CertificationRequest, peer: PeerCredentials) -> bool:
    """Whether the CSR is linked to the channel; what is linked elsewhere is refused."""
    if not csr.challenges.linking:
        return False
    binding = peer.channel_binding
    if binding is None:
        raise RequestRefused(
            RefusalReason.POP_LINKING_FAILED,
            "the certification request is linked to a channel, but not to this one: it ends "
            "elsewhere, or is TLS 1.2 without the extended master secret (RFC 7627)",
        )
    for name, text in csr.challenges.linking.items():
        if not binding.matches(text):
            raise RequestRefused(
                RefusalReason.POP_LINKING_FAILED,
                f"linking of identity and proof of possession failed: {name} is not the "
                f"base64 {binding.type.value} of this channel",
            )
    return True


def require_renewable(exchange: Exchange, issued: IssuedCertificate | None) -> None:
    """RFC 7030 section 4.2.2: who renews is who holds the certificate being renewed.

    :param issued: the client's certificate, if this server issued it.
    :raises RequestRefused: there is none, or it is not what the request renews.
    """
    certificate = exchange.peer.certificate
    if certificate is None:
        raise authentication_required(exchange.request.transport)
    if issued is None:
        raise RequestRefused(
            RefusalReason.CERTIFICATE_UNKNOWN,
            "renewal needs the operational certificate that is to be renewed as client "
            "certificate; a first enrollment is simpleenroll",
            detail=f"presented: {certificate.subject.rfc4514_string()}",
        )
    if issued.label != exchange.request.label:
        raise RequestRefused(
            RefusalReason.CERTIFICATE_UNKNOWN,
            "the client certificate was issued under another label",
            detail=f"issued under {'no label' if issued.label is None else repr(issued.label)}",
        )
    _require_same_names(exchange.csr, issued.certificate)


def require_renewable_by_authority(exchange: Exchange, current: IssuedCertificate | None) -> None:
    """What a registration authority may renew: the certificate of the very key in the CSR, whose
    signature proves that the device has it. A new key would be proved by nobody's certificate.

    :param current: the certificate that the ledger has for that key.
    :raises RequestRefused: there is none, or it is not what the request renews.
    """
    if current is None:
        raise RequestRefused(
            RefusalReason.CERTIFICATE_UNKNOWN,
            "a registration authority renews the active certificate of a device for the same key, "
            "and there is none for the key of this certification request",
        )
    if current.certificate.not_valid_after_utc < exchange.received_at:
        raise RequestRefused(
            RefusalReason.CERTIFICATE_EXPIRED,
            "the certificate that is to be renewed has expired",
            device=current.device,
        )
    _require_same_names(exchange.csr, current.certificate)


def _require_same_names(csr: CertificationRequest, current: x509.Certificate) -> None:
    """RFC 7030 section 4.2.2: subject and subjectAltName repeat the current certificate's.

    Compared as values: attribute by attribute for the subject, as a set for subjectAltName.
    """
    try:
        extension = current.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = frozenset(extension.value)
    except x509.ExtensionNotFound:
        names = frozenset()
    if csr.subject != current.subject:
        differs = "subject"
    elif frozenset(csr.subject_alt_names) != names:
        differs = "subjectAltName"
    else:
        return
    raise RequestRefused(
        RefusalReason.IDENTITY_MISMATCH,
        f"the {differs} of the certification request differs from the certificate being renewed "
        "(RFC 7030 section 4.2.2)",
        detail=f"asked {csr.subject.rfc4514_string()}, has {current.subject.rfc4514_string()}",
    )


def refuse_superseded(issued: IssuedCertificate | None) -> None:
    if issued is not None and issued.state is CertificateState.SUPERSEDED:
        raise AlarmingRefusal(
            AlarmKind.OLD_CERTIFICATE,
            RefusalReason.CERTIFICATE_SUPERSEDED,
            "the client certificate has been superseded by a later one",
            detail=f"serial {issued.certificate.serial_number:x}",
            device=issued.device,
        )


def check_grant(grant: IssuanceGrant, exchange: Exchange, issued: IssuedCertificate | None) -> None:
    if grant.key_sha256 not in (None, exchange.key_sha256):
        raise RequestRefused(
            RefusalReason.KEY_NOT_ALLOWED,
            "this client may have a certificate for its listed key only",
            device=grant.device,
        )
    predecessor = exchange.predecessor(issued)
    if predecessor is not None and grant.device != predecessor.device:
        raise RequestRefused(
            RefusalReason.IDENTITY_MISMATCH,
            "the certificate being renewed belongs to another device",
            detail=f"granted for {grant.device}, certificate of {predecessor.device}",
        )
    _check_changed_names(grant, exchange.csr)


def _check_changed_names(grant: IssuanceGrant, csr: CertificationRequest) -> None:
    """Who asks for other names by ChangeSubjectName gets these, or nothing: they are granted by
    the authorizer like any (RFC 7030 section 4.2.2)."""
    if csr.change_subject_name is None:
        return
    subject, alt_names = csr.wanted_names
    if grant.subject != subject or frozenset(grant.subject_alt_names) != frozenset(alt_names):
        raise RequestRefused(
            RefusalReason.NOT_AUTHORIZED,
            "the names asked for by ChangeSubjectName are not granted",
            detail=f"asked {subject.rfc4514_string()}, granted {grant.subject.rfc4514_string()}",
            device=grant.device,
        )

"""A look at the CMS of an answer that no decoder has tidied."""

from __future__ import annotations

from asn1crypto import cms

from est_client.conformance.rows import require
from est_protocol import certs_only
from est_protocol.strict_asn1 import decoding, load_der


def require_certs_only(der: bytes) -> str:
    """Check that octets are a certs-only Simple PKI Response (RFC 5272 section 4.1).

    :return: the evidence.
    :raises Failed: they are not.
    :raises MessageError: they are no strict DER.
    """
    certificates = certs_only.decode(der)
    signed = decoding("certs-only message", lambda: load_der(cms.ContentInfo, der)["content"])
    version = signed["version"].native
    require(version == "v1", f"the version of the SignedData is {version}, not 1")
    signers = len(signed["signer_infos"])
    require(signers == 0, f"there are {signers} signers")
    return f"version 1, no content, no signers, {len(certificates)} certificates, DER"

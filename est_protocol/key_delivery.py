"""The answer to /serverkeygen, /skg and /skc: a key and its certificate, on either transport.

RFC 7030 section 4.4.2 and RFC 8951 section 3.2.4 for HTTPS, RFC 9148 sections 4.3 and 4.8 for
CoAPS. The order of the two means nothing; each is known by its type.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from est_protocol import base64_body, certs_only, multipart_core, multipart_mixed
from est_protocol.errors import MessageError
from est_protocol.media_types import (
    CERTS_ONLY,
    PKCS8,
    SERVER_GENERATED_KEY,
    ContentFormat,
    MediaType,
)
from est_protocol.messages import GeneratedKeyResponse

_KEY_FORMATS = {ContentFormat.PKCS8: False, ContentFormat.SERVER_GENERATED_KEY: True}


def to_multipart_mixed(
    response: GeneratedKeyResponse, *, transfer_encoding: bool = False
) -> tuple[MediaType, bytes]:
    """The media type and the body of the answer over HTTPS.

    :param transfer_encoding: whether the parts say that they are base64, as RFC 7030 section
        4.4.2 had it before RFC 8951.
    """
    return multipart_mixed.encode(
        [
            multipart_mixed.Part(
                SERVER_GENERATED_KEY if response.protected else PKCS8,
                base64_body.encode(response.key),
            ),
            multipart_mixed.Part(
                CERTS_ONLY, base64_body.encode(certs_only.encode(response.certificates))
            ),
        ],
        transfer_encoding="base64" if transfer_encoding else "",
    )


def from_multipart_mixed(media_type: MediaType, body: bytes) -> GeneratedKeyResponse:
    """The answer over HTTPS.

    Parts of other types are left alone, for servers that add some.

    :raises MessageError: it does not decode, or is not one key and one certificate.
    """
    keys: list[tuple[bytes, bool]] = []
    certificates: list[tuple[x509.Certificate, ...]] = []
    for part in multipart_mixed.decode(media_type, body):
        name = part.media_type.name
        smime_type = part.media_type.parameters.get("smime-type", "certs-only").lower()
        if name == PKCS8.name:
            keys.append((base64_body.decode(part.body), False))
        elif name == SERVER_GENERATED_KEY.name and smime_type == "server-generated-key":
            keys.append((base64_body.decode(part.body), True))
        elif name == CERTS_ONLY.name and smime_type == "certs-only":
            certificates.append(certs_only.decode(base64_body.decode(part.body)))
    return _one_of_each(keys, certificates)


def to_multipart_core(response: GeneratedKeyResponse, *, bare_certificate: bool) -> bytes:
    """The body of the answer over CoAPS.

    :param bare_certificate: the certificate alone, for /skc, rather than a certs-only message.
    """
    if bare_certificate:
        (certificate,) = response.certificates
        encoded = certificate.public_bytes(Encoding.DER)
    else:
        encoded = certs_only.encode(response.certificates)
    key_format = ContentFormat.SERVER_GENERATED_KEY if response.protected else ContentFormat.PKCS8
    certificate_format = ContentFormat.PKIX_CERT if bare_certificate else ContentFormat.CERTS_ONLY
    return multipart_core.encode(
        [
            multipart_core.Part(key_format, response.key),
            multipart_core.Part(certificate_format, encoded),
        ]
    )


def from_multipart_core(octets: bytes) -> GeneratedKeyResponse:
    """The answer over CoAPS, of /skg or /skc.

    :raises MessageError: it does not decode, or is not one key and one certificate.
    """
    keys: list[tuple[bytes, bool]] = []
    certificates: list[tuple[x509.Certificate, ...]] = []
    for part in multipart_core.decode(octets):
        if part.content_format in _KEY_FORMATS:
            keys.append((part.body, _KEY_FORMATS[part.content_format]))
        elif part.content_format == ContentFormat.CERTS_ONLY:
            certificates.append(certs_only.decode(part.body))
        elif part.content_format == ContentFormat.PKIX_CERT:
            certificates.append((certs_only.decode_certificate(part.body),))
    return _one_of_each(keys, certificates)


def _one_of_each(
    keys: list[tuple[bytes, bool]], certificates: list[tuple[x509.Certificate, ...]]
) -> GeneratedKeyResponse:
    if len(keys) != 1 or len(certificates) != 1:
        raise MessageError("the answer is not one key and one certificate")
    [(key, protected)] = keys
    return GeneratedKeyResponse(certificates[0], key, protected)

"""A small EST server that does one thing wrong, so that a row can fail."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from est_protocol import base64_body, certs_only, key_delivery, multipart_mixed
from est_protocol.credentials import AnchorSet, PeerCredentials
from est_protocol.csr_attributes import EXTENSION_REQUEST, CsrAttribute, CsrAttributes
from est_protocol.errors import MessageError, RequestRefused
from est_protocol.pkcs10 import CertificationRequest
from est_protocol.secure_channel.context import TrustAnchors
from est_protocol.secure_channel.stream import PEER_CREDENTIALS
from est_server.https import HttpsEndpoint
from est_server.https import serve as serve_https
from tests.conformance.faulty_keys import FaultyKeys
from tests.pki import make_ca, make_key, make_server

ROOT = make_ca("conformance root")
CA = make_ca("conformance issuing", ROOT)
DEVICE_KEY = make_key("conformance device")

_CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
_OCTETS_OF_AN_EXTENSION = bytes.fromhex("300c300a0603551d0f0403030106")


class Refusal(Exception):
    """The answer is no."""

    def __init__(self, status: int, words: str = "no") -> None:
        super().__init__(words)
        self.status = status


class FaultyServer:
    """Grants the test device what it asks for in proper form; ``fault`` is what goes wrong."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    async def handle(self, http: web.Request) -> web.Response:
        peer = http.transport.get_extra_info(PEER_CREDENTIALS) if http.transport else None
        assert isinstance(peer, PeerCredentials)
        try:
            return await self._answer(http, peer)
        except Refusal as refusal:
            headers = {"Content-Type": "text/plain"}
            if refusal.status == 405:
                headers["Allow"] = "POST"
            return web.Response(status=refusal.status, text=f"{refusal}\n", headers=headers)

    async def _answer(self, http: web.Request, peer: PeerCredentials) -> web.Response:
        path = http.match_info["path"]
        if path.endswith("/cacerts") and self.fault == "serves reserved labels":
            path = "cacerts"
        if path == "cacerts":
            return self._cacerts(http)
        if path == "csrattrs" and self.fault.startswith("csrattrs"):
            return self._csrattrs()
        if path == "serverkeygen" and self.fault.startswith("keys"):
            return await self._serverkeygen(await http.read(), peer)
        if path not in ("simpleenroll", "simplereenroll"):
            raise Refusal(404)
        if http.method == "GET" and self.fault == "enrolls on GET":
            return self._respond(certs_only.encode([ROOT.certificate]))
        if http.method != "POST":
            raise Refusal(405)
        return self._enroll(path, await self._csr(http), peer)

    # -- /cacerts and /csrattrs -----------------------------------------------------------------

    def _cacerts(self, http: web.Request) -> web.Response:
        if http.method != "GET":
            raise Refusal(405)
        if self.fault == "cacerts wants authentication":
            raise Refusal(401)
        bag = [CA.certificate, ROOT.certificate]
        if self.fault == "cacerts without root":
            bag = [CA.certificate]
        der = certs_only.encode(bag)
        if self.fault == "cacerts with signers":
            builder = pkcs7.PKCS7SignatureBuilder().set_data(b"")
            builder = builder.add_signer(CA.certificate, CA.key, hashes.SHA256())
            der = builder.sign(Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature])
        if self.fault == "cacerts in PEM":
            return web.Response(
                body=b"-----BEGIN PKCS7-----\n" + base64_body.encode(der),
                headers={"Content-Type": _CERTS_ONLY},
            )
        if self.fault == "cacerts without base64":
            return web.Response(body=der, headers={"Content-Type": _CERTS_ONLY})
        return self._respond(der)

    def _csrattrs(self) -> web.Response:
        wish = CsrAttribute(EXTENSION_REQUEST, (_OCTETS_OF_AN_EXTENSION,))
        wishes = (wish, wish) if self.fault == "csrattrs with two wishes" else (wish,)
        body = base64_body.encode(CsrAttributes(wishes).encode())
        kind = "text/plain" if self.fault == "csrattrs of no type" else "application/csrattrs"
        return web.Response(body=body, headers={"Content-Type": kind})

    # -- /simpleenroll and /simplereenroll --------------------------------------------------------

    async def _csr(self, http: web.Request) -> CertificationRequest:
        kind = http.headers.get("Content-Type", "").partition(";")[0].lower()
        if kind != "application/pkcs10" and self.fault != "takes any media type":
            raise Refusal(415)
        body = await http.read()
        encoding = http.headers.get("Content-Transfer-Encoding", "base64")
        if self.fault == "obeys Content-Transfer-Encoding" and encoding != "base64":
            raise Refusal(400)
        if self.fault == "dislikes white space" and b"\r" in body:
            raise Refusal(400)
        try:
            return CertificationRequest.decode(self._decode(body))
        except MessageError as error:
            status = 500 if self.fault == "blames itself" else 400
            words = "" if self.fault == "refuses in silence" else str(error)
            raise Refusal(status, words) from error

    def _decode(self, body: bytes) -> bytes:
        if self.fault == "decodes anything":
            return base64.b64decode(body + b"==") if body[:1] != b"\x30" else body
        return base64_body.decode(body)

    def _enroll(self, path: str, csr: CertificationRequest, peer: PeerCredentials) -> web.Response:
        if self.fault == "pending without Retry-After":
            return web.Response(status=202)
        if not csr.proves_possession() and self.fault != "takes tampered CSRs":
            raise Refusal(400, "the signature is wrong")
        self._require_linked(csr, peer)
        if path == "simplereenroll":
            self._require_own_renewal(csr, peer)
        elif csr.key_sha256 != CertificationRequest.decode(_own_csr()).key_sha256:
            if self.fault != "grants strangers":
                raise Refusal(401 if self.fault == "401 without challenge" else 403)
        issued = self._issue(csr)
        bag = [issued, CA.certificate] if self.fault == "answers with the chain" else [issued]
        return self._respond(certs_only.encode(bag))

    async def _serverkeygen(self, body: bytes, peer: PeerCredentials) -> web.Response:
        if not peer.is_verified:
            raise Refusal(403)
        try:
            answer = await FaultyKeys(CA, self.fault).answer(base64_body.decode(body), peer)
        except (MessageError, RequestRefused) as error:
            status = 202 if self.fault == "keys put off" else 400
            raise Refusal(status, str(error)) from error
        media_type, octets = key_delivery.to_multipart_mixed(answer)
        if self.fault == "keys in three parts":
            parts = multipart_mixed.decode(media_type, octets)
            media_type, octets = multipart_mixed.encode([*parts, parts[1]])
        return web.Response(body=octets, headers={"Content-Type": str(media_type)})

    def _require_linked(self, csr: CertificationRequest, peer: PeerCredentials) -> None:
        text, binding = csr.challenges.challenge_password, peer.channel_binding
        assert binding is not None
        if self.fault == "ignores linking" or (text is None and peer.is_verified):
            return
        if self.fault == "compares the length only" and len(text or "") == 44:
            return
        if text is None or not binding.matches(text):
            raise Refusal(403, "no" if self.fault == "does not explain" else "linking failed")

    def _require_own_renewal(self, csr: CertificationRequest, peer: PeerCredentials) -> None:
        if self.fault == "renews for anybody" and peer.certificate is not None:
            return
        if peer.certificate is None or not peer.is_verified:
            raise Refusal(403, "renewal needs a certificate")
        if csr.subject != peer.certificate.subject and self.fault != "lets names change":
            raise Refusal(403, "another name")
        if csr.subject_alt_names and self.fault != "lets names change":
            raise Refusal(403, "another subjectAltName")

    def _issue(self, csr: CertificationRequest) -> x509.Certificate:
        now = datetime.now(UTC)
        authority = self.fault == "copies the CSR" and "2.5.29.19" in csr.extensions
        key = make_key("another").public_key() if self.fault == "certifies another key" else None
        return (
            x509.CertificateBuilder()
            .subject_name(csr.subject)
            .issuer_name(CA.certificate.subject)
            .public_key(key or csr.public_key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(CA.key, hashes.SHA256())
        )

    def _respond(self, der: bytes) -> web.Response:
        headers = {"Content-Type": _CERTS_ONLY}
        if self.fault == "wrong media type":
            headers["Content-Type"] = "application/octet-stream"
        if self.fault == "says Content-Transfer-Encoding":
            headers["Content-Transfer-Encoding"] = "base64"
        return web.Response(body=base64_body.encode(der), headers=headers)


def _own_csr() -> bytes:
    name = x509.Name([])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name)
    return csr.sign(DEVICE_KEY, hashes.SHA256()).public_bytes(Encoding.DER)


@asynccontextmanager
async def serving(fault: str = "") -> AsyncIterator[str]:
    """Serve on a free port; the URL."""
    app = web.Application()
    app.router.add_route("*", "/.well-known/est/{path:.*}", FaultyServer(fault).handle)
    anchors = TrustAnchors({AnchorSet.OPERATIONAL: (CA.certificate,)})
    endpoint = HttpsEndpoint(make_server(CA), anchors=anchors, port=0)
    async with await serve_https(app, endpoint) as server:
        yield f"https://localhost:{server.port}"

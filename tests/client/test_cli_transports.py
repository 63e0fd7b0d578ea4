"""The command est-client as its users run it, against real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from est_client.cli import main
from est_client.device_keys import chain_to_pem, key_from_pem, key_to_pem
from est_client.durable_files import write_durably
from est_protocol import decrypt_key
from est_protocol.credentials import PeerCredentials
from est_protocol.csr_attributes import CsrAttributes, ExtensionTemplate, NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes, read, write
from est_protocol.errors import RefusalReason, RequestRefused
from est_protocol.key_package import KeyGenerator, encode_private_key
from est_protocol.key_recipients import SymmetricKey
from est_protocol.keys import generate_key, spki_sha256
from est_protocol.messages import (
    CertificatesResponse,
    CsrAttributesResponse,
    EstRequest,
    EstResponse,
    GeneratedKeyResponse,
    Transport,
)
from est_protocol.oid_names import SUBJECT_ALT_NAME
from est_protocol.operations import WELL_KNOWN_PATH, Operation
from est_protocol.pkcs10 import CertificationRequest, build
from est_protocol.protected_key import seal
from est_protocol.secure_channel.context import LocalCredentials
from est_server.coaps.server import CoapsEndpoint
from est_server.coaps.server import serve as serve_coaps
from est_server.https import HttpsEndpoint, est_application
from est_server.https import serve as serve_https
from est_server.legacy_forms import NO_LEGACY_FORMS, LegacyForms
from tests.client.memory import issue
from tests.pki import make_ca, make_key, make_leaf, make_server

ROOT = make_ca("root")
CA = make_ca("issuing", ROOT)
SHARED = SymmetricKey(b"k1", bytes(range(16)))


class GrantingService:
    """Grants what is linked to its channel, and refuses the rest."""

    labels = (None, "factory")
    served = (
        Operation.CACERTS,
        Operation.CSRATTRS,
        Operation.SIMPLEENROLL,
        Operation.SIMPLEREENROLL,
        Operation.SERVERKEYGEN,
    )

    def __init__(self) -> None:
        self.answered: list[tuple[EstRequest, PeerCredentials]] = []
        self.wishes = CsrWishes()

    def legacy_forms(self, label: str | None) -> LegacyForms:
        """Nothing but what the RFCs say."""
        return NO_LEGACY_FORMS

    def operations(self, label: str | None) -> tuple[Operation, ...]:
        """The same under every label."""
        return self.served

    async def respond(self, request: EstRequest, peer: PeerCredentials) -> EstResponse:
        self.answered.append((request, peer))
        if request.operation is Operation.CACERTS:
            return CertificatesResponse((CA.certificate, ROOT.certificate))
        if request.operation is Operation.CSRATTRS:
            return CsrAttributesResponse(write(self.wishes).encode() if self.wishes else None)
        csr = CertificationRequest.decode(request.body)
        if request.operation is Operation.SERVERKEYGEN:
            return self._generate(csr, decrypt_key.read(request.body))
        binding = peer.channel_binding
        if csr.challenges.challenge_password is None or binding is None:
            raise RequestRefused(RefusalReason.POP_LINKING_REQUIRED, "the request is not linked")
        if not binding.matches(csr.challenges.challenge_password):
            raise RequestRefused(RefusalReason.POP_LINKING_FAILED, "linked to another channel")
        return CertificatesResponse((issue(CA, csr),))

    def _generate(
        self, csr: CertificationRequest, wish: decrypt_key.ProtectionRequest | None
    ) -> EstResponse:
        key = generate_key("ec-p256")
        certificate = issue(CA, build(key, csr.subject))
        if wish is None:
            return GeneratedKeyResponse((certificate,), encode_private_key(key), protected=False)
        generator = make_leaf(CA, "generator")
        sealed = seal(key, SHARED, wish, KeyGenerator(generator.key, generator.chain))
        return GeneratedKeyResponse((certificate,), sealed, protected=True)

    async def record_refusal(
        self,
        refused: RequestRefused,
        *,
        operation: Operation | None,
        label: str | None,
        transport: Transport,
        peer: PeerCredentials,
    ) -> None:
        raise AssertionError(f"the transport refused: {refused}")


@pytest.fixture
def service() -> GrantingService:
    return GrantingService()


@asynccontextmanager
async def serving(
    service: GrantingService, transport: Transport, credentials: LocalCredentials
) -> AsyncIterator[str]:
    """Serve on a free port; the URL without a path."""
    if transport is Transport.COAPS:
        endpoint = CoapsEndpoint(credentials, port=0)
        async with await serve_coaps(service, endpoint) as coaps_server:
            yield f"coaps://127.0.0.1:{coaps_server.port}"
        return
    app = web.Application()
    app.add_subapp(WELL_KNOWN_PATH, est_application(service))
    async with await serve_https(app, HttpsEndpoint(credentials, port=0)) as https_server:
        yield f"https://127.0.0.1:{https_server.port}"


@pytest.fixture(params=Transport)
def transport(request: pytest.FixtureRequest) -> Transport:
    assert isinstance(request.param, Transport)
    return request.param


@pytest.fixture
async def url(service: GrantingService, transport: Transport) -> AsyncIterator[str]:
    server = make_server(CA)
    # A bootstrap over CoAPS finds the root in the handshake.
    credentials = LocalCredentials(server.key, (*server.chain, ROOT.certificate))
    async with serving(service, transport, credentials) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(chain_to_pem([ROOT.certificate]))
    return tmp_path


async def run(folder: Path, *arguments: str) -> int:
    files = [str(folder / a) if a.endswith((".pem", ".key")) else a for a in arguments]
    return await asyncio.to_thread(main, files)


@pytest.mark.parametrize("options", [("--tls-max", "1.2"), ("--block-size", "128")])
async def test_enrolls_and_renews(url: str, folder: Path, options: tuple[str, ...]) -> None:
    common = ("--url", url, "--ca-cert", "ca.pem", *options)
    assert await run(folder, "enroll", *common, "--key", "device.key", "--out", "device.pem") == 0
    files = ("--key", "device.key", "--cert", "device.pem", "--new-key", "next.key")
    assert await run(folder, "reenroll", *common, *files, "--out", "next.pem") == 0
    first = x509.load_pem_x509_certificate((folder / "device.pem").read_bytes())
    second = x509.load_pem_x509_certificate((folder / "next.pem").read_bytes())
    key = key_from_pem((folder / "next.key").read_bytes(), "next.key")
    assert spki_sha256(second.public_key()) == spki_sha256(key.public_key())
    assert second.subject == first.subject


async def test_runs_as_a_program_of_its_own(url: str, folder: Path) -> None:
    fingerprint = ROOT.certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "est_client.cli", "cacerts"),
        *("--url", f"{url}/.well-known/est", "--ca-fingerprint", fingerprint),
        *("--key", str(folder / "device.key")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert set(x509.load_pem_x509_certificates(out)) == {CA.certificate, ROOT.certificate}
    assert fingerprint in err.decode()


async def test_a_refusal_shows_the_servers_words(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--url", url, "--ca-cert", "ca.pem", "--key", "device.key", "--no-pop-linking")
    assert await run(folder, "enroll", *arguments, "--out", "device.pem") == 1
    assert "the request is not linked" in capsys.readouterr().err


async def test_a_label_comes_from_the_url(url: str, folder: Path, service: GrantingService) -> None:
    labelled = f"{url}/.well-known/est/factory"
    arguments = ("--url", labelled, "--ca-cert", "ca.pem", "--key", "device.key")
    assert await run(folder, "cacerts", *arguments) == 0
    assert [request.label for request, _ in service.answered] == ["factory"]


async def test_a_server_of_another_ca_hears_nothing(
    url: str, folder: Path, service: GrantingService, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_ca("somebody").certificate
    (folder / "other.pem").write_bytes(chain_to_pem([other]))
    for trust in (
        ("--ca-cert", "other.pem"),
        ("--ca-fingerprint", other.fingerprint(hashes.SHA256()).hex()),
    ):
        service.answered.clear()
        assert await run(folder, "enroll", "--url", url, *trust, "--key", "device.key") == 3
        # The fingerprint is looked for in the answer to /cacerts, and nothing follows.
        assert [r for r, _ in service.answered if r.operation is not Operation.CACERTS] == []
    assert "Traceback" not in capsys.readouterr().err


async def test_a_server_of_another_name_hears_nothing(
    folder: Path, service: GrantingService, transport: Transport
) -> None:
    elsewhere = make_leaf(CA, "elsewhere", names=(x509.DNSName("elsewhere.example"),))
    async with serving(service, transport, elsewhere) as url:
        arguments = ("--url", url, "--ca-cert", "ca.pem", "--key", "device.key")
        assert await run(folder, "cacerts", *arguments) == 3
    assert service.answered == []


async def test_nobody_there(
    folder: Path, transport: Transport, capsys: pytest.CaptureFixture[str]
) -> None:
    write_durably(folder / "device.key", key_to_pem(make_key("device")), mode=0o600)
    kind = socket.SOCK_DGRAM if transport is Transport.COAPS else socket.SOCK_STREAM
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    arguments = ("--url", f"{transport}://127.0.0.1:{port}", "--ca-cert", "ca.pem")
    assert await run(folder, "cacerts", *arguments, "--key", "device.key") == 3
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("est-client: ")


WISHES = CsrWishes(
    link=True,
    key="ec-p384",
    subject=(
        (NameAttributeTemplate("2.5.4.5", None),),
        (NameAttributeTemplate("2.5.4.11", b"\x0c\x05pumps"),),
    ),
    extensions=(
        ExtensionTemplate(SUBJECT_ALT_NAME, False, b"\x30\x0a\x82\x06a.test\x87\x00"),
        ExtensionTemplate("2.5.29.15", True, None),
    ),
)


async def test_shows_what_the_server_asks_for(
    url: str, folder: Path, service: GrantingService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.wishes = WISHES
    common = ("--url", url, "--ca-cert", "ca.pem", "--key", "device.key")
    assert await run(folder, "csrattrs", *common, "--out", str(folder / "attributes.der")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "attribute challengePassword with the channel binding",
        "key ec-p384",
        "subject serialNumber (to fill in)",
        "subject OU='pumps'",
        "extension subjectAltName: dNSName a.test, iPAddress (to fill in)",
        "extension keyUsage, critical: (to fill in)",
    ]
    message = CsrAttributes.decode((folder / "attributes.der").read_bytes())
    assert read(message) == WISHES


async def test_says_so_where_nothing_is_asked_for(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--url", url, "--ca-cert", "ca.pem", "--key", "device.key")
    assert await run(folder, "csrattrs", *common) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith("the server asks for nothing\n")


async def test_enrolls_as_the_server_asks(
    url: str, folder: Path, service: GrantingService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.wishes = WISHES
    common = ("--url", url, "--ca-cert", "ca.pem", "--follow-csrattrs")
    keys = ("--key", "birth.key", "--new-key", "device.key", "--out", "device.pem")
    assert await run(folder, "enroll", *common, *keys) == 2
    assert "asks for serialNumber in the subject" in capsys.readouterr().err
    values = ("--value", "serialNumber=4711", "--alt-name", "ip:192.0.2.7")
    assert await run(folder, "enroll", *common, *keys, *values) == 0
    certificate = x509.load_pem_x509_certificate((folder / "device.pem").read_bytes())
    assert certificate.subject.rfc4514_string() == "OU=pumps,2.5.4.5=4711"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.test"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    # The key was made as the server asks for it.
    assert certificate.public_key().key_size == 384  # type: ignore[union-attr]
    csr = CertificationRequest.decode(service.answered[-1][0].body)
    assert csr.extensions["2.5.29.15"] == ExtensionTemplate("2.5.29.15", True, b"\x03\x02\x07\x80")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--value", "serialNumber"), ("--alt-name", "ip:x"), ("--alt-name", "x:y")],
)
async def test_values_that_are_none_are_local_errors(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    common = ("--url", "https://127.0.0.1:1", "--ca-cert", "ca.pem", "--key", "device.key")
    assert await run(folder, "enroll", *common, option, value) == 2
    assert f"{option} {value!r} is not " in capsys.readouterr().err


@pytest.mark.parametrize("encrypted", [True, False])
async def test_has_a_key_generated(url: str, folder: Path, encrypted: bool) -> None:
    common = ("--url", url, "--ca-cert", "ca.pem")
    files = ("--key", "birth.key", "--key-out", "device.key", "--out", "device.pem")
    (folder / "shared.key").write_text(f"{SHARED.identifier.hex()} {SHARED.key.hex()}\n")
    (folder / "shared.key").chmod(0o600)
    how = ("--decrypt-key", "shared.key") if encrypted else ("--unencrypted",)
    assert await run(folder, "serverkeygen", *common, *files, *how) == 0
    assert (folder / "device.key").stat().st_mode & 0o777 == 0o600
    key = key_from_pem((folder / "device.key").read_bytes(), "device.key")
    certificate = x509.load_pem_x509_certificate((folder / "device.pem").read_bytes())
    assert spki_sha256(certificate.public_key()) == spki_sha256(key.public_key())


async def test_a_shared_key_that_others_can_read_is_refused(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "shared.key").write_text(f"{SHARED.identifier.hex()} {SHARED.key.hex()}\n")
    (folder / "shared.key").chmod(0o640)
    files = ("--key", "birth.key", "--key-out", "device.key", "--decrypt-key", "shared.key")
    assert await run(folder, "serverkeygen", "--url", url, "--ca-cert", "ca.pem", *files) == 2
    assert "others must not have access" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "6b31", "6b31 00", "6b31 xyz", "a b c"])
async def test_a_shared_key_that_is_none_is_a_local_error(
    url: str, folder: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "shared.key").write_text(content)
    files = ("--key", "birth.key", "--key-out", "device.key", "--decrypt-key", "shared.key")
    common = ("--url", url, "--ca-cert", "ca.pem")
    assert await run(folder, "serverkeygen", *common, *files) == 2
    assert "shared.key" in capsys.readouterr().err
    assert not (folder / "device.key").exists()

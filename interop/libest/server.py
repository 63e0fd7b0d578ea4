"""libest's ``estserver``, as the shared scenarios want it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from interop.by_openssl import OpenSsl
from interop.client_peer import CannotPlay, Credentials, User
from interop.devices import MANUFACTURER, Device
from interop.libest.namespace import LoopbackOnly
from interop.peers import find_libest
from interop.server_peer import Mode, Served
from interop.transcript import Transcript
from tests import pki

_PORT = 8085

#: The one user that the program knows; it is written into it.
_USER = User("estuser", "estpwd")

_CA = pki.make_ca("estserver CA")

_OPTIONS: dict[Mode, tuple[str, ...]] = {
    Mode.CERTIFICATE: ("-n",),
    Mode.BASIC: (),
    Mode.DIGEST: ("-h",),
    Mode.EITHER: ("-o",),
    Mode.LINKED: ("-n", "-t"),
    Mode.WISHES: ("-n",),
    Mode.ATTRIBUTES: ("-n", "--enforce-csr"),
    Mode.MANUAL: ("-n", "-m", "60"),
    Mode.KEY_GENERATION: ("-n",),
    Mode.LABEL: ("-n",),
    Mode.REVOCATION: ("-n", "-l"),
}

_NOT_ON_COAP = {
    **dict.fromkeys(
        (Mode.BASIC, Mode.DIGEST, Mode.EITHER), "there is no HTTP authentication on CoAP"
    ),
    Mode.LABEL: "knows no labels on CoAP",
}

#: Over CoAP it acknowledges a request when it has the answer. An RSA key may take it longer than
#: the two seconds after which a client repeats its request, and then it makes a second one.
_PATIENCE = "30"

#: What it insists on: commonName, macAddress and emailAddress. What it asks for by itself are
#: digests and curves, whose identifiers are in no CSR.
_CSR_ATTRIBUTES = b64encode(
    bytes.fromhex("3019 0603550403 06072b0601010101 16 06092a864886f70d010901")
)

#: What ``openssl ca`` inside estserver goes by.
_CA_CONFIG = """\
[ca]
default_ca = authority
[authority]
dir = {home}
database = $dir/index.txt
new_certs_dir = $dir/issued
serial = $dir/serial
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_days = 30
default_crl_days = 1
default_md = sha256
policy = any
email_in_dn = no
unique_subject = no
copy_extensions = none
x509_extensions = client
[any]
commonName = supplied
organizationName = optional
emailAddress = optional
serialNumber = optional
[client]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class EstServer:
    """``estserver`` with a CA of its own in ``directory``."""

    def __init__(
        self,
        directory: Path,
        device: Device,
        transcript: Transcript,
        openssl: OpenSsl,
        *,
        coap: bool,
    ) -> None:
        self._program = find_libest("estserver")
        self._home = directory / "estserver"
        self._coap = coap
        self._device = device
        self._transcript = transcript
        self._openssl = openssl
        make_home(self._home, MANUFACTURER.certificate)

    @contextmanager
    def serve(self, mode: Mode) -> Iterator[Served]:
        if self._coap and mode in _NOT_ON_COAP:
            raise CannotPlay(_NOT_ON_COAP[mode])
        output = self._home / "output.txt"
        identity = ["-c", "server.pem", "-k", "server.pem", "-r", "estrealm"]
        command = [self._program, *identity, "-p", str(_PORT), "-v", *_OPTIONS[mode]]
        if self._coap:
            command.append("--enable-coap")
        told = environment()
        if mode is Mode.ATTRIBUTES:
            told["EST_CSR_ATTR"] = _CSR_ATTRIBUTES.decode()
        running = LoopbackOnly(
            command,
            port=_PORT,
            udp=self._coap,
            directory=self._home,
            environment=told,
            output=output,
        )
        try:
            with running:
                yield self._served(running, mode)
        finally:
            said = output.read_bytes() if output.exists() else b""
            self._transcript.note(command, "ended by the test", said)

    def revoke(self, certificate: Path) -> None:
        crl = self._home / "crl.pem"
        config = self._home / "ca.cnf"
        self._openssl.revoke(config, certificate, crl)
        trusted = self._home / "trusted.pem"
        trusted.write_bytes(trusted.read_bytes() + crl.read_bytes())

    def _served(self, running: LoopbackOnly, mode: Mode) -> Served:
        url = f"https://127.0.0.1:{_PORT}/.well-known/est"
        if self._coap:
            url = f"coaps://127.0.0.1:{_PORT}/est"
        elif mode is Mode.LABEL:
            url += "/pumps"
        ca = self._home / "ca.pem"
        born = Credentials(self._device.short_birth_certificate, self._device.key)
        patience = _PATIENCE if self._coap else ""
        return Served(url, ca, ca, born, _USER, inside=running.inside, patience=patience)


def make_home(home: Path, manufacturer: x509.Certificate) -> x509.Certificate:
    """What ``estserver`` wants in its directory: a CA, and whom it trusts.

    :param manufacturer: the root of the birth certificates that it is to believe.
    :return: its CA's certificate, which is the root.
    """
    (home / "issued").mkdir(parents=True)
    (home / "index.txt").touch()
    (home / "serial").write_text("1000\n")
    (home / "ca.cnf").write_text(_CA_CONFIG.format(home=home))
    ca = _CA.certificate.public_bytes(Encoding.PEM)
    (home / "ca.pem").write_bytes(ca)
    (home / "ca.key").write_bytes(_pem(_CA.key))
    server = pki.make_server(_CA)
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in server.chain)
    (home / "server.pem").write_bytes(chain + _pem(server.key))
    (home / "trusted.pem").write_bytes(ca + manufacturer.public_bytes(Encoding.PEM))
    return _CA.certificate


def environment() -> dict[str, str]:
    """What ``estserver`` is told by the environment: the files of :func:`make_home`."""
    return {
        **os.environ,
        "EST_TRUSTED_CERTS": "trusted.pem",
        "EST_CACERTS_RESP": "ca.pem",
        "EST_OPENSSL_CACONFIG": "ca.cnf",
    }


def _pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

"""What ``est-client`` does with every server, whoever wrote it: the shared scenarios."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from interop.by_openssl import OpenSsl
from interop.client_peer import Credentials, User
from interop.devices import Device
from interop.matrix import plays
from interop.our_client import DONE, NOT_TRUSTED, REFUSED, OurClient
from interop.server import ServerUnderTest
from interop.server_peer import Mode, Served, ServerPeer
from interop.servers import Server, servers
from interop.transcript import Transcript

scenario = pytest.mark.scenario


#: What goes into a CSR where a server asks for it.
_VALUES = ("--value", "emailAddress=pump@example.com", "--value", "macAddress=02:00:00:00:00:07")


@dataclass(frozen=True, slots=True)
class Host:
    """A server that listens, and our client of it."""

    served: Served
    client: OurClient
    openssl: OpenSsl

    def issued(self, certificate: Path, key: Path) -> Credentials:
        """Check a certificate that came for ``key``, and return it."""
        self.openssl.verify_ca(certificate, root=self.served.issuer)
        assert self.openssl.public_key_of(certificate) == self.openssl.public_half(key)
        return Credentials(certificate, key)


class Guest:
    """What a test needs to be a guest at a server."""

    def __init__(
        self, peer: ServerPeer, transcript: Transcript, openssl: OpenSsl, directory: Path
    ) -> None:
        self.peer = peer
        self.openssl = openssl
        self.out = directory / "certificate.pem"
        self.key = directory / "new.key"
        self._transcript = transcript
        self._directory = directory

    def other_key(self) -> Path:
        """A key of a kind that nobody asks for."""
        return self.openssl.make_key("EC", "-pkeyopt", "ec_paramgen_curve:P-521")

    @contextmanager
    def at(self, mode: Mode) -> Iterator[Host]:
        """Have the server listen, and ask for what ``mode`` says."""
        with self.peer.serve(mode) as served:
            client = OurClient(served, self._transcript, self._directory)
            yield Host(served, client, self.openssl)


@pytest.fixture(params=servers(), ids=lambda server: server.name)
def guest(
    request: pytest.FixtureRequest,
    server: ServerUnderTest,
    device: Device,
    openssl: OpenSsl,
    transcript: Transcript,
    tmp_path: Path,
) -> Guest:
    """Each of the servers in turn."""
    chosen: Server = request.param
    plays(request, chosen.name, chosen.transport, role="server")
    peer = chosen.make(server, device, transcript, openssl, tmp_path)
    return Guest(peer, transcript, openssl, tmp_path)


# -- Certificates ---------------------------------------------------------------------------------


@scenario("CA certificates")
def test_ca_certificates(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        done = host.client.run("cacerts", "--out", guest.out, credentials=host.served.credentials)
    assert done.status == DONE, done.text
    assert fingerprint(host.served.ca) in {
        found.fingerprint(SHA256()).hex()
        for found in x509.load_pem_x509_certificates(guest.out.read_bytes())
    }


@scenario("CA certificates, and trust by a fingerprint alone")
def test_bootstrap(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        words = ("--ca-fingerprint", fingerprint(host.served.ca), "--out", guest.out)
        done = host.client.run("cacerts", *words, credentials=host.served.credentials)
    assert done.status == DONE, done.text


@scenario("CSR attributes")
def test_csr_attributes(guest: Guest) -> None:
    with guest.at(Mode.WISHES) as host:
        credentials = host.served.credentials
        done = host.client.run("csrattrs", "--out", guest.out, credentials=credentials)
    assert done.status == DONE, done.text
    assert "OBJECT" in guest.openssl.asn1(guest.out.read_bytes())


@scenario("enroll: a birth certificate, for a fresh key")
def test_enroll_with_a_certificate(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        enroll(guest, host)


@scenario("enroll: HTTP Basic")
def test_enroll_with_basic(guest: Guest) -> None:
    with guest.at(Mode.BASIC) as host:
        by_user(guest, host, host.served.user)


@scenario("enroll: HTTP Digest, MD5 (--allow-md5)")
def test_enroll_with_digest(guest: Guest) -> None:
    with guest.at(Mode.DIGEST) as host:
        by_user(guest, host, host.served.user, "--allow-md5")


@scenario("enroll: a certificate, where a user would do as well")
def test_enroll_with_either(guest: Guest) -> None:
    with guest.at(Mode.EITHER) as host:
        enroll(guest, host)


@scenario("enroll: linked to the channel (POP), where the server insists")
@pytest.mark.conformance("POP-08")
def test_enroll_linked(guest: Guest) -> None:
    with guest.at(Mode.LINKED) as host:
        enroll(guest, host)


@scenario("enroll: with the attributes that the server insists on")
def test_enroll_as_asked(guest: Guest) -> None:
    with guest.at(Mode.ATTRIBUTES) as host:
        enroll(guest, host, "--follow-csrattrs", "--subject", "CN=pump 7", *_VALUES)


@scenario("enroll: under a label (path segment)")
def test_enroll_under_a_label(guest: Guest) -> None:
    with guest.at(Mode.LABEL) as host:
        enroll(guest, host)


@scenario("enroll: manual approval, not yet")
def test_not_yet(guest: Guest) -> None:
    with guest.at(Mode.MANUAL) as host:
        words = ("--new-key", guest.key, "--out", guest.out)
        done = host.client.run("enroll", *words, credentials=host.served.credentials)
    assert done.status == REFUSED
    assert "60 s" in done.text, done.text
    assert not guest.out.exists()


@scenario("renew: the same key")
def test_renew_the_same_key(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        current = enroll(guest, host)
        renewed = guest.out.with_name("renewed.pem")
        done = host.client.run("reenroll", "--out", renewed, credentials=current)
        assert done.status == DONE, done.text
        host.issued(renewed, current.key)


@scenario("renew: a fresh key")
def test_renew_with_a_fresh_key(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        current = enroll(guest, host)
        renewed, fresh = guest.out.with_name("renewed.pem"), guest.out.with_name("fresh.key")
        words = ("--new-key", fresh, "--out", renewed)
        done = host.client.run("reenroll", *words, credentials=current)
        assert done.status == DONE, done.text
        host.issued(renewed, fresh)


@scenario("key made by the server")
def test_a_key_made_by_the_server(guest: Guest) -> None:
    with guest.at(Mode.KEY_GENERATION) as host:
        words: list[str | Path] = ["--key-out", guest.key, "--out", guest.out, "--unencrypted"]
        if host.served.patience:
            words += ["--ack-timeout", host.served.patience]
        done = host.client.run("serverkeygen", *words, credentials=host.served.credentials)
        assert done.status == DONE, done.text
        host.issued(guest.out, guest.key)


# -- Refusals -------------------------------------------------------------------------------------


@scenario("refused: a wrong password, Basic")
def test_a_wrong_password(guest: Guest) -> None:
    with guest.at(Mode.BASIC) as host:
        refused_by_user(guest, host, User(host.served.user.name, "guessed"))


@scenario("refused: a wrong password, Digest")
def test_a_wrong_password_by_digest(guest: Guest) -> None:
    with guest.at(Mode.DIGEST) as host:
        refused_by_user(guest, host, User(host.served.user.name, "guessed"), "--allow-md5")


@scenario("refused: a password asked for by MD5, without --allow-md5")
def test_md5_is_not_answered(guest: Guest) -> None:
    with guest.at(Mode.DIGEST) as host:
        refused_by_user(guest, host, host.served.user)


@scenario("refused: no credentials at all")
def test_nobody(guest: Guest) -> None:
    with guest.at(Mode.BASIC) as host:
        key = guest.openssl.make_key()
        done = host.client.run("enroll", "--key", key, "--out", guest.out)
        assert done.status == REFUSED, done.text


@scenario("refused: not linked to the channel (POP), where the server insists")
def test_not_linked(guest: Guest) -> None:
    with guest.at(Mode.LINKED) as host:
        words = ("--no-pop-linking", "--new-key", guest.key, "--out", guest.out)
        done = host.client.run("enroll", *words, credentials=host.served.credentials)
        assert done.status == REFUSED, done.text


@scenario("refused: without the attributes that the server insists on")
def test_without_attributes(guest: Guest) -> None:
    with guest.at(Mode.ATTRIBUTES) as host:
        words = ("--new-key", guest.other_key(), "--out", guest.out)
        done = host.client.run("enroll", *words, credentials=host.served.credentials)
        assert done.status == REFUSED, done.text


@scenario("refused: a revoked certificate")
def test_revoked(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        current = enroll(guest, host)
    guest.peer.revoke(current.certificate)
    with guest.at(Mode.REVOCATION) as host:
        again = guest.out.with_name("again.pem")
        done = host.client.run("reenroll", "--out", again, credentials=current)
        assert done.status != DONE
        assert not again.exists()


@scenario("refused by us: a server that another CA vouches for")
def test_an_untrusted_server(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        other = guest.openssl.make_self_signed(guest.openssl.make_key())
        done = host.client.run("cacerts", ca=other, credentials=host.served.credentials)
    assert done.status == NOT_TRUSTED, done.text


@scenario("refused by us: a server under another name")
def test_a_server_under_another_name(guest: Guest) -> None:
    with guest.at(Mode.CERTIFICATE) as host:
        url = under_another_name(host.served.url)
        done = host.client.run("cacerts", url=url, credentials=host.served.credentials)
    assert done.status == NOT_TRUSTED, done.text


def enroll(guest: Guest, host: Host, *words: str) -> Credentials:
    """Enroll a fresh key with the certificate that the server takes."""
    options: list[str | Path] = ["--new-key", guest.key, "--out", guest.out, *words]
    done = host.client.run("enroll", *options, credentials=host.served.credentials)
    assert done.status == DONE, done.text
    return host.issued(guest.out, guest.key)


def by_user(guest: Guest, host: Host, user: User, *words: str) -> None:
    """Enroll the device's own key as ``user``."""
    key = host.served.credentials.key
    options: list[str | Path] = ["--key", key, "--no-pop-linking", "--out", guest.out, *words]
    done = host.client.run("enroll", *options, user=user)
    assert done.status == DONE, done.text
    host.issued(guest.out, key)


def refused_by_user(guest: Guest, host: Host, user: User, *more: str) -> None:
    """Check that ``user`` gets nothing."""
    key = host.served.credentials.key
    words: list[str | Path] = ["--key", key, "--no-pop-linking", "--out", guest.out, *more]
    done = host.client.run("enroll", *words, user=user)
    assert done.status == REFUSED, done.text
    assert not guest.out.exists()


def under_another_name(url: str) -> str:
    """The same address by a name that is in no certificate."""
    return re.sub("//[^:]+:", "//127.0.0.2:", url)


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a certificate in PEM, in hex."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(SHA256()).hex()

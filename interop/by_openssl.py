"""Keys, certification requests and verdicts of the ``openssl`` command.

Everything that a device would make, and every judgement on what it got, comes from here and not
from the code under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from interop.transcript import Finished, Transcript

_P256 = ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")


class OpenSsl:
    """The ``openssl`` command, working in one directory.

    :param program: where it is.
    :param directory: where it puts what it makes.
    """

    def __init__(self, program: str, transcript: Transcript, directory: Path) -> None:
        self._program = program
        self._transcript = transcript
        self._directory = directory
        self._names = _numbers()

    # -- What a device makes -------------------------------------------------------------------

    def make_key(self, *kind: str) -> Path:
        """A new private key; ``kind`` as for ``genpkey -algorithm``, by default EC P-256."""
        key = self._new("key.pem")
        key.touch(0o600)
        self._do("genpkey", "-algorithm", *(kind or _P256), "-out", key)
        return key

    def make_self_signed(self, key: Path) -> Path:
        """A self-signed certificate over ``key``."""
        certificate = self._new("self-signed.pem")
        self._do(
            *("req", "-x509", "-new", "-key", key, "-subj", "/CN=bare key", "-days", "2"),
            *("-out", certificate),
        )
        return certificate

    def make_csr(
        self, key: Path, common_name: str = "any", *, challenge_password: str | None = None
    ) -> Path:
        """A certification request in DER.

        :param challenge_password: links it to a channel (RFC 7030 section 3.5).
        """
        config = self._new("csr.cnf")
        config.write_text(_csr_config(common_name, challenge_password))
        csr = self._new("csr.der")
        self._do("req", "-new", "-config", config, "-key", key, "-outform", "DER", "-out", csr)
        self._do("req", "-inform", "DER", "-in", csr, "-noout", "-text")
        return csr

    def tamper(self, csr: Path) -> Path:
        """A copy of ``csr`` whose signature is wrong by one bit."""
        octets = bytearray(csr.read_bytes())
        octets[-1] ^= 1
        tampered = self._new("tampered.der")
        tampered.write_bytes(octets)
        return tampered

    def to_pem_csr(self, csr: Path) -> Path:
        """A CSR in DER as PEM, whatever its signature is worth."""
        pem = self._new("csr.pem")
        self._do("req", "-inform", "DER", "-in", csr, "-out", pem)
        return pem

    def to_base64(self, file: Path) -> Path:
        """The base64 of ``file``, in lines."""
        encoded = self._new("body.b64")
        self._do("base64", "-in", file, "-out", encoded)
        return encoded

    # -- What a CA does --------------------------------------------------------------------------

    def revoke(self, config: Path, certificate: Path, crl: Path) -> None:
        """Revoke a certificate of the ``openssl ca`` that ``config`` describes, and make a CRL."""
        self._do("ca", "-config", config, "-revoke", certificate)
        self._do("ca", "-config", config, "-gencrl", "-out", crl)

    # -- What a device makes of an answer ------------------------------------------------------

    def from_base64(self, file: Path) -> Path:
        """The octets that ``file`` is the base64 of."""
        decoded = self._new("body.der")
        self._do("base64", "-d", "-in", file, "-out", decoded)
        return decoded

    def unpack(self, certs_only: Path) -> list[Path]:
        """The certificates of a certs-only CMS in DER, one PEM file each."""
        listing = self._do("pkcs7", "-inform", "DER", "-in", certs_only, "-print_certs").out
        end = "-----END CERTIFICATE-----\n"
        pieces = listing.decode().split(end)[:-1]
        files = [self._new("certificate.pem") for _ in pieces]
        for file, piece in zip(files, pieces, strict=True):
            file.write_text(piece[piece.index("-----BEGIN") :] + end)
        return files

    def to_pem(self, certificate: Path) -> Path:
        """A DER certificate as PEM."""
        pem = self._new("certificate.pem")
        self._do("x509", "-inform", "DER", "-in", certificate, "-out", pem)
        return pem

    def to_pem_key(self, key: Path, pem: Path) -> None:
        """A private key in DER as PEM, in the file ``pem``; fails unless it is consistent."""
        self._do("pkey", "-inform", "DER", "-in", key, "-check", "-noout")
        self._do("pkey", "-inform", "DER", "-in", key, "-out", pem)

    def asn1(self, der: bytes) -> str:
        """The structure of a DER message, as text."""
        file = self._new("message.der")
        file.write_bytes(der)
        return self._do("asn1parse", "-inform", "DER", "-in", file).out.decode()

    # -- Verdicts ------------------------------------------------------------------------------

    def verify(self, certificate: Path, *, root: Path, untrusted: Path) -> None:
        """Fail unless ``certificate`` is good for a TLS client and chains to ``root``."""
        self._do(
            *("verify", "-x509_strict", "-purpose", "sslclient", "-no-CApath", "-no-CAstore"),
            *("-CAfile", root, "-untrusted", untrusted, certificate),
        )

    def verify_ca(self, certificate: Path, *, root: Path) -> None:
        """Fail unless ``certificate`` chains to ``root``."""
        self._do("verify", "-no-CApath", "-no-CAstore", "-CAfile", root, certificate)

    def subject_of(self, certificate: Path) -> str:
        """The subject of a certificate as RFC 4514 writes it; its text goes to the transcript."""
        self._do("x509", "-in", certificate, "-noout", "-text")
        shown = self._do("x509", "-in", certificate, "-noout", "-subject", "-nameopt", "RFC2253")
        return shown.out.decode().strip().removeprefix("subject=")

    def public_key_of(self, certificate: Path) -> bytes:
        """The public key of a certificate in PEM."""
        return self._do("x509", "-in", certificate, "-noout", "-pubkey").out

    def public_half(self, key: Path) -> bytes:
        """The public half of a private key in PEM."""
        return self._do("pkey", "-in", key, "-pubout").out

    # -- Running it ----------------------------------------------------------------------------

    def _do(self, *words: str | Path) -> Finished:
        done = self._transcript.run([self._program, *words])
        assert done.status == 0, done.text
        return done

    def _new(self, name: str) -> Path:
        return self._directory / f"{next(self._names)}-{name}"


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def _csr_config(common_name: str, challenge_password: str | None) -> str:
    lines = ["[req]", "prompt = no", "distinguished_name = subject"]
    if challenge_password is not None:
        lines += ["attributes = attributes"]
    lines += ["[subject]", f"commonName = {common_name}"]
    if challenge_password is not None:
        lines += ["[attributes]", f"challengePassword = {challenge_password}"]
    return "\n".join(lines) + "\n"

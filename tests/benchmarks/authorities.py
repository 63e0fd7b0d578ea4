"""Registration authorities, which enroll many devices over one connection."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from est_protocol.keys import spki_sha256
from tests.benchmarks.bench import Bench, compared
from tests.benchmarks.deployment import Deployment
from tests.benchmarks.devices import Device, make_csr
from tests.benchmarks.figures import Found
from tests.benchmarks.generators import Load


def registration_authority(bench: Bench) -> Iterator[Found]:
    """Registration authorities that enroll one device after the other over a connection each; the
    floor is that of request and certificate alone."""
    devices = bench.devices(bench.size.enrollments)
    deployment = bench.deploy(devices, bench.size.listed)
    authorities = make_authorities(deployment, bench.size.generators)
    load = Load("https-one-connection")
    measured, floor = bench.measure(load, deployment, spoken_for(devices, authorities))
    yield compared("HTTPS, keep-alive, registration authority", measured, floor.certificate, 2.0)


def make_authorities(deployment: Deployment, count: int) -> list[Device]:
    """Registration authorities that the server knows."""
    return [_make_authority(deployment, f"ra-{number}") for number in range(count)]


def spoken_for(devices: list[Device], authorities: list[Device]) -> list[Device]:
    """The same devices with an authority's credentials each: a generator's share begins with the
    one whose connection it is."""
    return [
        replace(device, key=authority.key, chain=authority.chain)
        for device, authority in zip(devices, itertools.cycle(authorities), strict=False)
    ]


def _make_authority(deployment: Deployment, name: str) -> Device:
    key = ec.generate_private_key(ec.SECP256R1())
    csr, out = deployment.directory / f"{name}.csr", deployment.directory / f"{name}.pem"
    csr.write_bytes(make_csr(name, key))
    config = str(deployment.config)
    arguments = ("ra", "issue", name, "--csr", str(csr), "--out", str(out), "--config", config)
    subprocess.run(
        [sys.executable, "-m", "est_server.cli", *arguments], check=True, capture_output=True
    )
    chain = x509.load_pem_x509_certificates(out.read_bytes())
    text = deployment.config.read_text()
    subject = chain[0].subject.rfc4514_string()
    if "registration_authorities" not in text:
        deployment.append_config("\n[default.registration_authorities]\nsubjects = [\n]\n")
        text = deployment.config.read_text()
    deployment.config.write_text(text.replace("subjects = [\n", f'subjects = [\n"{subject}",\n'))
    return Device(
        key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in chain),
        csr=b"",
        spki_sha256=spki_sha256(key.public_key()),
    )

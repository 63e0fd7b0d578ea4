"""A tour of the whole product on loopback: ``make demo``.

It runs the real commands: a server is set up, devices are listed, enroll and renew on both
transports, and are refused where they should be. Each line says what was presented and what was
decided; the exit status is 0 if every decision was the right one. ``--verbose`` shows the
commands.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from est_client.connectors import connector_for
from est_protocol import pkcs10
from est_protocol.credentials import AnchorSet
from est_protocol.errors import ServerRefused
from est_protocol.messages import EstRequest, Transport
from est_protocol.operations import Operation
from est_protocol.secure_channel.context import TrustAnchors

BIRTH = ("meter-1", "pump-3", "lamp-5")
BARE = ("sensor-2", "valve-4", "camera-6")
STRANGER = "stranger"

#: Seconds that one command may take before the tour gives up.
PATIENCE = 20


class Tour:
    """Prints one line per step and remembers whether all went well."""

    def __init__(self, *, verbose: bool) -> None:
        self.verbose = verbose
        self.steps = 0
        self.failures = 0
        self._colour = sys.stdout.isatty()

    def chapter(self, title: str) -> None:
        """Begin another part."""
        print(f"\n{self._paint(title, '1')}")

    def step(self, good: bool, who: str, how: str, presented: str, decided: str) -> None:
        """One thing that was tried."""
        self.steps += 1
        self.failures += not good
        mark = self._paint("ok  ", "32") if good else self._paint("FAIL", "31;1")
        print(f"  {mark} {who:<10} {how:<6} {presented:<39} {decided}", flush=True)

    def command(self, arguments: list[str]) -> None:
        """A command that is about to run."""
        if self.verbose:
            print(self._paint(f"       $ {shlex.join(arguments)}", "2"))

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


@dataclass(frozen=True)
class Place:
    """Where the tour keeps its files, and how it runs commands there."""

    folder: Path
    tour: Tour

    @property
    def config(self) -> Path:
        return self.folder / "est" / "est-server.toml"

    @property
    def root(self) -> Path:
        return self.folder / "est" / "ca.pem"

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``est-server`` or ``est-client`` to its end."""
        command = self.command(program, *arguments)
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE
        )

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """The command line; the program is the one beside this Python."""
        texts = [str(argument) for argument in arguments]
        self.tour.command([program, *texts])
        return [str(Path(sys.executable).with_name(program)), *texts]


# -- the factory ------------------------------------------------------------------------------


def make_devices(place: Place) -> None:
    """Keys for all devices, birth certificates for some, and the list that goes to the OEM."""
    maker_key = ec.generate_private_key(ec.SECP256R1())
    maker = certificate("Acme Devices CA", maker_key, maker_key, "Acme Devices CA", ca=True)
    write_pem(place.folder / "acme-ca.pem", maker)
    rows = ["udid,public_key,model"]
    for name in (*BIRTH, *BARE, STRANGER):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (place.folder / f"{name}.key").touch(mode=0o600)
        (place.folder / f"{name}.key").write_bytes(pem)
        if name in BIRTH:
            birth = certificate(f"Acme {name}", key, maker_key, "Acme Devices CA")
            write_pem(place.folder / f"{name}.birth.pem", birth)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if name != STRANGER:
            rows.append(f'{name},"{public.decode()}",{name.split("-")[0]}')
    (place.folder / "devices.csv").write_text("\n".join(rows) + "\n")


def certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer: str,
    *,
    ca: bool = False,
) -> x509.Certificate:
    """A certificate as a device maker's CA would make it."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(f"CN={subject}"))
        .issuer_name(x509.Name.from_rfc4514_string(f"CN={issuer}"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7300))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def write_pem(path: Path, certificate: x509.Certificate) -> None:
    """One certificate as a PEM file."""
    path.write_bytes(certificate.public_bytes(Encoding.PEM))


# -- the server -------------------------------------------------------------------------------


def set_up(place: Place) -> None:
    """A server with a manufacturer that it believes and a list of devices."""
    place.tour.chapter("Set up")
    ports = ("--https-port", "0", "--coaps-port", "0")
    report(place, "est-server", "init", place.run("est-server", "init", "est", *ports))
    with place.config.open("a") as config:
        config.write('\n[log]\nformat = "json"\nfile = "../audit.log"\n')
    make_devices(place)
    trusted = place.run(
        "est-server", "trust", "add-manufacturer", "acme-ca.pem", "--config", place.config
    )
    report(place, "est-server", "trust", trusted)
    imports = ("devices", "import", "devices.csv", "--allow-unsigned")
    listed = place.run("est-server", *imports, "--config", place.config)
    report(place, "est-server", "import", listed)


def report(place: Place, who: str, what: str, done: subprocess.CompletedProcess[str]) -> None:
    """A step of the operator: it has to succeed, or nothing else makes sense."""
    said = (done.stdout if done.returncode == 0 else done.stderr).splitlines() or [""]
    place.tour.step(done.returncode == 0, who, what, said[0].partition(" sha256=")[0], "")
    if done.returncode != 0:
        raise SystemExit(1)


@contextmanager
def serving(place: Place) -> Iterator[dict[str, str]]:
    """The running server; gives the URL of each transport and ends it with SIGTERM."""
    with (place.folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            place.command("est-server", "serve", "--config", place.config),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=place.folder,
        )
        try:
            assert server.stdout is not None
            ready = server.stdout.readline().split()
            place.tour.step(ready[:1] == ["ready"], "est-server", "serve", " ".join(ready), "")
            if not ready:
                raise SystemExit(1)
            addresses = dict(item.split("=") for item in ready[1:])
            yield {name: f"{name}://{address}" for name, address in addresses.items()}
            server.send_signal(signal.SIGTERM)
            status = server.wait(PATIENCE)
            place.tour.step(status == 0, "est-server", "stop", "SIGTERM", f"exit status {status}")
        finally:
            server.kill()
            server.wait()


# -- the devices ------------------------------------------------------------------------------


def enroll(place: Place, urls: dict[str, str]) -> None:
    """Devices that are listed get their first operational certificate."""
    place.tour.chapter("Enroll")
    for name, transport in (("meter-1", "https"), ("pump-3", "coaps")):
        done = client(place, "enroll", urls[transport], name, *birth(name, f"{name}.fresh.key"))
        expect_certificate(place, done, name, transport, "birth certificate, for a fresh key")
    for name, transport in (("sensor-2", "https"), ("valve-4", "coaps")):
        done = client(place, "enroll", urls[transport], name, "--key", f"{name}.key")
        shown = (
            "nothing but its listed key" if transport == "https" else "its listed key, self-signed"
        )
        expect_certificate(place, done, name, transport, shown)


def renew(place: Place, urls: dict[str, str]) -> None:
    """Devices that have an operational certificate get the next one."""
    place.tour.chapter("Renew")
    for name, transport, key, more in (
        ("sensor-2", "https", "sensor-2.key", ()),
        ("pump-3", "coaps", "pump-3.fresh.key", ("--new-key", "pump-3.next.key")),
    ):
        arguments = ("--key", key, "--cert", f"{name}.pem", *more)
        done = client(place, "reenroll", urls[transport], name, *arguments)
        shown = f"operational certificate, {'a new' if more else 'the same'} key"
        expect_certificate(place, done, name, transport, shown)


def be_refused(place: Place, urls: dict[str, str]) -> None:
    """What is not as it should be gets no certificate."""
    place.tour.chapter("Refuse")
    for transport in ("https", "coaps"):
        done = client(place, "enroll", urls[transport], STRANGER, "--key", "stranger.key")
        expect_refusal(place, done, STRANGER, transport, "a key that is on no list", "403", "4.03")
    done = client(place, "enroll", urls["https"], "meter-1", *birth("meter-1", "second.key"))
    expect_refusal(place, done, "meter-1", "https", "a second claim, with another key", "403")
    refused = asyncio.run(send_tampered(place, urls["https"]))
    place.tour.step(
        refused.startswith("400"), "lamp-5", "https", "a CSR that was changed on its way", refused
    )


def birth(name: str, new_key: str) -> tuple[str, ...]:
    """The options of a device that has a birth certificate and wants a certificate for a key."""
    return ("--key", f"{name}.key", "--cert", f"{name}.birth.pem", "--new-key", new_key)


def client(
    place: Place, command: str, url: str, name: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run ``est-client`` as the device ``name``."""
    trust = ("--url", url, "--ca-cert", place.root)
    return place.run("est-client", command, *trust, *arguments, "--out", f"{name}.pem")


def expect_certificate(
    place: Place, done: subprocess.CompletedProcess[str], name: str, how: str, presented: str
) -> None:
    """The device has to have a certificate now, in its own name and from our CA."""
    if done.returncode != 0:
        place.tour.step(False, name, how, presented, done.stderr.strip())
        return
    issued = x509.load_pem_x509_certificate((place.folder / f"{name}.pem").read_bytes())
    issuing = x509.load_pem_x509_certificate((place.folder / "est/ca/issuing.pem").read_bytes())
    issued.verify_directly_issued_by(issuing)
    subject = issued.subject.rfc4514_string()
    place.tour.step(
        subject == f"CN={name}",
        name,
        how,
        presented,
        f"issued {subject}, until {issued.not_valid_after_utc:%Y-%m-%d}",
    )


def expect_refusal(
    place: Place,
    done: subprocess.CompletedProcess[str],
    name: str,
    how: str,
    presented: str,
    *statuses: str,
) -> None:
    """The server has to have said no, and est-client has to have said so."""
    said = done.stderr.strip().rpartition("refused by the server: ")[2]
    good = done.returncode == 1 and said.split(":")[0] in statuses
    place.tour.step(good, name, how, presented, f"refused {said}")


async def send_tampered(place: Place, url: str) -> str:
    """Send a CSR of which one letter was changed after it was signed; return the answer."""
    key = ec.generate_private_key(ec.SECP256R1())
    root = x509.load_pem_x509_certificate(place.root.read_bytes())
    connection = await connector_for(url).connect(
        credentials=None, anchors=TrustAnchors({AnchorSet.EXPLICIT: [root]})
    )
    try:
        subject = x509.Name.from_rfc4514_string("CN=lamp-5")
        csr = pkcs10.build(key, subject, binding=connection.server.channel_binding)
        body = csr.der.replace(b"lamp-5", b"lamp-6")
        await connection.request(EstRequest(Operation.SIMPLEENROLL, Transport.HTTPS, body=body))
    except ServerRefused as refused:
        return f"{refused}"
    finally:
        await connection.close()
    return "issued"


# -- the books --------------------------------------------------------------------------------


def look_at_the_books(place: Place) -> None:
    """What the operator sees of all this."""
    place.tour.chapter("The books")
    done = place.run("est-server", "devices", "list", "--config", place.config)
    states = Counter(line.split()[1] for line in done.stdout.splitlines())
    place.tour.step(
        states == {"enrolled": 4, "listed": 2},
        "est-server",
        "list",
        ", ".join(f"{count} {state}" for state, count in sorted(states.items())),
        "",
    )
    entries = [json.loads(line) for line in (place.folder / "audit.log").read_text().splitlines()]
    reasons = Counter(entry["reason"] for entry in entries if entry["outcome"] == "refused")
    issued = sum(entry["outcome"] == "issued" for entry in entries)
    place.tour.step(issued == 6, "audit log", "", f"{issued} certificates issued", "")
    for reason, count in sorted(reasons.items()):
        print(f"       {'':<10} {'':<6} refused {count} x {reason}")


def main() -> int:
    """Run the tour."""
    tour = Tour(verbose="--verbose" in sys.argv[1:])
    began = time.monotonic()
    print("Six devices, one EST server, two transports; everything on this machine.")
    with tempfile.TemporaryDirectory(prefix="est-demo-") as folder:
        place = Place(Path(folder), tour)
        set_up(place)
        with serving(place) as urls:
            enroll(place, urls)
            renew(place, urls)
            be_refused(place, urls)
            look_at_the_books(place)
        if tour.failures:
            print((place.folder / "server.log").read_text(), file=sys.stderr)
    print(
        f"\n{tour.steps - tour.failures} of {tour.steps} steps as expected, "
        f"in {time.monotonic() - began:.0f} seconds."
    )
    return 1 if tour.failures else 0


if __name__ == "__main__":
    sys.exit(main())

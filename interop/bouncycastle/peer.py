"""Bouncy Castle's ``org.bouncycastle.est``, as the shared scenarios want it.

``EstDriver.java`` is ours and uses the library as its users do, over the library's own TLS, since
the JDK's does not tell the channel binding.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from interop.client_peer import Bench, Credentials, Order, Outcome
from interop.peers import find_jar, find_peer
from interop.transcript import Finished

_JARS = ("bcpkix.jar", "bcprov.jar", "bcutil.jar", "bctls.jar")

#: Start fast; nothing here runs long enough to be worth compiling well.
_JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")

_COMPILE_SECONDS = 240

_DONE, _PENDING = 0, 3


class BouncyCastle:
    """A JVM for each request."""

    _compiled: TemporaryDirectory[str] | None = None

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._java = find_peer("java")
        self._class_path = ":".join([self._compile(), *_class_path()])

    def ca_certificates(self, credentials: Credentials | None, label: str | None) -> list[Path]:
        return self._fetch({"label": label, **self._trust(), **_who(credentials)})

    def unverified_ca_certificates(self) -> list[Path]:
        """Fetch the CA certificates from a server that nothing verifies (RFC 7030 4.1.1)."""
        return self._fetch({})

    def csr_attributes(self, credentials: Credentials | None, label: str | None) -> bytes:
        done, out = self._run("csrattrs", {"label": label, **self._trust(), **_who(credentials)})
        assert done.status == _DONE, done.text
        return (out / "csrattrs.der").read_bytes()

    def enroll(self, order: Order) -> Outcome:
        return self._order("simpleenroll", order)

    def renew(self, order: Order) -> Outcome:
        return self._order("simplereenroll", order)

    def generate_key(self, order: Order) -> Outcome:
        return self._order("serverkeygen", order)

    def _fetch(self, options: dict[str, str | Path | None]) -> list[Path]:
        done, out = self._run("cacerts", options)
        assert done.status == _DONE, done.text
        return sorted(out.glob("certificate-*.pem"))

    def _order(self, operation: str, order: Order) -> Outcome:
        options: dict[str, str | Path | None] = {"label": order.label, **self._trust()}
        options |= _who(order.credentials)
        if order.linked:
            # tls-unique is all that it can link with.
            options |= {"sign-with": order.key, "subject": f"CN={order.common_name}"}
            options |= {"tls": "TLSv1.2"}
        else:
            options["csr"] = self._bench.csr(order)
        if order.user is not None:
            options |= {"user": order.user.name, "password": order.user.password}
        done, out = self._run(operation, options)
        if done.status != _DONE:
            return Outcome(None, done.text, pending=done.status == _PENDING)
        generated = out / "generated.der"
        key = None
        if generated.exists():
            key = out / "generated.pem"
            self._bench.openssl.to_pem_key(generated, key)
        return Outcome(out / "certificate-0.pem", done.text, key=key)

    def _trust(self) -> dict[str, Path]:
        return {"ca": self._bench.ca}

    def _run(self, operation: str, options: dict[str, str | Path | None]) -> tuple[Finished, Path]:
        out = Path(mkdtemp(prefix="bouncycastle-", dir=self._bench.directory))
        options |= {"server": f"localhost:{self._bench.https_port}", "out": out}
        words = [f"{name}={value}" for name, value in options.items() if value is not None]
        command = [self._java, *_JAVA_OPTIONS, "-cp", self._class_path, "EstDriver"]
        return self._bench.transcript.run([*command, operation, *words]), out

    @classmethod
    def _compile(cls) -> str:
        if cls._compiled is None:
            cls._compiled = TemporaryDirectory(prefix="est-interop-java-")
            subprocess.run(
                [
                    *(find_peer("javac"), "-d", cls._compiled.name),
                    *("-cp", ":".join(_class_path())),
                    str(Path(__file__).with_name("EstDriver.java")),
                ],
                check=True,
                timeout=_COMPILE_SECONDS,
            )
        return cls._compiled.name


def _class_path() -> list[str]:
    return [str(find_jar(name)) for name in _JARS]


def _who(credentials: Credentials | None) -> dict[str, Path]:
    if credentials is None:
        return {}
    return {"cert": credentials.certificate, "key": credentials.key}

"""The way to a database on another machine: TLS, and nobody in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from est_protocol.errors import ConfigurationError
from est_server.ledger_records import IssuanceTicket
from est_server.service import SystemClock
from est_server.stores.postgresql import PostgresqlAddress
from est_server.stores.postgresql.store import PostgresqlStore
from est_server.stores.transaction import Transaction
from tests.pki import make_ca, make_leaf
from tests.ports import reserved_port
from tests.server.ledger_values import certificate, first_enrollment
from tests.server.postgresql_server import PostgresqlServer, running_server

CA = make_ca("databases")
SERVER = make_leaf(CA, "localhost", names=(x509.DNSName("localhost"),))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


@pytest.fixture(scope="module")
def server(port: int) -> Iterator[PostgresqlServer]:
    """A server that listens on TCP, with a certificate for ``localhost``."""
    key = SERVER.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    settings = {
        "listen_addresses": "'localhost'",
        "port": str(port),
        "ssl": "on",
        "ssl_cert_file": "'../server.pem'",
        "ssl_key_file": "'../server.key'",
    }
    chain = b"".join(c.public_bytes(Encoding.PEM) for c in SERVER.chain)
    files = {"server.pem": chain, "server.key": key}
    with running_server(settings=settings, files=files) as running:
        yield running


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The file with the CA that the database's certificate is of."""
    path = tmp_path / "ca.pem"
    path.write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    return path


def address(server: PostgresqlServer, port: int, host: str, options: str) -> PostgresqlAddress:
    """A new database, over TCP."""
    name = psycopg.conninfo.conninfo_to_dict(server.make_database().url)["dbname"]
    return PostgresqlAddress(f"postgresql://est@{host}:{port}/{name}?{options}")


def _encryption(db: Transaction) -> str:
    row = db.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl")
    return str(row.fetchone()[0])


async def test_a_store_works_over_tls_that_is_verified(
    server: PostgresqlServer, port: int, roots: Path
) -> None:
    url = address(server, port, "localhost", f"sslmode=verify-full&sslrootcert={roots}")
    async with PostgresqlStore.open(url) as store:
        ticket = await store.begin(first_enrollment())
        assert isinstance(ticket, IssuanceTicket)
        await store.complete(ticket, certificate(), now=SystemClock().now())
        assert await store._writer.submit(_encryption) in ("TLSv1.2", "TLSv1.3")
        assert await store._engine.read(_encryption) in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(
    ("host", "authority", "words"),
    [
        ("127.0.0.1", CA.certificate, "does not match host name"),
        ("localhost", make_ca("others").certificate, "certificate verify failed"),
    ],
    ids=["another name", "another CA"],
)
async def test_a_database_that_is_another_is_not_used(
    server: PostgresqlServer,
    port: int,
    tmp_path: Path,
    host: str,
    authority: x509.Certificate,
    words: str,
) -> None:
    (tmp_path / "roots.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    options = f"sslmode=verify-full&sslrootcert={tmp_path / 'roots.pem'}"
    with pytest.raises(ConfigurationError, match=words):
        async with PostgresqlStore.open(address(server, port, host, options)):
            pass


async def test_a_database_that_talks_in_the_clear_is_not_used(
    server: PostgresqlServer, port: int, roots: Path
) -> None:
    server.execute("ALTER SYSTEM SET ssl = off")
    server.execute("SELECT pg_reload_conf()")
    try:
        url = address(server, port, "localhost", f"sslmode=verify-full&sslrootcert={roots}")
        with pytest.raises(ConfigurationError, match="does not support SSL"):
            async with PostgresqlStore.open(url):
                pass
    finally:
        server.execute("ALTER SYSTEM RESET ssl")
        server.execute("SELECT pg_reload_conf()")

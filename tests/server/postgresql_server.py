"""A PostgreSQL server of the tests' own: started on first use, on a Unix socket in a directory
that is gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from est_server.stores.postgresql import PostgresqlAddress

#: Makes what is not there fail the tests instead of skipping them.
_REQUIRED = "EST_REQUIRE_PEERS"

_SETTINGS = {
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "listen_addresses": "''",
    "log_min_messages": "fatal",
}


class PostgresqlServer:
    """A cluster in a directory; PostgreSQL refuses to run as root, so then it runs as another.

    :param directory: empty; with a short path, since a socket in it must have one.
    :param programs: where initdb and pg_ctl are.
    :param fsync: ``on`` or ``off``.
    :param settings: others of its settings, as in its file.
    :param files: files for it alone, by name, in its directory.
    """

    def __init__(
        self,
        directory: Path,
        programs: Path,
        fsync: str,
        *,
        settings: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._directory = directory
        self._programs = programs
        self._numbers = count(1)
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(directory, account.pw_uid, account.pw_gid)
            self._become: dict[str, int] = {"user": account.pw_uid, "group": account.pw_gid}
        else:
            self._become = {}
        self._run(
            "initdb", "--no-sync", "--auth=trust", "--username=est", "--encoding=UTF8",
            "--locale=C", "--no-instructions",
        )  # fmt: skip
        every = {
            **_SETTINGS,
            "fsync": fsync,
            "unix_socket_directories": f"'{directory}'",
            **(settings or {}),
        }
        self._port_option = f"&port={every['port']}" if "port" in every else ""
        for name, content in (files or {}).items():
            self._write_private(directory / name, content)
        with (directory / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in every.items())

    def _write_private(self, path: Path, content: bytes) -> None:
        path.touch(mode=0o600)
        path.write_bytes(content)
        if self._become:
            os.chown(path, self._become["user"], self._become["group"])

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = str(self._directory / "log")
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={log}")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: ``immediate`` is a crash, ``fast`` is not."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    def address(self, database: str = "postgres") -> PostgresqlAddress:
        """The URL of one of its databases."""
        return PostgresqlAddress(
            f"postgresql://est@/{database}?host={self._directory}{self._port_option}"
        )

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser."""
        with psycopg.connect(self.address(database).url, autocommit=True) as db:
            cursor = db.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def make_database(self) -> PostgresqlAddress:
        """A new database."""
        name = f"est_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._directory / "data", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else None,
            cwd=self._directory,
            timeout=250,
            extra_groups=[] if self._become else None,
            **self._become,  # type: ignore[call-overload]
        )


def programs() -> Path:
    """The directory of initdb; skips the test, or fails it where peers are required."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    on_path = shutil.which("initdb")
    if found or on_path:
        return found[-1].parent if found else Path(on_path or "").resolve().parent
    words = "PostgreSQL is not installed (package postgresql)"
    if os.environ.get(_REQUIRED) == "1":
        pytest.fail(f"{words}, and {_REQUIRED} is set", pytrace=False)
    pytest.skip(words)


def _version(initdb: Path) -> float:
    name = initdb.parent.parent.name
    return float(name) if name.replace(".", "", 1).isdecimal() else 0.0


@contextmanager
def running_server(
    *,
    fsync: str = "off",
    settings: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Iterator[PostgresqlServer]:
    """A server, stopped and removed afterwards; parameters as for :class:`PostgresqlServer`."""
    with tempfile.TemporaryDirectory(prefix="est-pg-", dir="/tmp") as directory:
        server = PostgresqlServer(
            Path(directory), programs(), fsync, settings=settings, files=files
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


def empty(address: PostgresqlAddress) -> None:
    """Remove all rows of a store; a tenth of the time that a new database takes."""
    with psycopg.connect(address.url, autocommit=True) as db:
        tables = db.execute(
            "SELECT string_agg(relname, ', ') FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace = 'public'::regnamespace AND relname <> 'migrations'"
        ).fetchone()
        assert tables is not None
        db.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY".encode())

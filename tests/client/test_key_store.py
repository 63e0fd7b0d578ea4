"""The key store in files: what it keeps, and what is left when it is interrupted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from est_client.client import EstClient
from est_client.device_keys import chain_to_pem, key_from_pem, key_to_pem
from est_client.durable_files import FileSystem, write_durably
from est_client.key_store import FileKeyStore
from est_client.lifecycle import enroll_device, renew_device
from est_client.trust import TrustDatabase
from est_protocol.errors import ConfigurationError, ServerRefused
from est_protocol.keys import SigningKey, generate_key, key_kind, spki_sha256
from est_protocol.messages import EstRequest, EstResponse
from est_protocol.secure_channel.context import LocalCredentials
from tests.client.memory import MemoryConnection, MemoryServer
from tests.pki import CLIENT_AUTH, PRESENT, make_ca, make_key, make_leaf, make_server

CA = make_ca("root")


class Killed(BaseException):
    """The process ends here; nothing of it may run on, not even clean-up."""


class MortalFileSystem(FileSystem):
    """Dies at a step, before it or half-way through it.

    :param life: how many steps come through.
    :param lose_unsynced: whether the power fails too: a name that was changed since its
        directory was last synced is as it was before.
    """

    def __init__(self, life: int, *, lose_unsynced: bool = False) -> None:
        self.life = life
        self.steps: list[str] = []
        self._lose_unsynced = lose_unsynced
        self._undo: list[Callable[[], object]] = []

    def create(self, path: Path, content: bytes, mode: int) -> None:
        if self.life == 0:
            path.write_bytes(content[: len(content) // 2])
        self._step("create", path)
        super().create(path, content, mode)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", target)
        self._remember(source)
        self._remember(target)
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        self._remember(path)
        super().remove(path)

    def make_directory(self, path: Path) -> None:
        self._step("mkdir", path)
        super().make_directory(path)

    def sync_directory(self, path: Path) -> None:
        self._step("sync", path)
        super().sync_directory(path)
        self._undo.clear()

    def _remember(self, path: Path) -> None:
        content = path.read_bytes() if path.exists() else None
        self._undo.append(lambda: _restore(path, content))

    def _step(self, name: str, path: Path) -> None:
        if self.life == 0:
            if self._lose_unsynced:
                for undo in reversed(self._undo):
                    undo()
                self._undo.clear()
            raise Killed(f"{name} {path.name}")
        self.life -= 1
        self.steps.append(f"{name} {path.name.split('.')[0]}")


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.write_bytes(content)
    path.chmod(0o600)


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def same(one: SigningKey, other: SigningKey) -> bool:
    return spki_sha256(one.public_key()) == spki_sha256(other.public_key())


async def test_starts_empty_and_keeps_what_it_is_given(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    assert await store.identity() is None
    leaf = make_leaf(CA, "device", usage=CLIENT_AUTH)
    await store.replace_identity(leaf.key, leaf.chain)
    found = await FileKeyStore(tmp_path / "keys").identity()
    assert found is not None
    assert same(found.key, leaf.key)
    assert found.chain == leaf.chain


async def test_keeps_a_bare_key(tmp_path: Path) -> None:
    await FileKeyStore(tmp_path).replace_identity(make_key("device"), ())
    found = await FileKeyStore(tmp_path).identity()
    assert found is not None
    assert (same(found.key, make_key("device")), found.chain) == (True, ())


async def test_everything_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = FileKeyStore(tmp_path / "keys")
        await store.pending_key()
        await store.replace_identity(make_key("device"), ())
        await store.pending_key()
    finally:
        os.umask(old)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {"identity.pem": 0o600, "pending-key.pem": 0o600}


async def test_refuses_a_key_that_others_can_read(tmp_path: Path) -> None:
    await FileKeyStore(tmp_path).replace_identity(make_key("device"), ())
    (tmp_path / "identity.pem").chmod(0o640)
    with pytest.raises(ConfigurationError, match="others must not have access, run: chmod 600"):
        await FileKeyStore(tmp_path).identity()


async def test_refuses_a_certificate_for_another_key(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path)
    with pytest.raises(ConfigurationError):
        await store.replace_identity(make_key("one"), make_leaf(CA, "two").chain)
    assert await store.identity() is None


async def test_a_damaged_file_is_an_error_and_no_empty_store(tmp_path: Path) -> None:
    (tmp_path / "identity.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n")
    (tmp_path / "identity.pem").chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"identity\.pem"):
        await FileKeyStore(tmp_path).identity()


async def test_a_full_disk_leaves_the_old_identity(tmp_path: Path) -> None:
    class Full(FileSystem):
        def create(self, path: Path, content: bytes, mode: int) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))

    await FileKeyStore(tmp_path).replace_identity(make_key("device"), ())
    with pytest.raises(ConfigurationError, match="No space left"):
        await FileKeyStore(tmp_path, file_system=Full()).replace_identity(make_key("other"), ())
    found = await FileKeyStore(tmp_path).identity()
    assert found is not None
    assert same(found.key, make_key("device"))
    assert files_in(tmp_path) == ["identity.pem"]


async def test_the_pending_key_stays_the_same_until_it_is_discarded(tmp_path: Path) -> None:
    first = await FileKeyStore(tmp_path).pending_key()
    store = FileKeyStore(tmp_path)
    assert same(await store.pending_key(), first)
    await store.discard_pending_key()
    assert not same(await store.pending_key(), first)


async def test_the_pending_key_goes_only_after_the_identity_is_durable(tmp_path: Path) -> None:
    file_system = MortalFileSystem(100)
    store = FileKeyStore(tmp_path, file_system=file_system)
    key = await store.pending_key()
    await store.replace_identity(key, ())
    directory = tmp_path.name.split(".")[0]
    assert file_system.steps == [
        "create pending-key",
        "rename pending-key",
        f"sync {directory}",
        "create identity",
        "rename identity",
        f"sync {directory}",
        "remove pending-key",
        f"sync {directory}",
    ]


def rekey(server: MemoryServer, directory: Path, file_system: FileSystem) -> None:
    """One run of a device's renewal program."""

    async def run() -> None:
        store = FileKeyStore(directory, file_system=file_system)
        async with EstClient(server, trust=TrustDatabase(explicit=(CA.certificate,))) as client:
            await renew_device(client, store)

    asyncio.run(run())


def identity_in(directory: Path) -> LocalCredentials:
    """What a later run finds, every file of which must be whole."""
    identity = asyncio.run(FileKeyStore(directory).identity())
    assert identity is not None
    assert identity.chain[0].public_key() == identity.key.public_key()
    return identity


#: Trust anchors, pending key and identity, three each, and the removal of the pending key.
STEPS_OF_A_REKEY = 11


@pytest.mark.conformance("CL-09")
@pytest.mark.parametrize("lose_unsynced", [False, True], ids=["killed", "power lost"])
@pytest.mark.parametrize("life", range(STEPS_OF_A_REKEY + 1))
def test_a_rekey_killed_at_any_step_leaves_a_working_identity(
    tmp_path: Path, life: int, lose_unsynced: bool
) -> None:
    server = MemoryServer(CA, make_server(CA))
    old = make_leaf(CA, "device", usage=CLIENT_AUTH)
    asyncio.run(FileKeyStore(tmp_path).replace_identity(old.key, old.chain))
    file_system = MortalFileSystem(life, lose_unsynced=lose_unsynced)
    try:
        rekey(server, tmp_path, file_system)
    except Killed:
        assert life < STEPS_OF_A_REKEY
    else:
        assert life == STEPS_OF_A_REKEY

    asked_for = [csr.key_sha256 for _, csr in server.enrollments]
    identity = identity_in(tmp_path)
    if same(identity.key, old.key):
        assert identity.chain == old.chain
        rekey(server, tmp_path, FileSystem())
        # The server can answer the repeat only if it is for the same key.
        repeated = [csr.key_sha256 for _, csr in server.enrollments]
        assert len(set(repeated)) == 1
        identity = identity_in(tmp_path)
    else:
        assert asked_for == [spki_sha256(identity.key.public_key())]
    assert not same(identity.key, old.key)
    assert files_in(tmp_path) == ["identity.pem", "trust-anchors.pem"]


async def test_a_refused_renewal_leaves_identity_and_pending_key(tmp_path: Path) -> None:
    async def refuse(connection: MemoryConnection, request: EstRequest) -> EstResponse:
        raise ServerRefused("403", "no")

    server = MemoryServer(CA, make_server(CA), handlers=[refuse])
    old = make_leaf(CA, "device", usage=CLIENT_AUTH)
    store = FileKeyStore(tmp_path)
    await store.replace_identity(old.key, old.chain)
    async with EstClient(server, trust=TrustDatabase(explicit=(CA.certificate,))) as client:
        with pytest.raises(ServerRefused):
            await renew_device(client, store)
        found = await store.identity()
        assert found is not None
        assert found.chain == old.chain
        await renew_device(client, store)
    first, second = server.enrollments
    assert first[1].key_sha256 == second[1].key_sha256


@pytest.mark.parametrize("fresh_key", [False, True])
async def test_enrolls_an_empty_store_and_renews_it(tmp_path: Path, fresh_key: bool) -> None:
    server = MemoryServer(CA, make_server(CA))
    store = FileKeyStore(tmp_path)
    if fresh_key:
        birth = make_leaf(make_ca("manufacturer"), "device", usage=CLIENT_AUTH)
        await store.replace_identity(birth.key, birth.chain)
    async with EstClient(server, trust=TrustDatabase(explicit=(CA.certificate,))) as client:
        certificate = await enroll_device(client, store, fresh_key=fresh_key)
        assert client.identity is not None
        assert client.identity.chain == (certificate,)
        renewed = await renew_device(client, store, rekey=False)
    found = await store.identity()
    assert found is not None
    assert found.chain == (renewed,)
    assert renewed.public_key() == certificate.public_key()
    (connection, _), (after, _) = server.enrollments
    assert bool(connection.client.chain) is fresh_key
    assert after.client.certificate == certificate


async def test_a_store_keeps_what_verifies_a_server_of_another_ca(tmp_path: Path) -> None:
    other = make_ca("the server's own root")
    server, store = MemoryServer(CA, make_server(other)), FileKeyStore(tmp_path)
    async with EstClient(server, trust=TrustDatabase(explicit=(other.certificate,))) as client:
        await enroll_device(client, store)
    kept = await store.trust_anchors()
    assert kept == (CA.certificate, other.certificate)
    async with EstClient(server, trust=TrustDatabase(explicit=kept)) as client:
        await renew_device(client, store)
    assert len(server.enrollments) == 2


async def test_renewing_a_bare_key_is_a_local_error(tmp_path: Path) -> None:
    server = MemoryServer(CA, make_server(CA))
    store = FileKeyStore(tmp_path)
    await store.replace_identity(make_key("device"), ())
    async with EstClient(server, trust=TrustDatabase(explicit=(CA.certificate,))) as client:
        with pytest.raises(ConfigurationError):
            await renew_device(client, store)


def test_a_durable_write_replaces_a_file_or_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old", mode=0o644)
    with pytest.raises(Killed):
        write_durably(path, b"new", mode=0o644, file_system=MortalFileSystem(1))
    assert path.read_bytes() == b"old"
    write_durably(path, b"new", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048"])
def test_keys_of_every_kind_survive_a_file(kind: str) -> None:
    key = generate_key(kind)
    assert key_kind(key.public_key()) == kind
    assert same(key_from_pem(key_to_pem(key), "memory"), key)


def test_an_unknown_kind_of_key_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="ec-p256"):
        generate_key("dsa-1024")


async def test_anchors_and_when_they_were_fetched_are_one_file(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path)
    assert await store.trust_fetched_at() is None
    await store.replace_trust_anchors((CA.certificate,), PRESENT)
    again = FileKeyStore(tmp_path)
    assert await again.trust_anchors() == (CA.certificate,)
    assert await again.trust_fetched_at() == PRESENT
    path = tmp_path / "trust-anchors.pem"
    assert TrustDatabase.load(path).explicit == (CA.certificate,)
    for other in (
        b"Fetched at: noon\n",
        b"\xff\n",
        b"Fetched at: 0001-01-01T00:00:00+23:00\n",
        b"",
    ):
        path.write_bytes(other + chain_to_pem([CA.certificate]))
        assert await again.trust_fetched_at() is None
        assert await again.trust_anchors() == (CA.certificate,)

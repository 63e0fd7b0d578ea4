"""One server for all tests, and for each test its peers, its devices and its transcript."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from interop import devices
from interop.by_openssl import OpenSsl
from interop.checks import Checks
from interop.client_peer import CannotPlay
from interop.devices import Device
from interop.matrix import CANNOT, Recorder
from interop.peers import find_peer
from interop.server import ServerUnderTest
from interop.transcript import Transcript

_BUILD = Path(__file__).parents[1] / "build" / "interop"

#: How many devices are on the list; every enrollment takes one.
_LISTED = 400

NewDevice = Callable[[], Device]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that keeps what the scenarios come to."""
    parser.addoption(
        "--record", action="store_true", help="put what the scenarios come to into results.json"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Record, if that is wanted, where the reports of all workers come together."""
    if config.getoption("--record") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Skip what a peer cannot play."""
    try:
        return (yield)
    except CannotPlay as reason:
        item.user_properties.append((CANNOT, str(reason)))
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def _listed(tmp_path_factory: pytest.TempPathFactory) -> list[Device]:
    home = tmp_path_factory.mktemp("devices")
    return [devices.make_device(home, f"sensor-{number:04}") for number in range(_LISTED)]


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, _listed: list[Device]
) -> Iterator[ServerUnderTest]:
    """A server that listens, knows the devices, and believes their manufacturer."""
    home = tmp_path_factory.mktemp("server")
    under_test = ServerUnderTest(home / "est")
    devices.write_list(home / "devices.csv", _listed)
    devices.write_manufacturer(home / "manufacturer.pem")
    under_test.command("devices", "import", "--allow-unsigned", home / "devices.csv")
    under_test.take_signed_lists_only()
    under_test.command("trust", "add-manufacturer", home / "manufacturer.pem")
    with under_test:
        yield under_test


@pytest.fixture(scope="session")
def _unused(_listed: list[Device]) -> Iterator[Device]:
    return iter(_listed)


@pytest.fixture
def new_device(_unused: Iterator[Device]) -> NewDevice:
    """Gives a listed device that has no operational certificate yet."""

    def take() -> Device:
        device = next(_unused, None)
        assert device is not None, f"all {_LISTED} devices are taken: list more"
        return device

    return take


@pytest.fixture
def device(new_device: NewDevice) -> Device:
    """A listed device that has no operational certificate yet."""
    return new_device()


@pytest.fixture
def stranger(tmp_path: Path) -> Device:
    """A genuine device of the manufacturer's that is not on the list."""
    return devices.make_device(tmp_path, "stranger")


@pytest.fixture
def transcript(request: pytest.FixtureRequest, tmp_path: Path) -> Transcript:
    """Keeps what the test runs under ``build/interop``."""
    test = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    return Transcript(_BUILD / request.path.parent.name / request.path.stem / test, tmp_path)


@pytest.fixture
def openssl(transcript: Transcript, tmp_path: Path) -> OpenSsl:
    """Makes keys and requests, and judges certificates."""
    return OpenSsl(find_peer("openssl"), transcript, tmp_path)


@pytest.fixture
def checks(server: ServerUnderTest, openssl: OpenSsl, transcript: Transcript) -> Iterator[Checks]:
    """Judges results; at the end the server must be unharmed."""
    judge = Checks(server, openssl, len(server.audit()))
    yield judge
    lines = [json.dumps(line) for line in judge.audit()]
    transcript.write("audit-log-of-the-server", "\n".join(lines) + "\n")
    server.check_unharmed()

"""The configuration file: what it takes, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from est_client.coaps import CoapsConnector
from est_client.connectors import ConnectorOptions, connector_for
from est_protocol.errors import ConfigurationError
from est_protocol.operations import RESERVED_SEGMENTS
from est_protocol.secure_channel.policy import TlsVersion
from est_server.config import ServerConfig, load_config
from est_server.config.reader import Place, read_table
from est_server.config.settings import Combination, LogFormat
from est_server.profiles import OperationalKey
from est_server.stores.postgresql import PostgresqlAddress

SMALLEST = """
[default]
authorizers = ["device-list"]
[authorities.default]
certificate = "ca.pem"
key = "ca.key"
[store]
path = "est.sqlite"
[https]
certificate = "https.pem"
key = "https.key"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ca.pem", "ca.key", "https.pem", "https.key"):
        (tmp_path / name).touch()
    return tmp_path


def load(folder: Path, text: str) -> ServerConfig:
    file = folder / "est-server.toml"
    file.write_text(text)
    return load_config(file)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "est-server.toml"))
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'est-server.toml'}: ")


def test_the_smallest_file_listens_on_loopback_only(folder: Path) -> None:
    config = load(folder, SMALLEST)
    assert config.https is not None
    assert (config.https.listen, config.https.port) == ("127.0.0.1", 8443)
    assert config.coaps is None
    assert config.default.require_pop_linking is False


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = load(folder, SMALLEST)
    assert config.store.path == folder / "est.sqlite"
    assert config.authorities["default"].key == folder / "ca.key"


def test_every_kind_of_value(folder: Path) -> None:
    config = load(
        folder,
        SMALLEST
        + """
        port = 0
        [https.tls]
        minimum_version = "TLS1_3"
        [labels.meters]
        authorizers = ["device-list", "other"]
        combination = "first-of"
        [labels.meters.profile]
        validity = "12h"
        subject = "CN={udid},O=Example"
        subject_alt_names = ["dns:{udid}.example"]
        operational_key = "listed"
        key_usages = ["digital_signature", "key_agreement"]
        extended_key_usages = ["client-auth", "1.3.6.1.5.5.7.3.17"]
        [service]
        authorizer_timeout = 3
        [log]
        format = "json"
        file = "audit.log"
        """,
    )
    assert config.https is not None
    assert config.https.port == 0
    assert config.https.tls.minimum_version is TlsVersion.TLS1_3
    meters = config.labels["meters"]
    assert meters.combination is Combination.FIRST_OF
    assert meters.profile.validity == timedelta(hours=12)
    assert meters.profile.operational_key is OperationalKey.LISTED
    assert meters.profile.key_usages == {"digital_signature", "key_agreement"}
    assert meters.profile.extended_key_usages == (
        ExtendedKeyUsageOID.CLIENT_AUTH,
        x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17"),
    )
    assert config.service.authorizer_timeout == 3.0
    assert config.log.format is LogFormat.JSON


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "[https] prot: unknown key"),
        ("port = '8443'", "[https] port: expected a whole number, not '8443'"),
        ("port = true", "[https] port: expected a whole number"),
        ("port = 70000", "[https] port: 70000 is not between 0 and 65535"),
        ("listen = 1", "[https] listen: expected a string, not 1"),
        ("tls = 1", "[https] tls: expected a table"),
        ("[https.tls]\nminimum_version = 'SSL3'", "[https.tls] minimum_version: 'SSL3' is none"),
        ("[nonsense]", "top level nonsense: unknown key"),
        ("[log]\nformat = 'xml'", "[log] format: 'xml' is none of text, json"),
        ("[service]\nauthorizer_timeout = 0", "[service] authorizer_timeout: 0 is not greater"),
        (
            "[service]\nissuance_timeout = 30",
            "[service] issuance_timeout: is not less than the lease of [store.bounds], 30 s",
        ),
        (
            "[store.bounds]\nlease = '20s'",
            "[service] issuance_timeout: is not less than the lease of [store.bounds], 20 s",
        ),
        ("[trust]\nmanufacturers = 'gone'", "[trust] manufacturers: there is no directory"),
        (
            "[coaps]\ncertificate = 'gone.pem'\nkey = 'ca.key'",
            "[coaps] certificate: there is no file",
        ),
        ("[coaps]\ncertificate = 'ca.pem'", "[coaps] key: is missing"),
        ("[labels.a]\nrequire_pop_linking = 1", "[labels.a] require_pop_linking: expected true or"),
        ("[labels.a]\nauthorizers = 'x'", "[labels.a] authorizers: expected a list"),
        ("[labels.a]\nauthorizers = [1]", "[labels.a] authorizers: expected a string, not 1"),
        (
            "[labels.a.profile]\nvalidity = '90'",
            "[labels.a.profile] validity: expected a duration",
        ),
        (
            "[labels.a.profile]\nvalidity = '999999999w'",
            "[labels.a.profile] validity: 999999999w is longer",
        ),
        (
            "[labels.a.profile]\nvalidity = '36526d'",
            "[labels.a.profile] validity: 36526d is longer than 100 years",
        ),
        (
            "[labels.a.approval]\nlifetime = '9000000d'",
            "[labels.a.approval] lifetime: 9000000d is longer than 100 years",
        ),
        (
            "[labels.a.profile]\nextended_key_usages = ['x']",
            "[labels.a.profile] extended_key_usages: 'x' is neither",
        ),
        ("[labels.a]\nauthority = 'b'", "[labels.a] authority: there is no table [authorities.b]"),
        (
            "[authorities.b]\ncertificate = 'ca.pem'\nkey = 'ca.key'\ncrl_name = 'default'",
            "[authorities.b] crl_name: is what the CRL of [authorities.default] is called",
        ),
        ("[labels.'a/b']", "[labels.a/b]: 'a/b' cannot be a label: it is two path segments"),
        ("[labels.'']", "[labels.]: '' cannot be a label"),
        ("[labels.'..']", "[labels...]: '..' cannot be a label"),
        ("[labels.'100%']", "[labels.100%]: '100%' cannot be a label: after % come two"),
        ("[labels.'%FF']", "[labels.%FF]: '%FF' cannot be a label: it is not UTF-8"),
        ("[labels.'%2E']", "[labels.%2E]: '.' cannot be a label"),
        ('[labels."a\\u0007"]', "[labels.a\x07]: 'a\\x07' cannot be a label: it has control"),
        ("[labels.a]\n[labels.'%61']", "[labels.%61]: the label 'a' is there twice"),
        ("[", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(folder: Path, text: str, message: str) -> None:
    assert refusal(folder, SMALLEST + text).startswith(message)


@pytest.mark.conformance("PA-03")
def test_transmission_parameters_can_be_changed_at_both_ends(folder: Path) -> None:
    lines = '[coaps]\ncertificate = "https.pem"\nkey = "https.key"\n'
    config = load(folder, f"{SMALLEST}{lines}[coaps.transmission]\nack_timeout = 9.0\n")
    assert config.coaps is not None
    client = connector_for("coaps://h", ConnectorOptions(ack_timeout=9.0))
    assert isinstance(client, CoapsConnector)
    assert client.parameters == config.coaps.transmission
    assert config.coaps.transmission.max_transmit_wait == 9.0 * 31 * 1.5


def test_octets_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "est-server.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        load_config(tmp_path / "est-server.toml")


@pytest.mark.conformance("HTTP-05")
@pytest.mark.parametrize("segment", sorted(RESERVED_SEGMENTS))
def test_a_label_is_not_named_like_an_operation(folder: Path, segment: str) -> None:
    assert refusal(folder, f"{SMALLEST}\n[labels.{segment}]").startswith(
        f"[labels.{segment}]: {segment!r} cannot be a label: a label must not be named like an op"
    )


def test_nothing_to_serve(folder: Path) -> None:
    assert "nothing to serve" in refusal(folder, SMALLEST.split("[https]")[0])


def test_proxies_and_crls_listen_beside_one_another(folder: Path) -> None:
    config = load(folder, SMALLEST + '[proxy]\nlisten = "127.0.0.1"\n[crl]\n')
    assert config.proxy is not None
    assert config.crl is not None
    assert config.crl.listen == config.proxy.listen
    assert config.crl.port != config.proxy.port


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ("[crl]\nport = 8443", "[crl] port: 8443 is taken by [https], which listens on 127.0.0.1"),
        (
            '[proxy]\nlisten = "0.0.0.0"\nport = 8443',
            "[proxy] port: 8443 is taken by [https], which listens on 127.0.0.1",
        ),
        (
            '[proxy]\nlisten = "::0"\n[crl]\nlisten = "::1"\nport = 8080',
            "[crl] port: 8080 is taken by [proxy], which listens on ::0",
        ),
        (
            '[proxy]\nlisten = "est"\nport = 1\n[crl]\nlisten = "EST"\nport = 1',
            "[crl] port: 1 is taken by [proxy], which listens on est",
        ),
        (
            '[proxy]\nlisten = ""\nport = 1\n[crl]\nport = 1',
            "[crl] port: 1 is taken by [proxy], which listens on all addresses",
        ),
    ],
)
def test_two_listeners_at_one_address_are_named(folder: Path, tables: str, complaint: str) -> None:
    assert refusal(folder, f"{SMALLEST}\n{tables}\n") == complaint


@pytest.mark.parametrize(
    "tables",
    [
        '[crl]\nlisten = "::"\nport = 8443',
        '[crl]\nlisten = "127.0.0.2"\nport = 8443',
        '[proxy]\nlisten = "127.0.0.1"\nport = 0\n[crl]\nport = 0',
        '[proxy]\nunix_socket = "est.sock"\nport = 8443',
        '[coaps]\ncertificate = "https.pem"\nkey = "https.key"\nport = 8443',
    ],
)
def test_listeners_that_are_not_in_each_others_way(folder: Path, tables: str) -> None:
    assert load(folder, f"{SMALLEST}\n{tables}\n").https is not None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.toml: No such file"):
        load_config(tmp_path / "gone.toml")


def test_what_a_part_rejects_is_placed_too() -> None:
    @dataclass(frozen=True)
    class Part:
        low: int = 1
        high: float = 2.0

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(ConfigurationError, match=r"^f: \[part\]: low is above high$"):
        read_table(Part, {"low": 3}, Place(Path("f"), "part"))
    assert read_table(Part, {"high": 9}, Place(Path("f"))) == Part(high=9.0)


# -- The store --------------------------------------------------------------------------------

ON_POSTGRESQL = SMALLEST.replace('[store]\npath = "est.sqlite"\n', "")
URL = "postgresql://est:hunter2@db.example.com/est"


def test_a_store_on_postgresql_is_one_line_or_a_table(folder: Path) -> None:
    short = load(folder, f'store = "{URL}"\n{ON_POSTGRESQL}')
    long = load(folder, f'{ON_POSTGRESQL}\n[store]\nurl = "{URL}"\n')
    assert short.store == long.store
    assert str(short.store.location) == "postgresql://est@db.example.com/est"


def test_the_password_of_a_store_is_not_shown(folder: Path) -> None:
    assert "hunter2" not in repr(load(folder, f'store = "{URL}"\n{ON_POSTGRESQL}'))
    for broken in (
        URL.replace("postgresql", "mysql"),
        URL.replace("@", "@["),
        URL.replace("/est", "/est%zz"),
    ):
        for text in (
            f'store = "{broken}"\n{ON_POSTGRESQL}',
            f'{ON_POSTGRESQL}\n[store]\nurl = "{broken}"\n',
        ):
            assert "hunter2" not in refusal(folder, text)


@pytest.mark.parametrize("lines", ["", f'path = "est.sqlite"\nurl = "{URL}"'])
def test_a_store_is_in_one_place(folder: Path, lines: str) -> None:
    assert "either path or url" in refusal(folder, f"{ON_POSTGRESQL}\n[store]\n{lines}\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('answer_timeout = "5s"', "longer than lock_timeout"),
        ('lock_timeout = "10s"', "longer than lock_timeout"),
        ('connect_timeout = "1s"', "at least 2 seconds"),
        ("readers = 0", "not greater than zero"),
    ],
)
def test_times_of_a_database_that_do_not_go_together(folder: Path, line: str, words: str) -> None:
    text = f'{ON_POSTGRESQL}\n[store]\nurl = "{URL}"\n[store.postgresql]\n{line}\n'
    assert words in refusal(folder, text)


@pytest.mark.parametrize(
    ("url", "mode", "root"),
    [
        ("postgresql://db.example.com/est", "verify-full", "system"),
        ("postgresql://db.example.com/est?sslrootcert=ca.pem", "verify-full", "ca.pem"),
        ("postgresql://db.example.com/est?sslmode=require", "require", None),
        ("postgresql://localhost,db.example.com/est", "verify-full", "system"),
        ("postgresql://192.0.2.1/est", "verify-full", "system"),
        ("postgresql:///est?service=main", "verify-full", "system"),
        ("postgresql://127.0.0.1,[::1],localhost/est", None, None),
        ("postgresql:///est?host=/run/postgresql", None, None),
        ("postgresql:///est", None, None),
    ],
)
def test_over_a_network_the_database_has_to_prove_who_it_is(
    url: str, mode: str | None, root: str | None
) -> None:
    parameters = PostgresqlAddress(url).parameters()
    assert (parameters.get("sslmode"), parameters.get("sslrootcert")) == (mode, root)


def test_a_database_that_may_be_anybody_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    PostgresqlAddress("postgresql:///est?host=/run/postgresql").warn_of_weakness()
    PostgresqlAddress(URL).warn_of_weakness()
    assert not caplog.records
    PostgresqlAddress(f"{URL}?sslmode=require").warn_of_weakness()
    [record] = caplog.records
    assert "sslmode=require does not make sure" in record.getMessage()
    assert "hunter2" not in record.getMessage()

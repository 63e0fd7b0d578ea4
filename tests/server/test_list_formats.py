"""Formats of device lists beside CSV, and how the format of a list is found."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, BinaryIO

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import ConfigurationError
from est_protocol.keys import PublicKey, SigningKey, spki_der, spki_sha256
from est_server.device_records import ListedDevice, ListRow
from est_server.devices import list_format
from est_server.devices.json_lines import JsonLines
from est_server.devices.list_format import (
    EntrySignatures,
    ListLimits,
    RejectedRow,
    load_format,
    recognize_format,
)
from est_server.devices.microchip_manifest import MicrochipManifest
from est_server.devices.refusals import ListRefused, SignatureRejected
from est_server.devices.signatures.entries import SignedEntries
from est_server.devices.signatures.jws import encode_base64url
from est_server.devices.signatures.signers import ListSigner
from tests.pki import PRESENT, make_key, make_leaf
from tests.server.conftest import OpenStore
from tests.server.ledger_values import FakeClock, digest
from tests.server.lists import SIGNED, UNSIGNED, csv_list, import_octets, sign

Row = ListRow | RejectedRow

CHIP_MAKER = make_leaf(None, "chip maker")
CHIPS = ListSigner("chips", certificates=CHIP_MAKER.chain)
FROM_CHIP_MAKER = replace(SIGNED, signers=(CHIPS,))


# -- JSON Lines -----------------------------------------------------------------------------------


def json_lines(text: str | bytes, limits: ListLimits | None = None) -> list[Row]:
    octets = text.encode() if isinstance(text, str) else text
    return list(JsonLines().read(io.BytesIO(octets), limits or ListLimits()))


def test_json_lines_have_the_members_that_csv_has_as_columns() -> None:
    key = make_key("listed").public_key()
    text = base64.b64encode(spki_der(key)).decode()
    rows = [
        {"udid": "d-1", "spki_sha256": digest("1").hex(), "model": "Ü", "note": ""},
        {"public_key": text},
    ]
    octets = "\ufeff" + "\r\n\n".join(json.dumps(row) for row in rows)
    assert json_lines(octets) == [
        ListRow.of(1, ListedDevice("d-1", digest("1"), {"model": "Ü"})),
        ListRow.of(3, ListedDevice(spki_sha256(key).hex(), spki_sha256(key))),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ("{} {}", "not JSON"),
        ('{"udid": 7}', "udid is not a string"),
        ('{"Model": "x"}', "lower case"),
        ('{"udid": "a", "udid": "b"}', "stands twice"),
        ('{"model": NaN}', "no number"),
        ('{"model": {"a": {"b": "c"}}}', "not a string"),
        ("[" * 60_000, "not JSON"),
        ("{}", "neither a public key"),
        ('{"spki_sha256": "00"}', "64 hexadecimal"),
        ('{"spki_sha256": "%s", "udid": "\\ud800"}' % ("0" * 64), "printable"),
        (json.dumps({f"a{n}": "" for n in range(33)}), "more than 32 members"),
        (b'{"udid": "\xff"}', "neither a public key"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason(line: str | bytes, words: str) -> None:
    octets = line.encode() if isinstance(line, str) else line
    good = b'{"spki_sha256": "%s"}' % (b"ab" * 32)
    bad, row = json_lines(octets + b"\n" + good)
    assert isinstance(bad, RejectedRow)
    assert words in bad.reason
    assert isinstance(row, ListRow)
    assert (bad.line, row.line) == (1, 2)


def test_a_line_of_any_length_is_not_kept_in_memory() -> None:
    rows = json_lines("{" + " " * 5000 + "}\n{}\n", ListLimits(row_octets=1000))
    assert [row.line for row in rows] == [1, 2]
    assert isinstance(rows[0], RejectedRow)
    assert "1000 octets" in rows[0].reason


def test_json_lines_have_as_many_rows_as_they_may() -> None:
    with pytest.raises(ConfigurationError, match="more than 2 rows"):
        json_lines("{}\n" * 3, ListLimits(rows=2))
    with pytest.raises(ConfigurationError, match="empty"):
        json_lines(" \n\n")


@given(st.binary(max_size=300))
def test_no_octets_make_the_reader_of_json_lines_fail(octets: bytes) -> None:
    try:
        json_lines(octets, ListLimits(row_octets=100, rows=20))
    except ConfigurationError:
        return


# -- manifests ------------------------------------------------------------------------------------


def jwk(key: PublicKey, kid: str = "0", **members: object) -> dict[str, object]:
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers, octets = key.public_numbers(), (key.curve.key_size + 7) // 8
    name = {"secp256r1": "P-256", "secp384r1": "P-384"}.get(key.curve.name, key.curve.name)
    x, y = (encode_base64url(n.to_bytes(octets, "big")) for n in (numbers.x, numbers.y))
    return {"kid": kid, "kty": "EC", "crv": name, "x": x, "y": y, **members}


def element(number: int, **members: object) -> dict[str, object]:
    return {
        "version": 1,
        "model": "ATECC608A",
        "partNumber": "ATECC608A-MAH22",
        "manufacturer": {"organizationName": "Chips Inc", "organizationalUnitName": "x"},
        "groupId": "359SCE55NV38H3CB",
        "provisioningTimestamp": "2019-01-24T16:35:23.473Z",
        "uniqueId": f"0123f1822c38dd7a{number:02x}",
        "publicKeySet": {"keys": [jwk(key_of(number)), jwk(make_key("slot 1").public_key(), "1")]},
    } | members


def key_of(number: int) -> ec.EllipticCurvePublicKey:
    return make_key(f"chip {number}").public_key()


def entry(
    payload: object, *, key: SigningKey = CHIP_MAKER.key, **header: object
) -> dict[str, object]:
    """A signed entry of a manifest."""
    parts = [{"alg": "ES256", "typ": "JWT", "kid": "x", "x5t#S256": "y"} | header, payload]
    head, body = (encode_base64url(json.dumps(part).encode()) for part in parts)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
    signature = encode_base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    unique = payload.get("uniqueId") if isinstance(payload, dict) else None
    return {
        "payload": body,
        "protected": head,
        "header": {"uniqueId": unique},
        "signature": signature,
    }


def manifest(*entries: object) -> bytes:
    return json.dumps(entries, indent=2).encode()


def read_manifest(octets: bytes, limits: ListLimits | None = None) -> list[Row]:
    signatures = SignedEntries((CHIPS,), PRESENT)
    return list(MicrochipManifest().read(io.BytesIO(octets), limits or ListLimits(), signatures))


def reason(payload: object) -> str:
    [row] = read_manifest(manifest(entry(payload)))
    assert isinstance(row, RejectedRow), row
    return row.reason


def test_an_entry_lists_the_identity_key_of_an_element() -> None:
    assert read_manifest(manifest(entry(element(1)), entry(element(2)))) == [
        ListRow.of(
            number,
            ListedDevice(
                f"0123f1822c38dd7a{number:02x}",
                spki_sha256(key_of(number)),
                {
                    "model": "ATECC608A",
                    "part_number": "ATECC608A-MAH22",
                    "group_id": "359SCE55NV38H3CB",
                    "provisioned_at": "2019-01-24T16:35:23.473Z",
                    "manufacturer": "Chips Inc",
                },
            ),
        )
        for number in (1, 2)
    ]


def test_the_identity_key_may_be_another_one() -> None:
    octets = manifest(entry(element(1)))
    [row] = read_manifest(octets, ListLimits(manifest_key="1"))
    assert isinstance(row, ListRow)
    assert row.spki_sha256 == spki_sha256(make_key("slot 1").public_key())
    [missing] = read_manifest(octets, ListLimits(manifest_key="7"))
    assert isinstance(missing, RejectedRow)
    assert "not exactly one of its 2 keys" in missing.reason
    only = element(1, publicKeySet={"keys": [jwk(key_of(1), "5")]})
    assert isinstance(read_manifest(manifest(entry(only)))[0], ListRow)


def test_an_rsa_key_is_an_identity_too() -> None:
    numbers = rsa.RSAPublicNumbers(e=65537, n=2**2047 + 3)
    n = encode_base64url(numbers.n.to_bytes(256, "big"))
    of_rsa = {"kid": "0", "kty": "RSA", "n": n, "e": "AQAB"}
    [row] = read_manifest(manifest(entry(element(1, publicKeySet={"keys": [of_rsa]}))))
    assert isinstance(row, ListRow)
    assert row.spki_sha256 == spki_sha256(numbers.public_key())
    weak = of_rsa | {"n": encode_base64url((2**1023 + 1).to_bytes(128, "big"))}
    assert "1024 bits is too weak" in reason(element(1, publicKeySet={"keys": [weak]}))


def test_a_certificate_of_the_key_has_to_be_over_it() -> None:
    def chain(name: str) -> list[str]:
        leaf = make_leaf(None, name, key=make_key(name)).chain[0]
        return [base64.b64encode(leaf.public_bytes(Encoding.DER)).decode()]

    good = jwk(key_of(1), x5c=chain("chip 1"))
    assert isinstance(
        read_manifest(manifest(entry(element(1, publicKeySet={"keys": [good]}))))[0], ListRow
    )
    bad = jwk(key_of(1), x5c=chain("chip 2"))
    assert "over another key" in reason(element(1, publicKeySet={"keys": [bad]}))


def off_the_curve() -> dict[str, object]:
    return jwk(key_of(1)) | {"y": encode_base64url(bytes(31) + b"\x01")}


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (element(1, uniqueId=""), "udid"),
        (element(1, uniqueId=7), "uniqueId is missing"),
        (element(1, uniqueId="a\x00"), "printable"),
        (element(1, model="x" * 2000), "model"),
        (element(1, publicKeySet={"keys": []}), "no public keys"),
        (element(1, publicKeySet=None), "no public keys"),
        (element(1, publicKeySet={"keys": ["x"]}), "no public keys"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1)), jwk(key_of(2))]}), "not exactly one"),
        (element(1, publicKeySet={"keys": [off_the_curve()]}), "no point on P-256"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1), x="AA")]}), "not 32 octets"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1), crv="P-224")]}), "P-224"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1), crv="secp256k1")]}), "secp256k1"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1), crv=["P-256"])]}), "not accepted"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1), kty="oct")]}), "oct"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1), x5c=["x"])]}), "something else"),
        (element(1, publicKeySet={"keys": [jwk(key_of(1), x5c="x")]}), "no list"),
        ([], "not a JSON object"),
    ],
)
def test_a_bad_entry_is_rejected_with_its_reason(payload: object, words: str) -> None:
    assert words in reason(payload)


def changed(number: int, **members: object) -> dict[str, object]:
    return entry(element(number)) | members


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (changed(2, payload=entry(element(3))["payload"]), "none of the configured"),
        (changed(2, signature=entry(element(3))["signature"]), "none of the configured"),
        (changed(2, signature=""), "none of the configured"),
        (changed(2, header={"uniqueId": "another"}), "another one than in it"),
        (changed(2, header=None), "another one than in it"),
        (entry(element(2), alg="none"), "'none'"),
        (entry(element(2), alg="HS256"), "'HS256'"),
        (entry(element(2), alg=["ES256"]), "is not one of"),
        (entry(element(2), jwk=jwk(key_of(2))), "its own key"),
        (entry(element(2), b64=False, crit=["b64"]), "not to be base64url"),
        (entry(element(2), key=make_key("stranger")), "none of the configured"),
        ({}, "payload is missing"),
        (7, "not a JSON object"),
    ],
)
async def test_a_manifest_with_one_bad_entry_is_refused_as_a_whole(
    open_store: OpenStore, clock: FakeClock, bad: object, words: str
) -> None:
    octets = manifest(entry(element(1)), bad, entry(element(3)))
    async with open_store(clock) as store:
        with pytest.raises(ListRefused, match="1 of 3 rows are no good") as caught:
            await import_octets(store, octets, FROM_CHIP_MAKER)
        [rejection] = caught.value.rejections
        assert rejection.line == 2
        assert words in rejection.reason
        assert [device async for device in store.devices()] == []
        assert await store.lists() == []


async def test_a_manifest_is_signed_entry_by_entry(open_store: OpenStore, clock: FakeClock) -> None:
    octets = manifest(entry(element(1)), entry(element(2)))
    async with open_store(clock) as store:
        report = await import_octets(store, octets, FROM_CHIP_MAKER)
        assert (report.added, report.description.signer) == (2, "chips")
        again = await import_octets(store, octets, FROM_CHIP_MAKER)
        assert (again.added, again.unchanged) == (0, 2)


async def test_the_entries_of_a_manifest_are_all_by_the_same_signer(
    open_store: OpenStore, clock: FakeClock
) -> None:
    other = make_leaf(None, "other maker")
    rules = replace(SIGNED, signers=(CHIPS, ListSigner("other", certificates=other.chain)))
    octets = manifest(entry(element(1)), entry(element(2), key=other.key))
    async with open_store(clock) as store:
        with pytest.raises(ListRefused) as caught:
            await import_octets(store, octets, rules)
    assert "signed by 'other', those before it by 'chips'" in caught.value.rejections[0].reason


async def test_a_signature_over_the_whole_manifest_is_the_one_that_counts(
    open_store: OpenStore, clock: FakeClock
) -> None:
    octets = manifest(entry(element(1)), entry(element(2)))
    async with open_store(clock) as store:
        with pytest.raises(SignatureRejected, match="other octets"):
            await import_octets(store, manifest(entry(element(1))), SIGNED, signature=sign(octets))
        report = await import_octets(store, octets, SIGNED, signature=sign(octets))
        assert report.description.signer == "acme"


async def test_an_empty_manifest_is_signed_by_nobody(
    open_store: OpenStore, clock: FakeClock
) -> None:
    async with open_store(clock) as store:
        with pytest.raises(ConfigurationError, match="empty"):
            await import_octets(store, b"[]", FROM_CHIP_MAKER)


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (manifest(entry(element(1)))[:-2], "cut short"),
        (manifest(entry(element(1)), entry(element(2)))[:-900], "entry 2 of the list is not JSON"),
        (manifest(entry(element(1))) + b"x", "after the end"),
        (b"[{}{}]", "not followed by a comma"),
        (b"[{},]", "entry 2 of the list is not JSON"),
        (b"[", "not JSON"),
        (b'[{"a": 1, "a": 2}]', "stands twice"),
        (b"[NaN]", "no number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["' + b"x" * 200_000, "more than 65536 octets"),
        (b'["' + b"x" * 200_000 + b'"]', "more than 65536 octets"),
        (b"[\xff]", "not UTF-8"),
        (b"{}", "no JSON array"),
    ],
)
def test_a_damaged_manifest_cannot_be_read(octets: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_manifest(octets)


def test_a_manifest_has_as_many_entries_as_it_may() -> None:
    with pytest.raises(ConfigurationError, match="more than 1 entries"):
        read_manifest(b"[1, 2]", ListLimits(rows=1))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_entries_are_found_wherever_the_pieces_end(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("est_server.devices.json_array._CHUNK", size)
    octets = b"\xef\xbb\xbf \r\n" + manifest(entry(element(1)), "ü", entry(element(2))) + b"\n"
    rows = read_manifest(octets)
    assert [type(row) for row in rows] == [ListRow, RejectedRow, ListRow]


@given(st.binary(max_size=300))
def test_no_octets_make_the_reader_of_manifests_fail(octets: bytes) -> None:
    try:
        read_manifest(b"[" + octets, ListLimits(row_octets=100, rows=20))
    except ConfigurationError:
        return


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(_JSON, st.sampled_from(sorted(element(1))))
def test_no_payload_makes_the_reader_of_manifests_fail(value: Any, name: str) -> None:
    [row] = read_manifest(manifest(entry(element(1) | {name: value})))
    assert row.line == 1
    [row] = read_manifest(manifest(entry(element(1)) | {"header": value, "signature": value}))
    assert isinstance(row, RejectedRow)
    keys = {"keys": [jwk(key_of(1)) | {name: value for name in ("x", "kty", "x5c", "crv")}]}
    [row] = read_manifest(manifest(entry(element(1, publicKeySet=keys))))
    assert isinstance(row, RejectedRow)


# -- which format it is ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (csv_list(1), "csv"),
        (b'\xef\xbb\xbf"public_key",model\r\n', "csv"),
        (b'\n {"udid": "', "jsonl"),
        (b"\xef\xbb\xbf[\n  {", "microchip-manifest"),
    ],
)
def test_a_list_is_recognized_by_how_it_begins(head: bytes, name: str) -> None:
    assert type(recognize_format(head)) is type(load_format(name))


@pytest.mark.parametrize("head", [b"", b"\xff\xfe", b"udid,model\n", b"PK\x03\x04"])
def test_what_is_no_list_is_not_recognized(head: bytes) -> None:
    with pytest.raises(ConfigurationError, match="none of csv, jsonl, microchip-manifest"):
        recognize_format(head)


def test_a_format_that_is_not_installed() -> None:
    with pytest.raises(ConfigurationError, match="no list format 'xlsx'; known are csv, jsonl"):
        load_format("xlsx")


class Colons:
    """A format of somebody else's: a UDID and a hash, with a colon between them."""

    signs_entries = False

    def recognizes(self, head: bytes) -> bool:
        return head.startswith(b"#colons")

    def read(
        self, file: BinaryIO, limits: ListLimits, signatures: EntrySignatures | None
    ) -> Iterator[Row]:
        for number, line in enumerate(file, start=1):
            if number > 1:
                udid, _, digits = line.decode().strip().partition(":")
                yield ListRow.of(number, ListedDevice(udid, bytes.fromhex(digits)))
            if digits_end(line):
                return


def digits_end(line: bytes) -> bool:
    return line == b"#end\n"


def install(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """As installing a package with this entry point would."""
    point = EntryPoint(name, value, list_format.GROUP)
    monkeypatch.setattr(list_format, "entry_points", lambda group: [point])


async def test_formats_are_plug_ins(
    open_store: OpenStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "colons", f"{__name__}:Colons")
    octets = f"#colons\nd-1:{digest('1').hex()}\n".encode()
    async with open_store(clock) as store:
        report = await import_octets(store, octets, SIGNED, signature=sign(octets))
        assert report.added == 1
        assert await store.find_by_udid("d-1") is not None


async def test_a_format_that_leaves_octets_unread_is_refused(
    open_store: OpenStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a signature could be over more than what is imported."""
    install(monkeypatch, "colons", f"{__name__}:Colons")
    async with open_store(clock) as store:
        with pytest.raises(ListRefused, match="after the end"):
            await import_octets(store, b"#end\nd-1:00\n", UNSIGNED, format_name="colons")


def test_a_built_in_format_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "csv", f"{__name__}:Colons")
    assert not isinstance(load_format("csv"), Colons)


def test_a_format_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "broken", "no.such.module:Format")
    with pytest.raises(ConfigurationError, match=r"broken of no\.such\.module"):
        load_format("broken")


def test_a_list_of_two_formats_is_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "csv2", "est_server.devices.csv_list:CsvList")
    with pytest.raises(ConfigurationError, match="csv or csv2; say --format"):
        recognize_format(csv_list(1))

"""Device lists as CSV files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import ConfigurationError, MessageError
from est_protocol.keys import PublicKey, spki_der, spki_sha256
from est_server.device_records import ListedDevice, ListRow
from est_server.devices.csv_list import CsvList
from est_server.devices.list_format import ListLimits, RejectedRow
from est_server.devices.plain_rows import is_p256_spki
from tests.pki import make_key

KEY = make_key("listed").public_key()
HASH = spki_sha256(KEY)
BASE64 = base64.b64encode(spki_der(KEY)).decode()
PEM = KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
OTHER_HASH = "ab" * 32


def read(text: str | bytes, limits: ListLimits | None = None) -> list[ListRow | RejectedRow]:
    octets = text.encode() if isinstance(text, str) else text
    return list(CsvList().read(io.BytesIO(octets), limits or ListLimits()))


def device(text: str | bytes) -> ListedDevice:
    (row,) = read(text)
    assert isinstance(row, ListRow), row
    return row.device


def reason(text: str | bytes, limits: ListLimits | None = None) -> str:
    (row,) = read(text, limits)
    assert isinstance(row, RejectedRow), row
    return row.reason


@pytest.mark.parametrize(
    "cell",
    [
        BASE64,
        f'"{PEM}"',
        f'"{PEM.strip()}"',
        '"{}"'.format(PEM.replace("\n", "\r\n")),
        PEM.replace("\n", "\\n"),
        f'"{BASE64[:64]}\n{BASE64[64:]}"',
        f" {BASE64} ",
    ],
)
def test_a_key_may_be_written_in_these_ways(cell: str) -> None:
    assert device(f"udid,public_key\nd-1,{cell}\n") == ListedDevice("d-1", HASH)


@pytest.mark.parametrize(
    "cell", [HASH.hex(), HASH.hex().upper(), HASH.hex(":"), f'"{HASH.hex(":").upper()}"']
)
def test_a_hash_may_be_written_in_these_ways(cell: str) -> None:
    assert device(f"udid,spki_sha256\nd-1,{cell}\n") == ListedDevice("d-1", HASH)


@pytest.mark.parametrize(
    "text",
    [
        f"public_key\n{BASE64}\n",
        f"udid,public_key\n,{BASE64}\n",
        f"spki_sha256\n{HASH.hex(':')}\n",
        f"public_key,spki_sha256\n{BASE64},{HASH.hex()}\n",
        f"public_key,spki_sha256\n{BASE64},\n",
        f"public_key,spki_sha256\n,{HASH.hex()}\n",
    ],
)
def test_without_a_udid_it_is_the_hash_of_the_key(text: str) -> None:
    assert device(text) == ListedDevice(HASH.hex(), HASH)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_make_no_difference(mark: str, end: str) -> None:
    text = f"{mark}udid,spki_sha256{end}{end}dév-1,{HASH.hex()}{end}"
    assert read(text) == [ListRow.of(3, ListedDevice("dév-1", HASH))]


def test_the_last_line_needs_no_end() -> None:
    assert device(f"udid,spki_sha256\nd-1,{HASH.hex()}") == ListedDevice("d-1", HASH)


def test_other_columns_are_attributes() -> None:
    text = f'model,udid,spki_sha256,owner_2\n"x, ""y""",d-1,{HASH.hex()},\n'
    assert device(text).attributes == {"model": 'x, "y"'}


def test_a_line_number_is_where_the_row_starts() -> None:
    text = f'udid,public_key\nd-1,"{PEM}"\n\nd-2,nonsense\nd-3,{BASE64}\n'
    lines = PEM.count("\n")
    rows = read(text)
    assert [row.line for row in rows] == [2, 2 + lines + 2, 2 + lines + 3]
    assert isinstance(rows[1], RejectedRow)


def encoded(key: PublicKey) -> str:
    return base64.b64encode(spki_der(key)).decode()


def with_point(point: bytes, head: str = "3059301306072a8648ce3d020106082a8648ce3d030107") -> str:
    """base64 of a SubjectPublicKeyInfo on P-256 with this point."""
    octets = bytes.fromhex(head) + bytes([3, len(point) + 1, 0]) + point
    return base64.b64encode(bytes([0x30, len(octets) - 2]) + octets[2:]).decode()


_POINT = spki_der(KEY)[-65:]
COMPRESSED = with_point(bytes([2 + _POINT[-1] % 2]) + _POINT[1:33])
OFF_THE_CURVE = with_point(_POINT[:-1] + bytes([_POINT[-1] ^ 1]))
HYBRID = with_point(bytes([6 + _POINT[-1] % 2]) + _POINT[1:])
INFINITY = with_point(b"\0")

#: A SubjectPublicKeyInfo for X25519: a key that cannot sign.
X25519 = base64.b64encode(bytes.fromhex("302a300506032b656e032100") + b"\x09" * 32).decode()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("d-1", "1 cells where there are 2 columns"),
        (f"d-1,{HASH.hex()},x", "3 cells"),
        ("d-1,", "neither a public key nor its hash"),
        ("d-1,abc", "64 hexadecimal digits"),
        ("d-1," + "g" * 64, "64 hexadecimal digits"),
        ("d-1," + "\uff11" * 64, "64 hexadecimal digits"),
        (f"{'d' * 129},{HASH.hex()}", "printable"),
        (f"d\x00,{HASH.hex()}", "printable"),
        (f'"d\n1",{HASH.hex()}', "printable"),
        (f'"d"1,{HASH.hex()}', "not CSV"),
        (f'"d-1,{HASH.hex()}', "not CSV"),
        (f"d\r1,{HASH.hex()}", "not CSV"),
    ],
    ids=[
        "cell-missing",
        "cell-too-many",
        "no-key",
        "hash-short",
        "hash-no-hex",
        "hash-wide-digits",
        "udid-long",
        "udid-nul",
        "udid-newline",
        "text-after-quote",
        "quote-open",
        "carriage-return",
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(row: str, words: str) -> None:
    assert words in reason(f"udid,spki_sha256\n{row}\n")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("nonsense", "neither a PEM public key nor base64"),
        (BASE64[:-4], "neither a PEM"),
        (BASE64 + "!", "neither a PEM"),
        ("\u00e9", "neither a PEM"),
        (PEM.replace("PUBLIC", "PRIVATE").replace("\n", "\\n"), "neither a PEM"),
        (X25519, "keys of kind x25519"),
        (COMPRESSED, "uncompressed point"),
        (HYBRID, "uncompressed point"),
        (OFF_THE_CURVE, "valid key"),
        (INFINITY, "valid key"),
        (f"-----BEGIN PUBLIC KEY-----\\n{COMPRESSED}\\n-----END PUBLIC KEY-----", "uncompressed"),
        (encoded(ec.generate_private_key(ec.SECP224R1()).public_key()), "secp224r1"),
        (encoded(ec.generate_private_key(ec.BrainpoolP256R1()).public_key()), "brainpool"),
        (encoded(ec.generate_private_key(ec.SECP256K1()).public_key()), "ec-secp256k1"),
    ],
)
def test_a_bad_key_is_rejected_with_its_reason(cell: str, words: str) -> None:
    assert words in reason(f"udid,public_key\nd-1,{cell}\n")


def test_a_short_rsa_key_is_too_weak() -> None:
    # 2**1023 + 1 is no product of two primes, but only its length is looked at.
    weak = rsa.RSAPublicNumbers(e=65537, n=2**1023 + 1).public_key()
    assert "RSA key of 1024 bits is too weak" in reason(f"public_key\n{encoded(weak)}\n")


def test_ed25519_and_long_rsa_keys_are_listed() -> None:
    long = rsa.RSAPublicNumbers(e=65537, n=2**2048 - 1942289).public_key()
    edwards = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key()
    rows = read(f"public_key\n{encoded(long)}\n{encoded(edwards)}\n")
    assert [type(row) for row in rows] == [ListRow, ListRow]


def test_a_key_and_a_hash_that_do_not_agree_are_rejected() -> None:
    text = f"public_key,spki_sha256\n{BASE64},{OTHER_HASH}\n"
    assert "is not the hash" in reason(text)


def test_octets_that_are_not_utf8_reject_their_row_only() -> None:
    rows = read(
        b"udid,spki_sha256\nd\xff,%s\nd-2,%s\n" % (HASH.hex().encode(), OTHER_HASH.encode())
    )
    assert [type(row) for row in rows] == [RejectedRow, ListRow]


def test_reading_goes_on_after_a_quote_that_is_never_closed() -> None:
    filler = f"d,{HASH.hex()}\n" * 20
    text = f'udid,spki_sha256\n"d-1,{HASH.hex()}\n{filler}d-2,{OTHER_HASH}\n'
    rows = read(text, ListLimits(row_octets=200))
    assert isinstance(rows[0], RejectedRow)
    assert "200 octets" in rows[0].reason
    assert rows[-1] == ListRow.of(23, ListedDevice("d-2", bytes.fromhex(OTHER_HASH)))


def test_a_line_that_is_too_long_is_rejected_and_counts_as_one() -> None:
    text = f"udid,spki_sha256\n{'x' * 1000}\nd-2,{OTHER_HASH}\n"
    rows = read(text, ListLimits(row_octets=200))
    assert [row.line for row in rows] == [2, 3]
    assert isinstance(rows[1], ListRow)


def test_an_attribute_is_limited_and_printable() -> None:
    header = "spki_sha256,model\n"
    assert "model" in reason(f"{header}{HASH.hex()},{'x' * 1025}\n")
    assert "model" in reason(f"{header}{HASH.hex()},a\x07b\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"udid,model\n", "public_key or spki_sha256"),
        (b"d-1,abc\n", "public_key or spki_sha256"),
        (b"spki_sha256,Model\n", "column 2"),
        (b"spki_sha256,\n", "column 2"),
        (b"spki_sha256,model,model\n", "two columns model"),
        (b"udid,udid,spki_sha256\n", "two columns udid"),
        (b"spki_sha256," + b",".join(b"a%d" % n for n in range(40)), "32 columns"),
        (b"spki_sha256," + b"a" * 65, "column 2"),
        ("spki_sha256\n".encode("utf-16"), "public_key or spki_sha256"),
        (b'"spki_sha256\n', "not CSV"),
        (b"x" * 70_000, "octets"),
    ],
)
def test_a_file_without_a_usable_header_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read(text)


def test_a_list_with_too_many_rows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="more than 2 rows"):
        read("spki_sha256\n" + "x\n" * 3, ListLimits(rows=2))


def test_a_list_that_cannot_be_read_is_refused() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(ConfigurationError, match="Input/output error"):
        list(CsvList().read(io.BufferedReader(Broken()), ListLimits()))


def rows_or_refusal(octets: bytes) -> Iterator[ListRow | RejectedRow]:
    try:
        yield from CsvList().read(io.BytesIO(octets), ListLimits(row_octets=300, rows=50))
    except (ConfigurationError, MessageError):
        return


_PIECES = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\r", b",", b'"', b"\xff", b"\x00", b"d-1", b"\xef\xbb\xbf"),
        *(text.encode() for text in (HASH.hex(), BASE64, PEM, PEM.replace("\n", "\\n"))),
    ]
)


@given(st.binary(max_size=400))
def test_no_octets_make_the_reader_fail(octets: bytes) -> None:
    list(rows_or_refusal(octets))


@given(
    st.sampled_from([b"udid,public_key", b"spki_sha256", b"udid,public_key,spki_sha256,model"]),
    st.lists(_PIECES | st.binary(max_size=20), max_size=30),
)
def test_no_rows_make_the_reader_fail(header: bytes, pieces: list[bytes]) -> None:
    lines = set()
    for row in rows_or_refusal(header + b"\n" + b"".join(pieces)):
        assert row.line not in lines
        lines.add(row.line)
        if isinstance(row, ListRow):
            assert row.device.spki_sha256 == HASH
            assert row.device.udid.isprintable()
            assert 1 <= len(row.device.udid) <= 128


_CELLS = st.sampled_from(
    [
        *("", " ", "d-1", "d-2 ", "dév", "\t", "\x07", "x" * 129, "\ud800"),
        *(HASH.hex(), HASH.hex().upper(), HASH.hex(":"), f" {HASH.hex()}", HASH.hex()[:-2] + "  "),
        *(OTHER_HASH, BASE64, f"{BASE64} ", BASE64[:-1] + "=", BASE64[:-4], BASE64.lower()),
        *(COMPRESSED, OFF_THE_CURVE, encoded(make_key("other").public_key())),
    ]
)
_HEADERS = [
    "udid,public_key",
    "spki_sha256,model",
    "model,udid,spki_sha256,owner",
    "udid,public_key,spki_sha256,model",
]


@given(
    st.sampled_from(_HEADERS),
    st.lists(st.lists(_CELLS | st.text(max_size=5), max_size=5), max_size=4),
    st.sampled_from(["\n", "\r\n"]),
)
def test_the_quick_way_reads_what_the_careful_way_reads(
    header: str, rows: list[list[str]], end: str
) -> None:
    lines = [header, *(",".join(cells) for cells in rows), ""]
    octets = end.join(lines).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        quick = read(octets)
        patch.setattr("est_server.devices.plain_rows._LINE_LIMIT", -1)
        assert read(octets) == quick


@pytest.mark.parametrize("size", [1, 2, 3, 50, 1000])
def test_rows_are_found_wherever_the_pieces_end(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"d-{n},{HASH.hex()},x" for n in range(20)]
    rows[3:3] = [f'"d-3",{HASH.hex()},"a\nb"', "", f"d-4,{HASH.hex()},x"]
    octets = b"\xef\xbb\xbf" + "\n".join(["udid,spki_sha256,model", *rows]).encode()
    whole = read(octets)
    assert len(whole) == 22
    monkeypatch.setattr("est_server.devices.list_lines._CHUNK", size)
    assert read(octets) == whole


@given(st.integers(min_value=0, max_value=2**256 - 1), st.booleans())
def test_points_are_judged_as_openssl_judges_them(x: int, on_curve: bool) -> None:
    field = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    y = pow((x**3 - 3 * x + b) % field, (field + 1) // 4, field) if on_curve else x
    spki = spki_der(KEY)[:27] + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    try:
        load_der_public_key(spki)
    except ValueError:
        valid = False
    else:
        valid = True
    assert is_p256_spki(spki) is valid

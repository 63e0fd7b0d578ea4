"""Who is believed to have signed a list, and with what."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import ConfigurationError
from est_protocol.keys import SigningKey
from est_protocol.signatures import DIGEST_OIDS
from est_server.devices.refusals import SignatureRejected
from est_server.devices.signatures.algorithms import Algorithm, Scheme, verifies_digest
from est_server.devices.signatures.detached import MAX_OCTETS, read_signature
from est_server.devices.signatures.jws import encode_base64url
from est_server.devices.signatures.signed import Signed
from est_server.devices.signatures.signers import ListSigner
from est_server.devices.signatures.signing import CmsSigning, JwsSigning
from tests.pki import CLIENT_AUTH, PRESENT, make_ca, make_key, make_leaf, make_name
from tests.server.lists import ACME, MAKER, csv_list, sign

LIST = csv_list(1, 2)
KINDS = pytest.mark.parametrize("kind", [CmsSigning, JwsSigning])
Members = Mapping[str, object]
Kind = type[CmsSigning] | type[JwsSigning]
DAY = timedelta(days=1)


def judge(
    signature: bytes, *signers: ListSigner, octets: bytes = LIST, now: datetime = PRESENT
) -> Signed:
    detached = read_signature(signature)
    for at in range(0, len(octets), 7):
        detached.update(octets[at : at + 7])
    return detached.verify(signers or (ACME,), now)


def refusal(signature: bytes, *signers: ListSigner, octets: bytes = LIST) -> str:
    with pytest.raises(SignatureRejected) as caught:
        judge(signature, *signers, octets=octets)
    return str(caught.value)


def self_signed(key: SigningKey) -> x509.Certificate:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(make_name("signer"))
        .issuer_name(make_name("signer"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(PRESENT - DAY)
        .not_valid_after(PRESENT + DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, algorithm)
    )


RSA_KEY = rsa.generate_private_key(65537, 2048)
SIGNING_KEYS: dict[str, SigningKey] = {
    "p256": make_key("signer"),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": RSA_KEY,
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


# -- what is believed ---------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("name", sorted(SIGNING_KEYS))
def test_what_is_signed_verifies(kind: Kind, name: str) -> None:
    key = SIGNING_KEYS[name]
    certificate = self_signed(key)
    if kind is JwsSigning and name == "ed25519":
        with pytest.raises(ConfigurationError, match="use --cms"):
            sign(LIST, key, (certificate,), kind=kind)
        return
    signature = sign(LIST, key, (certificate,), kind=kind)
    by_certificate = ListSigner("maker", certificates=(certificate,))
    by_key = ListSigner("maker", public_key=key.public_key())
    assert judge(signature, by_certificate) == judge(signature, by_key) == Signed("maker", PRESENT)
    for other in (LIST[:-1], LIST + b"\n", csv_list(2, 1), b""):
        refusal(signature, by_certificate, octets=other)


@KINDS
def test_a_signature_is_of_the_signer_whose_key_made_it(kind: Kind) -> None:
    other = ListSigner("other", public_key=make_key("other").public_key())
    assert judge(sign(LIST, kind=kind), other, ACME).signer == "acme"
    assert "none of the configured" in refusal(sign(LIST, kind=kind), other)


@KINDS
def test_a_list_that_was_signed_by_somebody_else_again_is_refused(kind: Kind) -> None:
    stranger = make_leaf(None, "stranger")
    again = sign(LIST, stranger.key, stranger.chain, kind=kind)
    assert "none of the configured" in refusal(again)


@KINDS
def test_a_certificate_that_names_the_signer_but_has_another_key_is_nobody(kind: Kind) -> None:
    impostor = make_leaf(None, "list maker", key=make_key("impostor"))
    assert "none of the configured" in refusal(sign(LIST, impostor.key, impostor.chain, kind=kind))


# -- validity -----------------------------------------------------------------------------------

EXPIRED = make_leaf(None, "expired", not_before=PRESENT - 9 * DAY, not_after=PRESENT - 2 * DAY)
PAST = PRESENT - 5 * DAY


@KINDS
def test_an_expired_signer_is_refused_unless_the_signing_time_is_to_count(kind: Kind) -> None:
    signature = sign(LIST, EXPIRED.key, EXPIRED.chain, kind=kind, now=PAST)
    assert "expired on" in refusal(signature, ListSigner("old", certificates=EXPIRED.chain))
    lenient = ListSigner("old", certificates=EXPIRED.chain, judge_at_signing_time=True)
    assert judge(signature, lenient) == Signed("old", PAST)
    late = sign(LIST, EXPIRED.key, EXPIRED.chain, kind=kind, now=PRESENT)
    assert "expired on" in refusal(late, lenient)
    early = sign(LIST, EXPIRED.key, EXPIRED.chain, kind=kind, now=PRESENT - 10 * DAY)
    assert "is valid from" in refusal(early, lenient)


@KINDS
def test_a_signature_from_the_future_is_refused(kind: Kind) -> None:
    assert "later on" in refusal(sign(LIST, kind=kind, now=PRESENT + DAY))
    assert judge(sign(LIST, kind=kind, now=PRESENT + timedelta(minutes=5)))


# -- signers that are known by a CA ----------------------------------------------------------------

ROOT = make_ca("list root")
ISSUING = make_ca("list issuing", ROOT)
CERTIFIED = make_leaf(ISSUING, "lists", usage=ExtendedKeyUsageOID.CODE_SIGNING)
BY_CA = ListSigner("by ca", anchors=(ROOT.certificate,), subject=make_name("lists"))


@KINDS
def test_whoever_the_ca_certified_is_the_signer(kind: Kind) -> None:
    signature = sign(LIST, CERTIFIED.key, CERTIFIED.chain, kind=kind)
    assert judge(signature, BY_CA).signer == "by ca"
    narrow = ListSigner(
        "narrow",
        anchors=(ROOT.certificate,),
        extended_key_usages=frozenset({ExtendedKeyUsageOID.CODE_SIGNING}),
        subject=make_name("lists"),
    )
    assert judge(signature, narrow).signer == "narrow"


@KINDS
@pytest.mark.parametrize(
    ("signer", "words"),
    [
        (
            ListSigner(
                "usage",
                anchors=(ROOT.certificate,),
                extended_key_usages=frozenset({ExtendedKeyUsageOID.EMAIL_PROTECTION}),
            ),
            "lacks the extended key usage",
        ),
        (
            ListSigner("name", anchors=(ROOT.certificate,), subject=make_name("others")),
            "has not the subject",
        ),
        (
            ListSigner(
                "another", anchors=(make_ca("another").certificate,), subject=make_name("lists")
            ),
            "does not lead to a CA",
        ),
    ],
)
def test_who_the_ca_did_not_certify_for_it_is_refused(
    kind: Kind, signer: ListSigner, words: str
) -> None:
    assert words in refusal(sign(LIST, CERTIFIED.key, CERTIFIED.chain, kind=kind), signer)


@KINDS
def test_the_chain_has_to_come_along(kind: Kind) -> None:
    signature = sign(LIST, CERTIFIED.key, CERTIFIED.chain[:1], kind=kind)
    assert "does not lead to a CA" in refusal(signature, BY_CA)


@KINDS
def test_a_ca_itself_signs_no_lists(kind: Kind) -> None:
    signature = sign(LIST, ISSUING.key, (ISSUING.certificate,), kind=kind)
    assert "key usage" in refusal(signature, BY_CA)


@KINDS
def test_a_self_signed_certificate_in_the_signature_proves_nothing(kind: Kind) -> None:
    impostor = make_leaf(None, "lists")
    signature = sign(LIST, impostor.key, (*impostor.chain, ROOT.certificate), kind=kind)
    assert "does not lead to a CA" in refusal(signature, BY_CA)


# -- what a signer may be ----------------------------------------------------------------------


def test_a_signer_is_known_in_exactly_one_way() -> None:
    key = make_key("signer").public_key()
    with pytest.raises(ConfigurationError, match="exactly one"):
        ListSigner("nobody")
    with pytest.raises(ConfigurationError, match="exactly one"):
        ListSigner("two", certificates=MAKER.chain, public_key=key)
    with pytest.raises(ConfigurationError, match="known by a CA"):
        ListSigner("usage", public_key=key, extended_key_usages=frozenset({CLIENT_AUTH}))
    with pytest.raises(ConfigurationError, match="no time"):
        ListSigner("time", public_key=key, judge_at_signing_time=True)


def test_a_short_rsa_key_signs_nothing() -> None:
    short = rsa.generate_private_key(65537, 1024)
    with pytest.raises(ConfigurationError, match="1024 bits is too weak"):
        ListSigner("short", public_key=short.public_key())
    with pytest.raises(ConfigurationError, match="1024 bits is too weak"):
        sign(LIST, short, (self_signed(short),))


def test_a_key_on_a_strange_curve_signs_nothing() -> None:
    strange = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(ConfigurationError, match="secp256k1"):
        ListSigner("strange", public_key=strange.public_key())


# -- CMS ----------------------------------------------------------------------------------------


def altered(change: Callable[[Any], None], octets: bytes = LIST) -> bytes:
    """The DER of a good signature, changed."""
    pem = sign(octets).split(b"-----")[2]
    info = cms.ContentInfo.load(base64.b64decode(pem))
    change(info["content"])
    der: bytes = info.dump(force=True)
    return der


def test_der_and_pem_are_the_same() -> None:
    assert judge(altered(lambda _: None)) == judge(sign(LIST))


def sha1(signed: Any) -> None:
    signed["signer_infos"][0]["digest_algorithm"] = {"algorithm": "sha1"}


def sha1_signature(signed: Any) -> None:
    signed["signer_infos"][0]["signature_algorithm"] = {"algorithm": "sha1_ecdsa"}


def attached(signed: Any) -> None:
    signed["encap_content_info"]["content"] = LIST


def without_attributes(signed: Any) -> None:
    del signed["signer_infos"][0]["signed_attrs"]


def without_digest(signed: Any) -> None:
    attributes = signed["signer_infos"][0]["signed_attrs"]
    kept = [a for a in attributes if a["type"].native != "message_digest"]
    signed["signer_infos"][0]["signed_attrs"] = kept


def with_a_digest_too_many(signed: Any) -> None:
    attributes = list(signed["signer_infos"][0]["signed_attrs"])
    twin = next(a for a in attributes if a["type"].native == "message_digest")
    signed["signer_infos"][0]["signed_attrs"] = [*attributes, twin]


def of_another_type(signed: Any) -> None:
    signed["encap_content_info"]["content_type"] = "1.2.3.4"


def nobody(signed: Any) -> None:
    signed["signer_infos"] = []


def hmac_signature(signed: Any) -> None:
    signed["signer_infos"][0]["signature_algorithm"] = {"algorithm": "1.2.840.113549.2.9"}


def der_of(signature: bytes) -> bytes:
    return base64.b64decode(signature.split(b"-----")[2]) if b"-----" in signature else signature


def signed_by_several(*signatures: bytes) -> bytes:
    """One CMS file with the signatures of several."""
    infos, certificates = [], []
    for signature in signatures:
        signed = cms.ContentInfo.load(der_of(signature))["content"]
        infos += list(signed["signer_infos"])
        certificates += list(signed["certificates"])

    def together(signed: Any) -> None:
        signed["signer_infos"] = infos
        signed["certificates"] = certificates

    return altered(together)


def test_one_believed_signature_of_several_is_enough_and_names_who_is_believed() -> None:
    unknown = sign(LIST, make_key("unknown"), (self_signed(make_key("unknown")),))
    over_another_list = sign(csv_list(9))
    good = sign(LIST)
    weak = altered(sha1)
    for others in ([unknown], [over_another_list], [weak], [unknown, over_another_list, weak]):
        for several in ([*others, good], [good, *others]):
            assert judge(signed_by_several(*several)).signer == ACME.name


def test_no_number_of_signatures_that_are_not_believed_is_enough() -> None:
    unknown = sign(LIST, make_key("unknown"), (self_signed(make_key("unknown")),))
    other = sign(LIST, make_key("other"), (self_signed(make_key("other")),))
    over_another_list = sign(csv_list(9))
    words = "none of the configured"
    assert words in refusal(signed_by_several(unknown, other))
    assert words in refusal(signed_by_several(over_another_list, unknown))
    assert words in refusal(signed_by_several(unknown, over_another_list))
    assert "over other octets" in refusal(signed_by_several(over_another_list, over_another_list))


def test_the_digest_of_one_signer_does_not_serve_the_signature_of_another() -> None:
    def mixed(signed: Any) -> None:
        theirs = cms.ContentInfo.load(der_of(sign(csv_list(9))))["content"]
        [own], [other] = list(signed["signer_infos"]), list(theirs["signer_infos"])
        own["signature"] = other["signature"].native
        signed["signer_infos"] = [own, other]

    assert "none of the configured" in refusal(altered(mixed))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (sha1, "sha1, which is not SHA-2"),
        (sha1_signature, "not accepted: sha1_ecdsa"),
        (attached, "not detached"),
        (without_attributes, "no signed attributes"),
        (without_digest, "no message digest"),
        (with_a_digest_too_many, "twice"),
        (of_another_type, "another type of content"),
        (nobody, "not 1 to 16 signatures"),
        (hmac_signature, "not accepted"),
    ],
)
def test_a_cms_signature_that_is_never_believed(change: Callable[[Any], None], words: str) -> None:
    assert words in refusal(altered(change))


def test_attributes_that_were_changed_do_not_verify() -> None:
    def claim(signed: Any) -> None:
        for attribute in signed["signer_infos"][0]["signed_attrs"]:
            if attribute["type"].native == "message_digest":
                digest = hashes.Hash(hashes.SHA256())
                digest.update(csv_list(9))
                attribute["values"] = [digest.finalize()]

    assert "none of the configured" in refusal(altered(claim), octets=csv_list(9))


@pytest.mark.parametrize(
    "octets",
    [b"", b"0", b"\x30\x80", b"\x30\x03\x02\x01\x01", b"-----BEGIN CMS-----\n-----END CMS-----\n"],
)
def test_what_is_no_signature_is_refused(octets: bytes) -> None:
    with pytest.raises(SignatureRejected):
        read_signature(octets)


def test_a_signature_of_any_size_is_not_read() -> None:
    with pytest.raises(SignatureRejected, match="octets"):
        read_signature(b"\x30" * (MAX_OCTETS + 1))


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_damaged_cms_signature_is_refused(place: int, damage: int) -> None:
    octets = bytearray(altered(lambda _: None))
    octets[place % len(octets)] ^= damage
    try:
        judged = judge(bytes(octets))
    except SignatureRejected:
        return
    # The signature is over neither the names of algorithms nor the certificates beside it.
    assert judged.signer == "acme"


# -- JWS ----------------------------------------------------------------------------------------


def protected(**members: object) -> str:
    return encode_base64url(json.dumps(members).encode())


def jws(
    octets: bytes = LIST, members: Members | None = None, *, key: SigningKey = MAKER.key
) -> bytes:
    """A detached JWS, whose header is what the test wants."""
    members = {"alg": "ES256", **(members or {})}
    head = protected(**members)
    payload = octets if members.get("b64") is False else encode_base64url(octets).encode()
    signing_input = head.encode() + b"." + payload
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        signature = key.sign(signing_input, pss, hashes.SHA256())
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(key.sign(signing_input, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{head}..{encode_base64url(signature)}".encode()


@pytest.mark.parametrize(
    "members", [{}, {"b64": False, "crit": ["b64"]}, {"b64": True, "crit": ["b64"]}]
)
@pytest.mark.parametrize("octets", [b"", b"a", b"ab", b"abc", LIST])
def test_payloads_are_signed_in_base64url_or_as_they_are(
    octets: bytes, members: dict[str, object]
) -> None:
    assert judge(jws(octets, members), octets=octets) == Signed("acme", None)
    assert "none of" in refusal(jws(octets, members), octets=octets + b"x")


def test_the_json_serialization_is_the_same() -> None:
    head, _, signature = jws().decode().split(".")
    text = json.dumps({"protected": head, "signature": signature})
    assert judge(text.encode()) == judge(jws())


def test_a_salt_of_no_length_verifies_nothing() -> None:
    key, sha256 = RSA_KEY.public_key(), next(iter(DIGEST_OIDS.values()))
    for octets in (-5, 2**31, 2**70):
        algorithm = Algorithm(Scheme.PSS, sha256, octets)
        assert not verifies_digest(key, algorithm, bytes(key.key_size // 8), bytes(32))


def test_a_certificate_with_a_key_that_nobody_knows_signed_nothing() -> None:
    ca = make_ca("lists")
    der = make_leaf(ca, "signer").chain[0].public_bytes(Encoding.DER)
    known, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d027f")
    strange = base64.b64encode(der.replace(known, unknown)).decode()
    by_ca = ListSigner("ca", anchors=(ca.certificate,), subject=make_name("signer"))
    assert "none of the configured" in refusal(jws(LIST, {"x5c": [strange]}), by_ca)


def test_pss_verifies() -> None:
    signer = ListSigner("pss", public_key=RSA_KEY.public_key())
    assert judge(jws(LIST, {"alg": "PS256"}, key=RSA_KEY), signer).signer == "pss"
    assert "none of" in refusal(jws(LIST, {"alg": "RS256"}, key=RSA_KEY), signer)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"alg": "none"}, "'none'"),
        ({"alg": "HS256"}, "'HS256'"),
        ({"alg": "RS1"}, "'RS1'"),
        ({"alg": None}, "'None'"),
        ({"alg": "EdDSA"}, "sign with CMS"),
        ({"jwk": {"kty": "EC"}}, "names its own key (jwk)"),
        ({"jku": "https://attacker.example"}, "names its own key (jku)"),
        ({"x5u": "https://attacker.example"}, "names its own key (x5u)"),
        ({"b64": False}, "critical"),
        ({"crit": ["b64"]}, "critical"),
        ({"crit": ["exp"], "exp": 1}, "critical"),
        ({"crit": []}, "critical"),
        ({"b64": "no", "crit": ["b64"]}, "neither true nor false"),
        ({"iat": "yesterday"}, "no time"),
        ({"iat": 1e300}, "no time"),
        ({"iat": True}, "no time"),
        ({"x5c": "x"}, "no list of certificates"),
        ({"x5c": ["x"]}, "something else"),
        ({"x5c": [7]}, "something else"),
    ],
)
def test_a_jws_that_is_never_believed(members: dict[str, object], words: str) -> None:
    assert words in refusal(jws(LIST, members))


def test_no_signature_is_no_signature() -> None:
    head = protected(alg="none")
    assert "'none'" in refusal(f"{head}..".encode())
    assert "none of the configured" in refusal(f"{protected(alg='ES256')}..".encode())


def test_the_public_key_is_no_password() -> None:
    """The confusion of a public key with the secret of a MAC (RFC 8725 section 2.1)."""
    pem = MAKER.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for alg in ("HS256", "ES256"):
        head = protected(alg=alg)
        mac = hmac.HMAC(pem, hashes.SHA256())
        mac.update(f"{head}.{encode_base64url(LIST)}".encode())
        refusal(f"{head}..{encode_base64url(mac.finalize())}".encode())


def test_an_algorithm_goes_with_its_curve() -> None:
    signer = ListSigner("p384", public_key=SIGNING_KEYS["p384"].public_key())
    good = sign(LIST, SIGNING_KEYS["p384"], (self_signed(SIGNING_KEYS["p384"]),), kind=JwsSigning)
    assert judge(good, signer)
    assert "none of" in refusal(jws(), signer)


def test_an_attached_jws_is_refused() -> None:
    head, _, signature = jws().decode().split(".")
    whole = f"{head}.{encode_base64url(LIST)}.{signature}"
    assert "not detached" in refusal(whole.encode())
    text = json.dumps({"protected": head, "payload": "", "signature": signature})
    assert "not flattened and detached" in refusal(text.encode())


@pytest.mark.parametrize(
    "text", ["a", "a.b", "....", "{}", '{"protected": 1, "signature": 2}', "é.."]
)
def test_what_is_no_jws_is_refused(text: str) -> None:
    with pytest.raises(SignatureRejected):
        read_signature(text.encode())


def test_base64url_has_one_form() -> None:
    good = jws().decode()
    for bad in (good + "=", good + "A", good.replace("..", "==.."), good[:-1] + "+"):
        with pytest.raises(SignatureRejected):
            judge(bad.encode())


# -- openssl ------------------------------------------------------------------------------------


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=120)


def write_signer(directory: Path, key: SigningKey) -> tuple[Path, Path]:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert load_pem_private_key(pem, None)
    (directory / "signer.key").write_bytes(pem)
    (directory / "signer.pem").write_bytes(self_signed(key).public_bytes(Encoding.PEM))
    (directory / "list.csv").write_bytes(LIST)
    return directory / "signer.key", directory / "signer.pem"


@pytest.mark.skipif(which("openssl") is None, reason="there is no openssl")
@pytest.mark.parametrize("name", ["p256", "p384", "rsa"])
def test_openssl_verifies_what_is_signed_here(tmp_path: Path, name: str) -> None:
    key = SIGNING_KEYS[name]
    _, certificate = write_signer(tmp_path, key)
    signature = tmp_path / "list.p7s"
    signature.write_bytes(sign(LIST, key, (self_signed(key),)))
    verify = ("cms", "-verify", "-binary", "-inform", "PEM", "-in", signature, "-purpose", "any")
    where = ("-CAfile", certificate, "-certfile", certificate, "-out", tmp_path / "out")
    openssl(*verify, *where, "-content", tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(LIST + b"x")
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*verify, *where, "-content", tmp_path / "list.csv")


@pytest.mark.skipif(which("openssl") is None, reason="there is no openssl")
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-keyid",),
        ("-nocerts",),
        ("-nosmimecap",),
        ("-md", "sha512"),
        ("-outform", "DER"),
    ],
)
@pytest.mark.parametrize("name", ["p256", "p384", "rsa", "rsa-pss"])
def test_what_openssl_signs_verifies(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    key = SIGNING_KEYS[name.removesuffix("-pss")]
    key_file, certificate = write_signer(tmp_path, key)
    if name == "rsa-pss":
        options += ("-keyopt", "rsa_padding_mode:pss")
    out = tmp_path / "list.p7s"
    arguments = ("cms", "-sign", "-binary", "-md", "sha256", "-in", tmp_path / "list.csv")
    form = () if "-outform" in options else ("-outform", "PEM")
    signer = ("-signer", certificate, "-inkey", key_file, "-out", out)
    openssl(*arguments, *signer, *options, *form)
    maker = ListSigner("maker", public_key=key.public_key())
    # openssl has signed by the machine's clock, on which the present is past.
    assert judge(out.read_bytes(), maker, now=datetime.now(UTC)).signer == "maker"
    refusal(out.read_bytes(), maker, octets=LIST + b"x")


@pytest.mark.skipif(which("openssl") is None, reason="there is no openssl")
@pytest.mark.parametrize(
    ("options", "words"), [(("-md", "sha1"), "sha1"), (("-noattr",), "no signed attributes")]
)
def test_weak_signatures_of_openssl_are_refused(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    key_file, certificate = write_signer(tmp_path, RSA_KEY)
    out = tmp_path / "list.p7s"
    signer = ("-signer", certificate, "-inkey", key_file, "-outform", "PEM", "-out", out)
    openssl("cms", "-sign", "-binary", "-in", tmp_path / "list.csv", *options, *signer)
    maker = ListSigner("maker", public_key=RSA_KEY.public_key())
    assert words in refusal(out.read_bytes(), maker)

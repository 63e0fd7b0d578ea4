"""The table csr_attributes of est-server.toml: what it means, and what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from est_protocol.csr_attributes import ExtensionTemplate, NameAttributeTemplate
from est_protocol.csr_wishes import CsrWishes
from est_protocol.errors import ConfigurationError
from est_protocol.oid_names import EXTENDED_KEY_USAGE, KEY_USAGE, SUBJECT_ALT_NAME
from est_server.authorities.local import LocalAuthority
from est_server.authorities.signers.key import KeySigner
from est_server.config.csr_attributes import CsrAttributesSettings
from est_server.config.reader import Place, read_table
from est_server.csr_attributes import AskedAttributes
from est_server.interfaces import ClientIdentity, EnrollmentRequest, IssuanceGrant, LabelPolicy
from tests.pki import make_ca


def load(text: str) -> CsrAttributesSettings:
    place = Place(Path("est-server.toml"), "default.csr_attributes")
    return read_table(CsrAttributesSettings, tomllib.loads(text), place)


def test_by_default_nothing_is_asked_for() -> None:
    settings = load("")
    assert settings.enforce
    assert not settings.wishes()


def test_everything_that_can_be_asked_for() -> None:
    settings = load(
        """
        enforce = false
        challenge_password = true
        est_identity_linking = true
        otp_challenge = true
        key = "rsa-3072"
        signature_algorithms = ["sha256WithRSAEncryption", "1.2.840.113549.1.1.10"]
        subject = ["CN", "OU=pumps", "serialNumber", "2.5.4.97"]
        subject_alt_names = ["dns:www.myServer.com", "ip:", "email:", "uri:", "dns:"]
        key_usages = ["digital_signature", "key_agreement"]
        extended_key_usages = ["client-auth"]
        attributes = ["macAddress", "1.2.3.4"]
        [extensions.certificatePolicies]
        [extensions."1.3.6.1.4.1.32473.1"]
        critical = true
        value = "0500"
        """
    )
    assert not settings.enforce
    assert settings.wishes() == CsrWishes(
        link=True,
        identity_linking=True,
        otp_challenge=True,
        key="rsa-3072",
        signature_algorithms=("1.2.840.113549.1.1.11", "1.2.840.113549.1.1.10"),
        subject=(
            (NameAttributeTemplate("2.5.4.3", None),),
            (NameAttributeTemplate("2.5.4.11", b"\x0c\x05pumps"),),
            (NameAttributeTemplate("2.5.4.5", None),),
            (NameAttributeTemplate("2.5.4.97", None),),
        ),
        extensions=(
            ExtensionTemplate(
                SUBJECT_ALT_NAME,
                False,
                b"\x30\x1a\x82\x10www.myServer.com\x87\x00\x81\x00\x86\x00\x82\x00",
            ),
            ExtensionTemplate(KEY_USAGE, True, bytes.fromhex("03020388")),
            ExtensionTemplate(EXTENDED_KEY_USAGE, False, bytes.fromhex("300a06082b06010505070302")),
            ExtensionTemplate("2.5.29.32", False, None),
            ExtensionTemplate("1.3.6.1.4.1.32473.1", True, b"\x05\x00"),
        ),
        attributes=("1.3.6.1.1.1.1.22", "1.2.3.4"),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("key = 'ec-p257'", "'ec-p257' is no kind of key"),
        ("key = 'rsa-77'", "'rsa-77' is no kind of key"),
        ("signature_algorithms = ['md5']", "'md5' is neither a dotted OID nor one of ecdsa-with"),
        ("subject = ['XX=1']", "'XX' is neither a dotted OID nor one of CN"),
        ("subject = ['C=Germany']", "subject 'C=Germany': "),
        ("subject = ['CN=']", "subject 'CN=': "),
        ("subject_alt_names = ['www.example']", "'www.example' is not dns:, uri:"),
        ("subject_alt_names = ['ip:no']", "subject_alt_names 'ip:no': "),
        ("key_usages = ['sign']", "no such key usage: sign"),
        ("key_usages = ['crl_sign']\n[extensions.keyUsage]", "an extension is asked for twice"),
        ("[extensions.keyUsage]\nvalue = 'xx'", "hex"),
        ("[extensions.subjectAltName]\nvalue = '0500'", "subjectAltName"),
        ("attributes = ['nothing']", "'nothing' is neither"),
    ],
)
def test_what_makes_no_sense_keeps_the_server_from_starting(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    assert str(caught.value).startswith("est-server.toml: [default.csr_attributes]")
    assert why in str(caught.value)


async def _nobody(request: EnrollmentRequest, client: ClientIdentity) -> IssuanceGrant:
    raise NotImplementedError


def _policy(wishes: CsrWishes, *, linking: bool = False, enforce: bool = True) -> LabelPolicy:
    ca = make_ca("operational")
    return LabelPolicy(
        LocalAuthority(KeySigner(ca.key), ca.certificate, ca.issuers),
        _nobody,
        require_pop_linking=linking,
        csr_wishes=wishes,
        enforce_csr_wishes=enforce,
    )


def test_no_client_is_held_to_what_it_has_to_ignore() -> None:
    """RFC 9908 section 4: beside a template, the signature algorithms of the list are void."""
    algorithms = ("1.2.840.10045.4.3.3",)
    alone = AskedAttributes.of(_policy(CsrWishes(signature_algorithms=algorithms)))
    assert alone.enforced.signature_algorithms == algorithms
    beside = AskedAttributes.of(_policy(CsrWishes(key="ec", signature_algorithms=algorithms)))
    assert beside.enforced == CsrWishes(key="ec")


def test_what_is_not_enforced_is_asked_for_all_the_same() -> None:
    asked = AskedAttributes.of(_policy(CsrWishes(key="ec"), enforce=False))
    assert asked.der is not None
    assert not asked.enforced


def test_wishes_that_cannot_be_said_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="no kind of key"):
        AskedAttributes.of(_policy(CsrWishes(key="dsa")))

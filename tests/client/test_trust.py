"""The trust databases of a client."""

from __future__ import annotations

from pathlib import Path

import pytest

from est_client.device_keys import chain_to_pem
from est_client.trust import TrustDatabase
from est_protocol.credentials import AnchorSet
from est_protocol.errors import ConfigurationError
from tests.pki import make_ca

ONE, OTHER = make_ca("one").certificate, make_ca("other").certificate


@pytest.mark.conformance("AUTH-19")
def test_what_is_in_a_file_is_explicit(tmp_path: Path) -> None:
    path = tmp_path / "anchors.pem"
    path.write_bytes(chain_to_pem([ONE, OTHER]))
    assert TrustDatabase.load(path) == TrustDatabase(explicit=(ONE, OTHER))


def test_a_file_that_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    for name in ("empty.pem", "absent.pem"):
        with pytest.raises(ConfigurationError, match=name):
            TrustDatabase.load(tmp_path / name)


@pytest.mark.conformance("TLS-07")
def test_an_anchor_in_both_databases_is_explicit() -> None:
    anchors = TrustDatabase(explicit=(ONE,), implicit=(ONE, OTHER)).anchors()
    assert anchors.kind_of(ONE) is AnchorSet.EXPLICIT
    assert anchors.kind_of(OTHER) is AnchorSet.IMPLICIT


@pytest.mark.conformance("AUTH-19", "CA-12")
def test_what_is_learned_takes_the_place_of_everything() -> None:
    assert TrustDatabase((ONE,), (OTHER,)).learned([OTHER]) == TrustDatabase(explicit=(OTHER,))

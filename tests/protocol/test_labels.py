"""Labels: what may be one, and which spellings are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from est_protocol.errors import ConfigurationError
from est_protocol.labels import LONGEST_LABEL, check_label, path_segment, read_label
from est_protocol.operations import RESERVED_SEGMENTS

#: RFC 3986 section 3.3, all that stands for itself in a path segment.
PCHARS = "ABCXYZabcxyz0189-._~!$&'()*+,;=:@"

LABELS = st.text(
    st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=LONGEST_LABEL // 4
).filter(lambda text: text not in {*RESERVED_SEGMENTS, ".", ".."})


@pytest.mark.conformance("HTTP-04")
@pytest.mark.parametrize(
    ("written", "label"),
    [
        (PCHARS, PCHARS),
        ("factory-2", "factory-2"),
        ("f%61ctory", "factory"),
        ("caf%C3%A9", "caf\u00e9"),
        ("caf%c3%a9", "caf\u00e9"),
        ("caf\u00e9", "caf\u00e9"),
        ("a%2Fb", "a/b"),
        ("100%25", "100%"),
        ("a b", "a b"),
        ("a%20b", "a b"),
        ("...", "..."),
        ("%7Bid%7D", "{id}"),
    ],
)
def test_spellings_of_one_label(written: str, label: str) -> None:
    assert read_label(written) == label
    assert read_label(path_segment(label)) == label


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "no path"),
        (".", "no path"),
        ("%2e%2E", "no path"),
        ("a/b", "two path segments"),
        ("100%", "after %"),
        ("%zz", "after %"),
        ("%FF", "not UTF-8"),
        ("a%00", "control"),
        ("a\n", "control"),
        ("\ud800", "not Unicode"),
        ("%63acerts", "operation"),
        ("x" * 256, "longer than 255"),
        ("\u00e9" * 128, "longer than 255"),
    ],
)
def test_what_cannot_be_a_label(written: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_label(written)


@pytest.mark.conformance("HTTP-05")
@pytest.mark.parametrize("segment", sorted(RESERVED_SEGMENTS))
def test_a_label_is_no_operation(segment: str) -> None:
    with pytest.raises(ConfigurationError, match="operation"):
        check_label(segment)


def test_pchars_are_not_encoded() -> None:
    assert path_segment(PCHARS) == PCHARS


@given(LABELS)
def test_whatever_is_written_is_read_again(label: str) -> None:
    check_label(label)
    assert read_label(path_segment(label)) == label


@given(st.text())
def test_any_text_is_a_label_or_a_mistake_of_the_operator(text: str) -> None:
    try:
        check_label(read_label(text))
    except ConfigurationError:
        pass

"""What the documentation says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.conformance_page import KINDS, coverage, load_gaps, load_requirements
from docs.generate import ROOT, pages, reason_meanings
from est_protocol.errors import RefusalReason

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path) -> None:
    assert path.read_text() == pages()[path], "run: python -m docs.generate"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


ARCHITECTURE = ROOT / "docs" / "explanation" / "architecture.md"


def test_every_package_of_the_server_is_described() -> None:
    described = re.findall(r"`(\w+)/`", ARCHITECTURE.read_text())
    packages = {path.parent.name for path in (ROOT / "est_server").glob("*/__init__.py")}
    assert packages <= set(described)


def test_extension_points_are_where_the_page_says() -> None:
    rows = re.findall(r"^\| (`.*`) \| \[`.*`\]\((.*\.py)\) \|$", ARCHITECTURE.read_text(), re.M)
    assert rows
    for names, module in rows:
        text = (ARCHITECTURE.parent / module).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^class {name}\(.*Protocol\):", text, re.M), (name, module)


def test_tests_name_requirements_that_exist() -> None:
    known = {requirement.id for requirement in load_requirements(ROOT / "docs")}
    assert set(coverage(ROOT)) <= known


def test_every_requirement_has_a_test_or_the_reason_why_not() -> None:
    requirements = {requirement.id for requirement in load_requirements(ROOT / "docs")}
    gaps = [gap.id for gap in load_gaps(ROOT / "docs")]
    tested = coverage(ROOT)
    assert len(gaps) == len(set(gaps)), "a gap is listed twice"
    assert set(gaps) <= requirements, "a gap is none of the requirements"
    assert set(gaps).isdisjoint(tested), "tested: take it out of docs/conformance_gaps.csv"
    assert requirements - set(gaps) <= set(tested), "neither tested nor in conformance_gaps.csv"


def test_every_reason_is_explained_and_tested() -> None:
    codes = {reason.value: f"RefusalReason.{reason.name}" for reason in RefusalReason}
    assert list(reason_meanings()) == list(codes), "docs/reason_meanings.csv"
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert [code for code, name in codes.items() if name not in tests and code not in tests] == []


def test_a_gap_has_a_kind_and_a_reason() -> None:
    level = {requirement.id: requirement.level for requirement in load_requirements(ROOT / "docs")}
    for gap in load_gaps(ROOT / "docs"):
        assert gap.kind in KINDS, gap.id
        assert gap.reason.strip(), gap.id
        assert "|" not in gap.reason, gap.id
        assert not (gap.kind == "by choice" and level[gap.id].startswith("MUST")), gap.id

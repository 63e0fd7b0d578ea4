"""The page ``docs/conformance.md``: each requirement, and the tests that say they check it.

A requirement that no test checks has its reason in ``docs/conformance_gaps.csv``.
"""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

MARKER = "conformance"

#: Why a requirement may have no test: it is not built, or not checked; it says SHOULD and we do
#: otherwise; there is nothing here that it speaks of.
KINDS = ("not yet", "by choice", "not applicable")

_HEAD = """\
# Conformance

{generated}
Requirements of RFC 7030, 8951, 9908, 9148 and what they rest on, and the tests that check them. A
test names its requirements with `@pytest.mark.conformance("HTTP-09")`; the list of requirements is
[requirements.csv](requirements.csv), and where none of our tests checks one,
[conformance_gaps.csv](conformance_gaps.csv) has the reason. Level is the RFC's keyword, or ours
where its sentence has none. Who: S server, C client, B both, R registrar. A requirement about the
form of a message counts as tested where its encoder and its decoder are.

- *not yet*: not built, or built and not checked; it is not a promise.
- *by choice*: a SHOULD or a MAY that we know and do not follow.
- *not applicable*: it speaks of something that there is not here.

| | tested | not yet | by choice | not applicable |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row of ``requirements.csv``."""

    group: str
    id: str
    level: str
    who: str
    requirement: str
    reference: str


def load_requirements(docs: Path) -> list[Requirement]:
    """All requirements, in their order."""
    with (docs / "requirements.csv").open(newline="") as file:
        return [Requirement(**row) for row in csv.DictReader(file)]


@dataclass(frozen=True, slots=True)
class Gap:
    """One row of ``conformance_gaps.csv``: why no test checks a requirement.

    :param kind: one of :data:`KINDS`.
    """

    id: str
    kind: str
    reason: str


def load_gaps(docs: Path) -> list[Gap]:
    """All gaps, in their order."""
    with (docs / "conformance_gaps.csv").open(newline="") as file:
        return [Gap(**row) for row in csv.DictReader(file)]


def coverage(root: Path) -> dict[str, list[str]]:
    """The tests that name a requirement, by its identifier, as ``path::test``."""
    found = defaultdict(list)
    for folder in ("tests", "interop"):
        for file in sorted((root / folder).rglob("test_*.py")):
            for test, identifier in _marks(ast.parse(file.read_text())):
                found[identifier].append(f"{file.relative_to(root)}::{test}")
    return dict(found)


def _marks(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and ast.unparse(decorator.func) == f"pytest.mark.{MARKER}"
                ):
                    for argument in decorator.args:
                        yield node.name, ast.literal_eval(argument)


def conformance_page(root: Path, generated: str) -> str:
    """The whole page."""
    requirements = load_requirements(root / "docs")
    tests = coverage(root)
    gaps = {gap.id: gap for gap in load_gaps(root / "docs")}
    groups = [(name, list(rows)) for name, rows in groupby(requirements, lambda row: row.group)]
    text = _HEAD.format(generated=generated)
    text += _counts_row("**all**", requirements, tests, gaps)
    for name, rows in groups:
        text += _counts_row(name, rows, tests, gaps)
    for name, rows in groups:
        text += f"\n## {name}\n\n{_counts_line(rows, tests, gaps)}\n\n"
        text += "| | level | who | requirement | tests |\n|---|---|---|---|---|\n"
        text += "".join(_row(row, tests.get(row.id, []), gaps.get(row.id)) for row in rows)
    return text


def _counts(
    rows: list[Requirement], tests: dict[str, list[str]], gaps: dict[str, Gap]
) -> dict[str, int]:
    found = dict.fromkeys(("tested", *KINDS), 0)
    for row in rows:
        # What has neither test nor reason is not yet checked.
        found[
            "tested" if row.id in tests else gaps[row.id].kind if row.id in gaps else KINDS[0]
        ] += 1
    return found


def _counts_row(
    name: str, rows: list[Requirement], tests: dict[str, list[str]], gaps: dict[str, Gap]
) -> str:
    return f"| {name} | {' | '.join(map(str, _counts(rows, tests, gaps).values()))} |\n"


def _counts_line(rows: list[Requirement], tests: dict[str, list[str]], gaps: dict[str, Gap]) -> str:
    counts = _counts(rows, tests, gaps)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) + "."


def _row(row: Requirement, tests: list[str], gap: Gap | None) -> str:
    links = ", ".join(f"[{_words(test)}](../{test.partition('::')[0]})" for test in tests)
    why_not = f"*{gap.kind}*: {gap.reason}" if gap else "none yet"
    return (
        f"| {row.id} | {row.level} | {row.who} | {row.requirement} ({row.reference}) "
        f"| {links or why_not} |\n"
    )


def _words(test: str) -> str:
    return test.partition("::")[2].removeprefix("test_").replace("_", " ")

"""The page ``docs/conformance.md``: each requirement, and the tests that say they check it."""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

MARKER = "conformance"

_HEAD = """\
# Conformance

{generated}
Requirements of RFC 7030, 8951, 9908, 9148 and what they rest on, and the tests that check them. A
test names its requirements with `@pytest.mark.conformance("HTTP-09")`; the list of requirements is
[requirements.csv](requirements.csv). Level is the RFC's keyword, or ours where its sentence has
none. Who: S server, C client, B both, R registrar. A row without a test is either not built yet or
built and not checked; it is not a promise.

**{covered} of {total} requirements have a test.**
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
    covered = sum(requirement.id in tests for requirement in requirements)
    lines = [_HEAD.format(generated=generated, covered=covered, total=len(requirements))]
    for group, rows in groupby(requirements, lambda requirement: requirement.group):
        lines += [
            f"## {group}",
            "",
            "| | level | who | requirement | tests |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(requirement, tests.get(requirement.id, [])) for requirement in rows]
        lines.append("")
    return "\n".join(lines)


def _row(row: Requirement, tests: list[str]) -> str:
    links = ", ".join(f"[{_words(test)}](../{test.partition('::')[0]})" for test in tests)
    return (
        f"| {row.id} | {row.level} | {row.who} | {row.requirement} ({row.reference}) "
        f"| {links or 'none yet'} |"
    )


def _words(test: str) -> str:
    return test.partition("::")[2].removeprefix("test_").replace("_", " ")

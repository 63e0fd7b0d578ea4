"""A run as a table for people, as JSON, and as JUnit XML for continuous integration."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from xml.etree import ElementTree

from est_client.conformance.rows import Outcome
from est_client.conformance.runner import Result

_COLUMNS = ("row", "level", "reference", "result", "requirement and evidence")


def table(results: Sequence[Result]) -> str:
    """Lines of text, one row each, and a summary."""
    cells = [_COLUMNS, *(_cells(result) for result in results)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS) - 1)]
    lines = []
    for line in cells:
        fixed = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)]
        lines.append("  ".join([*fixed, line[-1]]))
    return "\n".join([*lines, "", summary(results)])


def summary(results: Sequence[Result]) -> str:
    """The counts in one line."""
    counts = Counter(result.outcome for result in results)
    bound = sum(1 for r in results if r.row.level.binds and r.outcome is Outcome.FAIL)
    parts = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome]
    return f"{len(results)} rows: {', '.join(parts)}; {bound} MUST failed"


def to_json(results: Sequence[Result], *, url: str, at: datetime) -> str:
    """The run as JSON."""
    document = {
        "server": url,
        "time": at.isoformat(timespec="seconds"),
        "summary": {o.value: sum(r.outcome is o for r in results) for o in Outcome},
        "rows": [
            {
                "id": result.row.id,
                "level": result.row.level.value,
                "reference": result.row.reference,
                "title": result.row.title,
                "result": result.outcome.value,
                "evidence": result.evidence,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def to_junit(results: Sequence[Result], *, url: str, at: datetime) -> str:
    """The run as JUnit XML.

    A row that binds fails the suite; one that does not is a skipped case with its evidence, for
    a build must not break over a SHOULD.
    """
    cases = [_case(result) for result in results]
    suite = ElementTree.Element(
        "testsuite",
        name=f"EST conformance of {url}",
        timestamp=at.isoformat(timespec="seconds"),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    suite.extend(cases)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _cells(result: Result) -> tuple[str, ...]:
    row = result.row
    words = f"{row.title}: {result.evidence}"
    return row.id, row.level.value, row.reference, result.outcome.value, words


def _case(result: Result) -> ElementTree.Element:
    row = result.row
    case = ElementTree.Element(
        "testcase",
        classname=f"est.{row.id.split('-')[0]}",
        name=f"{row.id} {row.level.value} {row.title}",
        time=f"{result.seconds:.3f}",
    )
    if result.outcome is Outcome.PASS:
        ElementTree.SubElement(case, "system-out").text = result.evidence
    elif result.outcome is Outcome.ERROR:
        ElementTree.SubElement(case, "error", message=result.evidence)
    elif result.outcome is Outcome.FAIL and row.level.binds:
        ElementTree.SubElement(case, "failure", message=result.evidence)
    else:
        why = f"{result.outcome.value}: {result.evidence}"
        ElementTree.SubElement(case, "skipped", message=why)
    return case

"""The rows as such, the runner's isolation, and its reports."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.conformance_page import load_requirements
from docs.generate import ROOT as REPOSITORY
from est_client.cli import main
from est_client.conformance import Bench, Level, Outcome, Row, all_rows, failed, run
from est_client.conformance.report import table, to_json, to_junit
from est_client.conformance.rows import Failed, NotApplicable
from est_client.device_keys import chain_to_pem, key_to_pem
from est_client.durable_files import write_durably
from est_client.location import ServerLocation
from est_protocol.credentials import AnchorSet
from est_protocol.errors import PeerNotTrusted
from est_protocol.messages import Transport
from est_protocol.secure_channel.context import TrustAnchors
from tests.conformance.faulty import DEVICE_KEY, ROOT, serving
from tests.pki import make_ca

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REQUIREMENTS = {
    requirement.id: requirement for requirement in load_requirements(REPOSITORY / "docs")
}


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.id)
def test_row_is_a_requirement_of_servers_at_its_level(row: Row) -> None:
    requirement = REQUIREMENTS[row.id]
    assert row.level == requirement.level
    assert requirement.who in ("S", "B")


@pytest.mark.parametrize("transport", Transport)
def test_no_row_stands_twice(transport: Transport) -> None:
    ids = [row.id for row in all_rows(transport)]
    assert len(ids) == len(set(ids))


def a_row(name: str, level: Level, outcome: Exception | str) -> Row:
    async def check(_bench: Bench) -> str:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Row(name, level, "RFC 0", f"about {name}", frozenset(Transport), check)


ROWS = [
    a_row("A-01", Level.MUST, "it does"),
    a_row("A-02", Level.SHOULD, Failed("it does not")),
    a_row("A-03", Level.MUST, NotApplicable("there is none")),
    a_row("A-04", Level.MAY, ZeroDivisionError("a defect\x00 of the row")),
    a_row("A-05", Level.MUST, Failed("not at all <&>")),
]


def bench_of(url: str) -> Bench:
    anchors = TrustAnchors({AnchorSet.EXPLICIT: (ROOT.certificate,)})
    return Bench(ServerLocation.parse(url), anchors)


async def test_each_row_is_by_itself_and_reported() -> None:
    async with serving() as url:
        results = await run(bench_of(url), ROWS)
    assert [result.outcome for result in results] == [
        Outcome.PASS,
        Outcome.FAIL,
        Outcome.NOT_APPLICABLE,
        Outcome.ERROR,
        Outcome.FAIL,
    ]
    assert failed(results)
    assert not failed(results[:4])

    text = table(results)
    assert "A-05  MUST    RFC 0      fail" in text
    assert text.endswith("5 rows: 1 pass, 2 fail, 1 not applicable, 1 error; 1 MUST failed")

    document = json.loads(to_json(results, url="https://est.example", at=AT))
    assert document["server"] == "https://est.example"
    assert document["summary"] == {"pass": 1, "fail": 2, "not applicable": 1, "error": 1}
    assert document["rows"][4]["evidence"] == "not at all <&>"

    suite = ElementTree.fromstring(to_junit(results, url="https://est.example", at=AT))
    assert suite.attrib["tests"] == "5"
    assert suite.attrib["failures"] == "1"
    assert suite.attrib["errors"] == "1"
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "not at all <&>"


async def test_server_that_is_not_trusted_is_not_checked() -> None:
    other = TrustAnchors({AnchorSet.EXPLICIT: (make_ca("somebody else").certificate,)})
    async with serving() as url:
        with pytest.raises(PeerNotTrusted):
            await run(Bench(ServerLocation.parse(url), other), ROWS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(chain_to_pem([ROOT.certificate]))
    (tmp_path / "other.pem").write_bytes(chain_to_pem([make_ca("somebody else").certificate]))
    write_durably(tmp_path / "device.key", key_to_pem(DEVICE_KEY), mode=0o600)
    return tmp_path


async def status_of(folder: Path, url: str, *arguments: str) -> int:
    files = [str(folder / a) if "." in a else a for a in arguments]
    return await asyncio.to_thread(main, ["conformance", "--url", url, *files])


@pytest.mark.parametrize(("fault", "status"), [("", 0), ("answers with the chain", 1)])
async def test_command(
    folder: Path, capsys: pytest.CaptureFixture[str], fault: str, status: int
) -> None:
    options = ("--ca-cert", "ca.pem", "--key", "device.key", "--rows", "SE", "--rows", "CA-01")
    reports = ("--json", "report.json", "--junit", "report.xml")
    async with serving(fault) as url:
        assert await status_of(folder, url, *options, *reports) == status
    assert "SE-03" in capsys.readouterr().out
    rows = json.loads((folder / "report.json").read_text())["rows"]
    assert {row["id"] for row in rows} == {"SE-02", "SE-03", "SE-07", "SE-11", "SE-13", "CA-01"}
    assert ElementTree.parse(folder / "report.xml").getroot().attrib["tests"] == str(len(rows))


async def test_command_where_nothing_can_be_checked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as url:
        assert await status_of(folder, url, "--ca-cert", "other.pem") == 3
        assert await status_of(folder, url, "--ca-cert", "ca.pem", "--rows", "NONE") == 2
        assert await status_of(folder, url) == 2
    assert await status_of(folder, url, "--ca-cert", "ca.pem") == 3
    coaps = url.replace("https", "coaps")
    assert await status_of(folder, coaps, "--ca-cert", "ca.pem") == 2
    assert "--key FILE is needed" in capsys.readouterr().err

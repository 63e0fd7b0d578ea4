"""``est-client simulate``, its files and its page."""

import asyncio
import csv
import io
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from est_client.cli import main
from est_client.simulation import Loss, Scenario, outputs, profile_named, simulate, write_report
from est_client.simulation.command_scenario import OPTIONS
from est_client.simulation.compare import Axis
from est_protocol.errors import ConfigurationError
from est_server.cli import main as server_command
from est_server.server import EstServer

EXAMPLE = ["simulate", "--quiet", "--devices", "3", "--mcu", "none"]


def test_a_run_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EXAMPLE, "--profile", "thread-802.15.4"]) == 0
    printed = capsys.readouterr().out
    assert "enrolled         3 (100.0%)" in printed
    assert "3 certificates, at most 1 of one device" in printed
    assert "handshake" in printed


def test_a_fleet_that_is_too_slow_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    slow = [*EXAMPLE, "--latency", "1"]
    assert main([*slow, "--require-within", "60"]) == 0
    assert main([*slow, "--require-within", "1"]) == 1
    assert main([*slow, "--loss", "1", "--give-up", "100"]) == 1


def test_a_grid_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--compare", "block-size=64,1024", "--compare", "transport=coaps,https"]
    assert main([*EXAMPLE, *grid, "--report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for label in ("block-size=64 transport=coaps", "block-size=1024 transport=https"):
        assert label in printed
    runs = json.loads((tmp_path / "results.json").read_text())
    assert [run["scenario"]["block size"] for run in runs] == [64, 64, 1024, 1024]
    octets = [run["summary"]["octets per device"] for run in runs]
    assert octets[0] > octets[2]


def test_the_files_have_every_device(tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "all.json"), "--csv", str(tmp_path / "all.csv")]
    assert main([*EXAMPLE, *files]) == 0
    (run,) = json.loads((tmp_path / "all.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())))
    assert [device["udid"] for device in run["devices"]] == [row["udid"] for row in rows]
    assert {row["outcome"] for row in rows} == {"enrolled"}
    assert sum(int(row["up_octets"]) for row in rows) == sum(
        phase["up"]["octets"] for phase in run["phases"].values()
    )


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--profile", "zigbee"], "no link profile"),
        (["--transport", "mqtt"], "no transport"),
        (["--block-size", "100"], "no block size"),
        (["--compare", "colour=red"], "knows no 'colour'"),
        (["--compare", "loss="], "not NAME=VALUE"),
        (["--compare", "loss=much"], "no number"),
        (["--loss", "2"], "not in 0..1"),
        (["--devices", "0"], "1 to"),
        (["--url", "coaps://localhost"], "--ca-cert"),
    ],
)
def test_what_makes_no_sense_is_refused(
    option: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EXAMPLE, *option]) == 2
    assert words in capsys.readouterr().err


def test_an_axis_has_values() -> None:
    assert Axis.parse("loss=0, 0.1").values == ("0", "0.1")
    with pytest.raises(ConfigurationError):
        Axis.parse("loss")


class Page(HTMLParser):
    """Checks that every element ends, and keeps what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.plots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.plots += tag == "svg"
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    assert page.open == []
    return page


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    profile = profile_named("thread-802.15.4").with_loss(Loss(0.2))
    result = simulate(Scenario(devices=5, profile=profile))
    page = checked(write_report(tmp_path, [result], [""]))
    assert page.loaded == []
    assert page.plots == 6


def test_a_page_of_failures_is_a_page_too(tmp_path: Path) -> None:
    profile = profile_named("ethernet").with_loss(Loss(1.0))
    result = simulate(Scenario(devices=2, profile=profile, gives_up_after=100))
    page = checked(write_report(tmp_path, [result], [""]))
    assert page.plots >= 4
    assert "never" in outputs.final_table(result)


def test_names_are_text_in_the_page(tmp_path: Path) -> None:
    result = simulate(Scenario(devices=1))
    path = write_report(tmp_path, [result, result], ["<script>alert(1)</script>", "b"])
    assert "<script" not in path.read_text()
    checked(path)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    path = write_report(tmp_path, [simulate(Scenario(devices=3))], [""])
    picture = tmp_path / "page.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
    options = [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}"]
    subprocess.run(
        [*command, *options, path.as_uri()], check=True, capture_output=True, timeout=250
    )
    assert picture.stat().st_size > 20_000


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A server's directory; it knows the fleet of seed 9."""
    folder, listed = tmp_path / "est", tmp_path / "devices.csv"
    assert server_command(["init", str(folder), "--https-port", "0", "--coaps-port", "0"]) == 0
    assert main(["simulate", "--devices", "3", "--seed", "9", "--write-list", str(listed)]) == 0
    config = str(folder / "est-server.toml")
    assert (
        server_command(["devices", "import", str(listed), "--allow-unsigned", "--config", config])
        == 0
    )
    return folder


@pytest.mark.parametrize("transport", ["https", "coaps"])
async def test_a_server_elsewhere_is_used_in_real_time(
    transport: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "--quiet", "--devices", "3", "--seed", "9", "--mcu", "none"]
    arguments += ["--transport", transport, "--ca-cert", str(elsewhere / "ca.pem")]
    async with EstServer.from_config(elsewhere / "est-server.toml") as server:
        address = server.https_address if transport == "https" else server.coaps_address
        arguments += ["--url", f"{transport}://{address}", "--give-up", "30"]
        assert await asyncio.to_thread(main, arguments) == 0
    assert "enrolled         3 (100.0%)" in capsys.readouterr().out


def test_the_help_names_every_setting_that_can_be_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    words = set(capsys.readouterr().out.replace(",", " ").replace(";", " ").split())
    assert set(OPTIONS) <= words

import io

import pytest

from est_client.simulation import Scenario, simulate
from est_client.simulation.progress import Counts, Lines, Live, progress_for


def test_everybody_is_counted_where_they_are() -> None:
    counts = Counts(4)
    simulate(Scenario(devices=4), watch=counts.note)
    assert counts.done == 4
    assert counts.line.startswith("4/4 devices: 4 enrolled, 0 at it, 0 failed")


def test_nothing_is_foretold_before_anybody_is_done() -> None:
    counts = Counts(4)
    assert "left" not in counts.line
    simulate(Scenario(devices=4), watch=counts.note)
    assert "0 s left" in counts.line


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("est_client.simulation.progress._INTERVAL", 0.0)
    out = io.StringIO()
    with Lines(3, out) as lines:
        simulate(Scenario(devices=3), watch=lines)
    assert out.getvalue().splitlines()[-1].startswith("3/3 devices: 3 enrolled")


def test_a_terminal_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    rich = pytest.importorskip("rich")
    pytest.importorskip("rich.console")
    pytest.importorskip("rich.progress")
    with Live(3, "enrolling", rich) as live:
        simulate(Scenario(devices=3), watch=live)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "3 enrolled" in shown


def test_where_there_is_no_terminal_there_are_lines() -> None:
    assert isinstance(progress_for(1, "enrolling"), Lines)

"""The audit log: one line per request that nobody on the network can break."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest

from est_protocol.errors import ConfigurationError
from est_server.config.settings import LogFormat, LogSettings
from est_server.logs import (
    AnonymousRefusals,
    JsonAuditFormatter,
    TextAuditFormatter,
    configured_logging,
)

REFUSAL = {
    "outcome": "refused",
    "transport": "https",
    "operation": "simpleenroll",
    "peer": "127.0.0.1:40000",
    "reason": "unknown-device",
    "sentence": "this key is not listed",
    "label": "a\nb\x1b[31m=",
}


def record(**extra: object) -> logging.LogRecord:
    made = logging.LogRecord("est_server.audit", logging.WARNING, "", 0, "message", None, None)
    made.created = 1_800_000_000.5
    made.__dict__.update(extra)
    return made


def test_a_json_line_has_every_field() -> None:
    line = JsonAuditFormatter().format(record(audit=REFUSAL))
    assert line.isprintable()
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.500Z",
        "level": "warning",
        **REFUSAL,
    }


def test_a_text_line_cannot_be_broken_by_a_peer() -> None:
    line = TextAuditFormatter().format(record(audit=REFUSAL))
    assert line.isprintable()
    assert line.startswith("2027-01-15T08:00:00.500Z refused         https simpleenroll ")
    assert 'sentence="this key is not listed"' in line
    assert r"label=a\nb\x1b[31m=" in line


@pytest.mark.parametrize("formatter", [JsonAuditFormatter(), TextAuditFormatter()])
def test_a_record_without_fields_is_a_line_too(formatter: logging.Formatter) -> None:
    assert "message" in formatter.format(record())


def test_the_file_is_private_and_survives_a_rotation(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    with configured_logging(LogSettings(format=LogFormat.JSON, file=file)):
        audit = logging.getLogger("est_server.audit")
        audit.info("one", extra={"audit": {"outcome": "issued"}})
        file.rename(tmp_path / "audit.log.1")
        audit.info("two", extra={"audit": {"outcome": "refused"}})
    for path, outcome in ((tmp_path / "audit.log.1", "issued"), (file, "refused")):
        [line] = path.read_text().splitlines()
        assert json.loads(line)["outcome"] == outcome
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_the_audit_log_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with configured_logging(LogSettings()):
        logging.getLogger("est_server.audit").info("x", extra={"audit": {"outcome": "issued"}})
    assert capsys.readouterr().err.count("issued") == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    settings = LogSettings(file=tmp_path / "no-such" / "audit.log")
    with pytest.raises(ConfigurationError, match="no-such"), configured_logging(settings):
        pytest.fail("a log that nobody can read was taken")


def test_the_process_logs_as_before_once_a_server_has_stopped(tmp_path: Path) -> None:
    named = [logging.getLogger(), logging.getLogger("est_server.audit")]

    def state() -> list[tuple[int, bool, list[logging.Handler]]]:
        return [(logger.level, logger.propagate, logger.handlers[:]) for logger in named]

    before = state()
    with configured_logging(LogSettings(file=tmp_path / "audit.log")):
        assert all(after != then for after, then in zip(state(), before, strict=True))
    assert state() == before


def test_a_flood_of_anonymous_refusals_is_cut_and_counted() -> None:
    bound = AnonymousRefusals(5)
    flood = [record(audit=REFUSAL) for _ in range(20)]
    assert sum(map(bound.filter, flood)) == 5
    later = record(audit=REFUSAL)
    later.created += 1
    assert bound.filter(later)
    assert json.loads(JsonAuditFormatter().format(later))["suppressed"] == "15"
    another = record(audit=REFUSAL)
    another.created += 1
    assert bound.filter(another)
    assert "suppressed" not in json.loads(JsonAuditFormatter().format(another))


def test_refusals_of_known_devices_and_answers_are_always_written() -> None:
    bound = AnonymousRefusals(1)
    for _ in range(10):
        assert bound.filter(record(audit={**REFUSAL, "device": "d1"}))
        assert bound.filter(record(audit={"outcome": "issued"}))
        assert bound.filter(record())

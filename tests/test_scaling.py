"""The simulation behind ``docs/explanation/scaling.md``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from docs.scaling_page import Wave, load_figures, simulate, with_tables
from est_protocol.secure_channel.datagram import DatagramLimits
from est_server.stores.options import StoreOptions

_SERVICE = 0.004
_DOCS = Path(__file__).parents[1] / "docs"
_PAGE = (_DOCS / "explanation" / "scaling.md").read_text()


@pytest.mark.parametrize("use", [0.3, 0.7, 0.9])
def test_it_finds_what_queueing_theory_says_of_one_queue(use: float) -> None:
    devices = int(use / _SERVICE * 3600)
    outcome = simulate(Wave(3600.0, 1), devices, (_SERVICE,))
    # Times in an M/M/1 queue are exponentially distributed around this.
    mean = _SERVICE / (1 - use)
    assert outcome.use == pytest.approx(use, rel=0.001)
    assert outcome.median == pytest.approx(math.log(2) * mean, rel=0.1)
    assert outcome.p99 == pytest.approx(math.log(100) * mean, rel=0.1)


def test_a_wave_that_is_too_much_takes_as_long_as_its_work() -> None:
    outcome = simulate(Wave(60.0, 2), 60_000, (_SERVICE,))
    work = 60_000 / 2 * _SERVICE
    assert outcome.use == pytest.approx(work / 60)
    assert outcome.cleared == pytest.approx(work - 60, rel=0.05)
    assert outcome.waiting == pytest.approx(30_000 * (1 - 60 / work), rel=0.05)


def test_workers_share_the_work() -> None:
    one, two = (simulate(Wave(3600.0, n), 400_000 * n, (_SERVICE, 2 * _SERVICE)) for n in (1, 2))
    assert one == two


def test_the_tables_follow_from_the_figures() -> None:
    figures = replace(load_figures(_DOCS), devices=50_000)
    before = with_tables(_PAGE, figures)
    after = with_tables(before, replace(figures, https_ms=figures.https_ms * 3))
    changed = {
        old.split("|")[1].strip()
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    }
    assert {"one enrollment over HTTPS", "24 h", "4 h", "1 h"} < changed


def test_the_page_names_the_bounds_as_they_are() -> None:
    datagram = DatagramLimits()
    text = " ".join(_PAGE.split())
    assert f"`[coaps.limits.datagram] maximum_sessions`, {datagram.maximum_sessions} for" in text
    assert f"(`idle_timeout`, {datagram.idle_timeout:g} s)" in text
    lease = StoreOptions().lease.total_seconds()
    assert f"after `lease`, {lease:g} s" in text

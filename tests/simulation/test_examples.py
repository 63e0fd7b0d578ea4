"""What the documentation shows of the simulator works."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "fleet_test.py"
TESTS: dict[str, Callable[[], None]] = {
    name: value for name, value in runpy.run_path(str(EXAMPLE)).items() if name.startswith("test_")
}


@pytest.mark.parametrize("name", sorted(TESTS))
def test_the_test_for_a_makers_own_ci_passes(name: str) -> None:
    TESTS[name]()

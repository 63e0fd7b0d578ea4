"""A grid of runs: which settings for this network."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from est_client.simulation.command_scenario import OPTIONS, scenario_of
from est_client.simulation.scenario import Scenario
from est_protocol.errors import ConfigurationError

_MOST_RUNS = 200


@dataclass(frozen=True, slots=True)
class Axis:
    """One setting and the values to try.

    :param name: the option, without its dashes.
    :param values: as on the command line.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """An axis from ``NAME=VALUE,VALUE``.

        :raises ConfigurationError: it is none, or there is no such setting.
        """
        name, _, values = text.partition("=")
        given = tuple(value.strip() for value in values.split(",") if value.strip())
        if not given:
            raise ConfigurationError(f"--compare {text!r} is not NAME=VALUE,VALUE")
        if name not in OPTIONS:
            raise ConfigurationError(
                f"--compare knows no {name!r}; known: {', '.join(sorted(OPTIONS))}"
            )
        return cls(name, given)


@dataclass(frozen=True, slots=True)
class Variant:
    """One run of a grid.

    :param settings: what it differs by: option and value.
    """

    settings: tuple[tuple[str, str], ...]
    scenario: Scenario

    @property
    def label(self) -> str:
        """What it differs by, for people."""
        return " ".join(f"{name}={value}" for name, value in self.settings)


def variants(options: argparse.Namespace, axes: Sequence[Axis]) -> list[Variant]:
    """All combinations, each over the settings in ``options``.

    :raises ConfigurationError: a value makes no sense, or there are too many combinations.
    """
    grid = list(itertools.product(*(axis.values for axis in axes)))
    if len(grid) > _MOST_RUNS:
        raise ConfigurationError(f"{len(grid)} combinations are more than {_MOST_RUNS}")
    found = []
    for values in grid:
        settings = tuple(zip((axis.name for axis in axes), values, strict=True))
        changed = argparse.Namespace(**vars(options))
        for name, value in settings:
            setattr(changed, name.replace("-", "_"), OPTIONS[name](value))
        found.append(Variant(settings, scenario_of(changed)))
    return found

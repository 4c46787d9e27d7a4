"""Every scenario on Postgres gives the answer of the memory engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import funnelvec as fv
from tests.agreement.scenarios import SCENARIOS, Scenario, ask, compare, load, tolerance

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_postgres_answers_like_memory(postgres: Engine, scenario: Scenario) -> None:
    with fv.connect("memory:") as memory:
        expected = ask(load(memory, scenario), scenario)
    table = load(postgres, scenario)
    answer = ask(table, scenario)
    compare(expected, answer, tolerance(scenario))
    # The plan of the function is cached after a few calls; the cached one must say the same.
    for _ in range(6):
        assert ask(table, scenario) == answer

"""Every scenario on Qdrant's local mode and on Edge gives the answer of the memory engine.

What Qdrant cannot do is refused with the engine that can; the scenarios of which that is true are
named here. Codes of 16 bits under cosine are unit vectors rounded to 16 bits, and Qdrant does not
divide by what is left of their length: such scores lie within `HALVES` of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import funnelvec as fv
from funnelvec.errors import CapabilityError
from funnelvec.funnel import Funnel
from tests.agreement import edge
from tests.agreement.scenarios import (
    RELEVANCE_TOLERANCE,
    SCENARIOS,
    Scenario,
    answer_of_memory,
    ask,
    compare,
    load,
    tolerance,
)

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine

HALVES = 5e-4
REFUSED = {
    'Mixed Case; "quoted"': "no collection name with",
    "filter_code_points": "no order of text",
}
#: Where codes are kept makes no difference in Qdrant, so these would run twice.
CHOSEN = [scenario for scenario in SCENARIOS if scenario.storage is None]


@pytest.fixture(params=["local", "edge"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "local":
        with fv.connect("qdrant-local::memory:") as local:
            yield local
        return
    with edge.folder() as folder, fv.connect(f"edge:{folder}") as opened:
        yield opened


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: scenario.name)
def test_qdrant_answers_like_memory(engine: Engine, scenario: Scenario) -> None:
    expected = answer_of_memory(scenario)
    if scenario.name in REFUSED:
        with pytest.raises(CapabilityError, match=REFUSED[scenario.name]) as refused:
            ask(load(engine, scenario), scenario)
        assert "postgresql://" in str(refused.value)
        return
    table = load(engine, scenario)
    answer = ask(table, scenario)
    last = Funnel.parse(scenario.funnel).last.resolution
    halves = last.code == "f16" and scenario.metric == "cosine"
    near = HALVES if halves else tolerance(scenario)
    compare(expected, answer, near, relevance=2 * HALVES if halves else RELEVANCE_TOLERANCE)
    compare(answer, ask(table, scenario), near)  # local mode's last bits differ from call to call
    _, query = scenario.build()
    explanation = table.explain(
        query, k=scenario.k, min_relevance=scenario.min_relevance, filter=scenario.filter
    )
    assert explanation.stages[-1].rows_out == len(answer)


def test_what_is_refused_is_still_a_scenario() -> None:
    assert set(REFUSED) <= {scenario.name for scenario in CHOSEN}

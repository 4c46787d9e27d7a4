"""Every scenario on Postgres gives the answer of the memory engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.errors import CapabilityError, InvalidInput
from tests.agreement.scenarios import (
    SCENARIOS,
    Scenario,
    answer_of_memory,
    ask,
    compare,
    load,
    tolerance,
)
from tests.awaited import Awaited

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_postgres_answers_like_memory(postgres: Engine, scenario: Scenario) -> None:
    expected = answer_of_memory(scenario)
    if "int8" in scenario.funnel:
        with pytest.raises(CapabilityError, match=r"this engine has no code int8.*Qdrant has"):
            load(postgres, scenario)
        return
    table = load(postgres, scenario)
    answer = ask(table, scenario)
    compare(expected, answer, tolerance(scenario))
    # The plan of the function is cached after a few calls; the cached one must say the same.
    # The server does that, so it is the same whichever form of the engine calls.
    for _ in range(1 if isinstance(postgres, Awaited) else 6):
        assert ask(table, scenario) == answer


@pytest.mark.parametrize(
    ("metric", "query"), [("euclidean", [1, 2, 0]), ("dot", [0, 0, -1]), ("cosine", [0, 0, -1])]
)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_zero_is_printed_without_a_sign(
    postgres: Engine, metric: Any, query: Any, dtype: Any
) -> None:
    """An equal row at distance 0, and a product of nothing but zeros with a sign."""
    with fv.connect("memory:") as memory:
        for engine in (memory, postgres):
            name = f"zero_{metric}_{dtype}"
            table = engine.create(name, dims=3, metric=metric, dtype=dtype)
            table.add([1], [[1, 2, 0]])
            table.create_funnel(f"{name}_search", f"3:{dtype}")
            assert [repr(hit.score) for hit in table.search(query)] == ["0.0"], engine


def test_a_number_is_a_double_on_every_engine(postgres: Engine) -> None:
    with fv.connect("memory:") as memory:
        for engine in (memory, postgres):
            table = engine.create("doubles", dims=3, id_kind="number")
            with pytest.raises(InvalidInput, match=r"9007199254740992\.0 occurs more than once"):
                table.add([2**53, 2**53 + 1], np.eye(3)[:2])
            table.add([2**53 + 1], [[1, 2, 3]])
            table.create_funnel("doubles_search", "3:f32")
            assert [hit.id for hit in table.search([1, 2, 3])] == [2.0**53], engine
            exact = engine.create("whole", dims=3, id_kind="integer")
            exact.add([2**53, 2**53 + 1], [[1, 2, 3], [3, 2, 1]])
            exact.create_funnel("whole_search", "3:f32")
            assert {hit.id for hit in exact.search([1, 2, 3])} == {2**53, 2**53 + 1}, engine

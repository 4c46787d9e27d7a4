"""The SQL against golden values from the slow third implementation (tests/golden/make.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

GOLDEN = Path(__file__).parent.parent / "golden"


def load(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def numbers(texts: list[str]) -> list[float]:
    return [float.fromhex(text) for text in texts]


def literal(texts: list[str]) -> str:
    return "[" + ",".join(repr(number) for number in numbers(texts)) + "]"


def encoded(connection: Connection, resolution: str, vector: list[str]) -> tuple[str, str, str]:
    """What SQL stores for a vector, as text, with the type and operator it gives the code."""
    dims, code = resolution.split(":")
    row = connection.execute(
        "select type, replace(expression, '{query}', format('%%L::vector', %s::text)), operator"
        "  from funnelvec._code(%s, %s, '{query}', 'cosine', 'f32')",
        (literal(vector), int(dims), code),
    ).fetchone()
    assert row is not None
    return row


def test_codes_equal_the_golden_ones(owner_conn: Connection) -> None:
    for case in load("codes"):
        _, expression, _ = encoded(owner_conn, case["resolution"], case["vector"])
        row = owner_conn.execute(f"select ({expression})::text").fetchone()  # type: ignore[arg-type]
        assert row is not None
        if case["resolution"].endswith(":bit"):
            assert row[0] == case["code"], case["name"]
        else:
            # Compared as numbers: the text of a float16 is shorter than its exact value.
            wide = owner_conn.execute(
                f"select ({expression})::vector::float4[]::float8[]"  # type: ignore[arg-type]
            ).fetchone()
            assert wide is not None
            assert wide[0] == numbers(case["code"]), case["name"]


def in_range(case: Any) -> bool:
    """pgvector sums squares in float32, so lengths beyond about 1e18 or below 1e-18 mean nothing."""
    if not case["resolution"].endswith(":f32"):
        return True
    dims = int(case["resolution"].split(":")[0])
    lengths = [math.hypot(*numbers(case[side])[:dims]) for side in ("query", "vector")]
    return all(length == 0 or 1e-18 < length < 1e18 for length in lengths)


def test_scores_equal_the_golden_ones(owner_conn: Connection) -> None:
    cases = [case for case in load("scores") if in_range(case)]
    assert len(cases) > 20
    for case in cases:
        dims, code = case["resolution"].split(":")
        _, query, operator = encoded(owner_conn, case["resolution"], case["query"])
        _, row, _ = encoded(owner_conn, case["resolution"], case["vector"])
        similarity = owner_conn.execute(
            "select funnelvec._similarity(%s, %s, 'cosine', %s)",
            (int(dims), code, f"{row} {operator} {query}"),
        ).fetchone()
        assert similarity is not None
        found = owner_conn.execute(f"select {similarity[0]}").fetchone()
        assert found is not None
        expected = float.fromhex(case["score"])
        # float16 codes are compared by float32 arithmetic in pgvector, like the others.
        tolerance = 1e-6 * max(1.0, abs(expected))
        assert found[0] == pytest.approx(expected, abs=tolerance, nan_ok=True), case["name"]


def test_platt_fits_equal_the_golden_ones(owner_conn: Connection) -> None:
    for case in load("calibration")["fits"]:
        found = owner_conn.execute(
            'select f.slope, f."offset" from funnelvec._fit_platt(%s::float8[], %s::boolean[]) as f',
            (numbers(case["scores"]), [bool(label) for label in case["labels"]]),
        ).fetchone()
        expected = (float.fromhex(case["slope"]), float.fromhex(case["offset"]))
        assert found == pytest.approx(expected, rel=1e-9), case["name"]


def calibration(case: dict[str, str]) -> str:
    return json.dumps(
        {"slope": float.fromhex(case["slope"]), "offset": float.fromhex(case["offset"])}
    )


def evaluate(connection: Connection, expression: str, value: float) -> float:
    row = connection.execute(
        f"select {expression}",  # type: ignore[arg-type]
        {"value": value},
    ).fetchone()
    assert row is not None
    return float(row[0])


def test_relevance_and_cutoff_equal_the_golden_ones(owner_conn: Connection) -> None:
    golden = load("calibration")
    for maker, cases, given, wanted in (
        ("_relevance_sql", golden["maps"], "score", "relevance"),
        ("_cutoff_sql", golden["cutoffs"], "relevance", "cutoff"),
    ):
        for case in cases:
            text = owner_conn.execute(
                f"select funnelvec.{maker}(%s::jsonb, '%%(value)s::float8')",  # type: ignore[arg-type]
                (calibration(case),),
            ).fetchone()
            assert text is not None
            found = evaluate(owner_conn, text[0], float.fromhex(case[given]))
            expected = float.fromhex(case[wanted])
            if math.isinf(expected):
                assert found == expected
            else:
                assert found == pytest.approx(expected, rel=1e-9, abs=1e-300), case

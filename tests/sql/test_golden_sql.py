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


def encoded(connection: Connection, case: Any, side: str = "vector") -> tuple[str, str]:
    """SQL for what is stored for a vector, and the operator that compares it."""
    dims, code = case["resolution"].split(":")
    vector, base = case[side], case["base"]
    source = f"'{literal(vector)}'::{'vector' if base == 'f32' else 'halfvec'}"
    row = connection.execute(
        "select expression, operator from funnelvec._code(%s, %s, %s, %s, %s)",
        (int(dims), code, source, case["metric"], base),
    ).fetchone()
    assert row is not None
    # The column itself is stored as it is, and compared by the operator of its code.
    return (source, row[1]) if (int(dims), code) == (len(vector), base) else row


def test_codes_equal_the_golden_ones(owner_conn: Connection) -> None:
    for case in load("codes"):
        expression, _ = encoded(owner_conn, case)
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


def test_maps_equal_the_golden_ones(owner_conn: Connection) -> None:
    cases = load("maps")
    assert len(cases) > 10
    for number, case in enumerate(cases):
        table, dims = f"t{number}", len(case["vector"])
        owner_conn.execute(f"create table {table} (id int primary key, v vector({dims}))".encode())
        owner_conn.execute(
            "select funnelvec._keep_rotation(%s::regclass, 'v', 'pca', 'pca', null, 'dot', %s::integer[], %s, null,"
            " null, %s, 1, 0, true, null)",
            (table, str(case["numbers"]).translate(str.maketrans("[]", "{}")),
             float.fromhex(case["step"]), "0" * 64),
        )  # fmt: skip
        width = len(case["mapped"])
        for code in ("f32", "bit"):
            owner_conn.execute(
                "select funnelvec.add_resolution(%s::regclass, 'v', %s, metric => 'dot')",
                (table, f"{width}:{code}~pca"),
            )
        found = owner_conn.execute(
            f"insert into {table} values (1, %s::real[]::vector) returning v_{width}_f32_pca::real[], v_{width}_bit_pca::text".encode(),
            (numbers(case["vector"]),),
        ).fetchone()
        assert found is not None
        expected = numbers(case["mapped"])
        # pgvector sums in 32-bit floats.
        near = 4e-6 * math.hypot(*numbers(case["vector"])) * float.fromhex(case["step"]) * 1e6
        for got, sign, wanted in zip(*found, expected, strict=True):
            assert abs(got - wanted) <= near, case["name"]
            assert abs(wanted) <= near or sign == ("1" if wanted > 0 else "0"), case["name"]


def lengths(case: Any) -> list[float]:
    dims = int(case["resolution"].split(":")[0])
    return [math.hypot(*numbers(case[side])[:dims]) for side in ("query", "vector")]


def in_range(case: Any) -> bool:
    """pgvector sums in float32, so lengths beyond about 1e18 or below 1e-18 mean nothing."""
    if not case["resolution"].endswith(":f32"):
        return True
    return all(length == 0 or 1e-18 < length < 1e18 for length in lengths(case))


def scale(case: Any) -> float:
    """The size of the numbers that a score is made of; errors of rounding are relative to it."""
    if case["metric"] == "cosine" or "hamming" in case:
        return 1.0
    code = case["resolution"].split(":")[1]
    sizes = [min(length, 65504) if code == "f16" else length for length in lengths(case)]
    return max(1.0, math.prod(sizes) if case["metric"] == "dot" else sum(sizes))


def test_scores_equal_the_golden_ones(owner_conn: Connection) -> None:
    cases = [case for case in load("scores") if in_range(case)]
    assert len(cases) > 20
    for case in cases:
        dims, code = case["resolution"].split(":")
        query, operator = encoded(owner_conn, case, "query")
        row, _ = encoded(owner_conn, case)
        similarity = owner_conn.execute(
            "select funnelvec._similarity(%s, %s, %s, %s)",
            (int(dims), code, case["metric"], f"{row} {operator} {query}"),
        ).fetchone()
        assert similarity is not None
        found = owner_conn.execute(f"select {similarity[0]}").fetchone()
        assert found is not None
        expected = float.fromhex(case["score"])
        # float16 codes are compared by float32 arithmetic in pgvector, like the others.
        tolerance = 1e-6 * scale(case)
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


def check_map(connection: Connection, map: dict[str, Any], case: Any) -> None:
    """Relevance to 1e-9 and cutoffs to 1e-6 of the numbers that the third implementation has."""
    made = connection.execute(
        "select funnelvec._map_fault(%(family)s, %(map)s::jsonb), funnelvec._relevance_sql(%(map)s::jsonb, 's.score'),"
        " funnelvec._cutoff_sql(%(map)s::jsonb, 's.score')",
        {"family": map["family"], "map": json.dumps(map)},
    ).fetchone()
    assert made is not None
    assert made[0] is None
    for expression, given, wanted, near in (
        (made[1], "asked", "relevance", 1e-9),
        (made[2], "wanted", "cutoffs", 1e-6),
    ):
        found = connection.execute(
            f"select array_agg({expression} order by s.i) from unnest(%s::float8[]) with ordinality as s (score, i)",  # type: ignore[arg-type]
            (numbers(case[given]),),
        ).fetchone()
        assert found is not None
        assert found[0] == pytest.approx(numbers(case[wanted]), rel=near, abs=near), (given, map)


def test_isotonic_fits_and_maps_equal_the_golden_ones(owner_conn: Connection) -> None:
    for case in load("families")["isotonic"]:
        row = owner_conn.execute(
            "select funnelvec._fit_family('isotonic', %s::float8[], %s::boolean[])",
            (numbers(case["scores"]), [bool(label) for label in case["labels"]]),
        ).fetchone()
        assert row is not None
        assert row[0]["low"] == numbers(case["low"]), case["name"]
        assert row[0]["high"] == numbers(case["high"]), case["name"]
        assert row[0]["levels"] == pytest.approx(numbers(case["levels"]), rel=1e-12), case["name"]
        check_map(owner_conn, {"family": "isotonic", **row[0]}, case)


def test_beta_fits_equal_the_golden_ones(owner_conn: Connection) -> None:
    for case in load("families")["beta"]:
        row = owner_conn.execute(
            "select funnelvec._fit_family('beta', %s::float8[], %s::boolean[])",
            (numbers(case["scores"]), [bool(label) for label in case["labels"]]),
        ).fetchone()
        assert row is not None
        assert row[0]["slope"] == pytest.approx(float.fromhex(case["slope"]), rel=1e-9)
        found = [row[0][name] for name in "abc"]
        assert found == pytest.approx(numbers(case["map"]), rel=1e-6, abs=1e-9), case["name"]


def test_beta_maps_equal_the_golden_ones(owner_conn: Connection) -> None:
    for case in load("families")["beta_maps"]:
        names = ("slope", "offset", "a", "b", "c")
        map = dict(zip(names, numbers(case["numbers"]), strict=True))
        check_map(owner_conn, {"family": "beta", **map}, case)


def test_adapters_equal_the_golden_ones(owner_conn: Connection) -> None:
    def value(given: Any) -> Any:
        if isinstance(given, list):
            return [value(each) for each in given]
        if isinstance(given, dict):
            return {name: value(each) for name, each in given.items()}
        return float.fromhex(given) if isinstance(given, str) and "0x" in given else given

    for case in load("families")["adapters"]:
        adapter = {"family": "adapter", **{name: value(x) for name, x in case["adapter"].items()}}
        row = owner_conn.execute(
            "select funnelvec._map_fault('adapter', %(a)s::jsonb),"
            " funnelvec._bound(%(a)s::jsonb, %(list)s::float8[], %(query)s::real[]::vector)",
            {
                "a": json.dumps(adapter),
                "list": numbers(case["list"])[::-1],
                "query": numbers(case["query"]) or None,
            },
        ).fetchone()
        assert row is not None
        assert row[0] is None
        assert row[1]["slope"] == pytest.approx(float.fromhex(case["slope"]), rel=1e-12)
        assert row[1]["offset"] == pytest.approx(float.fromhex(case["offset"]), rel=1e-9, abs=1e-9)
        check_map(owner_conn, row[1], case)

"""``funnelvec status``."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from funnelvec.commands.output import print_json, print_table
from funnelvec.commands.target import add_target, opened, read_target

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine


#: What is read of the registry, by its name in the JSON.
_PARTS = {
    "resolutions": (
        'select s."table"::text as table, s.column_name as vector, s.resolution,'
        "       s.code_column as column, s.rows, s.filled, s.coverage, s.bit_balance,"
        "       s.index_name::text as index, s.index_bytes, s.advice, s.storage, s.object,"
        "       s.code_bytes, s.toasted, s.index_growth, s.dead_share, s.changed,"
        "       s.vacuumed_at, s.analyzed_at, s.hot_share, s.fillfactor,"
        "       (select r.metric from funnelvec.resolutions as r"
        '         where r.table_name = s."table" and r.column_name = s.column_name'
        "           and r.resolution = s.resolution) as metric"
        "  from funnelvec.status(%s::regclass) as s"
        " where s.resolution is not null"
        "   and s.storage not in ('calibration', 'certificate', 'hub')"
    ),
    "problems": (
        "select s.object, s.advice"
        "  from funnelvec.status(%s::regclass) as s where s.resolution is null"
    ),
    "relevance": (
        'select p."table"::text as table, p.column_name as vector, p.storage as kind,'
        "       p.object, p.advice"
        "  from funnelvec._promise_status(%s::regclass) as p"
    ),
    "certificates": (
        'select c."table"::text as table, c.funnel, c.kind, c.state, c.level, c.confidence,'
        "       c.top_k as k, c.cutoff, c.relevance, c.observed, c.low, c.high, c.queries,"
        "       c.without_relevant, c.answered, c.approximate, c.stages,"
        "       c.judgments_sha256, c.certified_at"
        "  from funnelvec.list_certificates(%s::regclass) as c"
    ),
    "rotations": (
        'select r."table"::text as table, r.column_name as vector, r.rotation, r.kind,'
        "       r.dims, r.width, r.metric, r.recommended, r.rows, r.queries, r.fitted_on,"
        "       r.fitted_at, r.used_by"
        "  from funnelvec.list_rotations(%s::regclass) as r"
    ),
    "funnels": (
        "select f.name, f.table_name::text as table, f.column_name as vector, f.funnel,"
        "       f.metric, f.calibration is not null as calibrated, f.model"
        "  from funnelvec.funnels as f"
        " where f.table_name = coalesce(%s::regclass, f.table_name)"
        "   and exists (select from pg_class as c where c.oid = f.table_name)"
        " order by f.table_name::text, f.name"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec status postgresql:///shop
  funnelvec status postgresql:///shop products
  FUNNELVEC_URL=postgresql:///shop funnelvec status --json"""
    add_target(parser, table=True)


def run(args: argparse.Namespace) -> int:
    """Report."""
    url, table = read_target(args, table=True)
    with opened(url) as engine:
        found = _collect(engine, table)
    if args.json:
        print_json(found)
        return 0
    print(f"database {found['database']}: funnelvec {found['version']} ({found['mode']})")
    _print_resolutions(found["resolutions"])
    _print_rotations(found["rotations"])
    _print_funnels(found["funnels"])
    _print_relevance(found["relevance"])
    for problem in found["problems"]:
        print(f"{problem['object']}: {problem['advice']}")
    return 0


def _collect(engine: PostgresEngine, table: str) -> dict[str, Any]:
    from funnelvec.install.apply import check_compatible

    with engine.connection() as connection:
        regclass = _find(engine, table)
        installed = check_compatible(connection)
        return {
            "database": connection.info.dbname,
            "version": installed.version,
            "mode": installed.mode,
            **{name: _rows(connection, query, regclass) for name, query in _PARTS.items()},
        }


def _find(engine: PostgresEngine, table: str) -> str | None:
    from funnelvec.engines.postgres.adapt import SQL_NAME, statement
    from funnelvec.errors import NotFound

    if not table:
        return None
    with engine.connection() as connection:
        row = connection.execute(
            statement("find_table"), {"name": table, "sql_name": SQL_NAME}
        ).fetchone()
    if row is None:
        raise NotFound(f"table {table!r} does not exist or is not on the search_path")
    return str(row[0])


def _rows(connection: Any, query: str, regclass: str | None) -> list[dict[str, Any]]:
    cursor = connection.execute(query, [regclass])
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _print_resolutions(found: list[dict[str, Any]]) -> None:
    if not found:
        print("no resolutions; make one with funnelvec.add_resolution")
        return
    texts = ("table", "vector", "resolution", "metric")
    head = (
        *texts, "rows", "filled", "balance", "codes MB", "toasted", "index MB", "growth",
    )  # fmt: skip
    rows = [
        (
            *(each[name] for name in texts),
            f"{each['rows']:,}",
            _number(each["coverage"], ".3f"),
            _number(each["bit_balance"], ".2f"),
            _number(each["code_bytes"], ".1f", unit=1e6),
            _number(each["toasted"], ".0%"),
            _number(each["index_bytes"], ".1f", unit=1e6),
            _number(each["index_growth"], ".2f"),
        )
        for each in found
        if each["storage"] != "window"
    ]
    print_table(head, rows, text=len(texts))
    _print_windows([each for each in found if each["storage"] == "window"])
    _print_tables(found)
    said = set()
    for each in found:
        for line in each["advice"].splitlines():
            # What is about the table stands in the row of each resolution.
            if (each["table"], line) not in said:
                print(f"{each['table']}.{each['vector']} {each['resolution']}: {line}")
            said.add((each["table"], line))


def _print_windows(found: list[dict[str, Any]]) -> None:
    texts = ("table", "vector", "resolution")
    rows = [
        (
            *(each[name] for name in texts),
            each["object"].removeprefix("window "),
            f"{each['filled']:,}",
            _number(each["coverage"], ".1%"),
            _number(each["index_bytes"], ".1f", unit=1e6),
        )
        for each in found
    ]
    print_table((*texts, "window", "rows", "of all", "index MB"), rows, text=4)


def _print_tables(found: list[dict[str, Any]]) -> None:
    counted = {
        each["object"].removeprefix("table ") if each["storage"] == "side" else each["table"]: each
        for each in found
        if each["fillfactor"] is not None
    }
    head = ("table", "vacuumed", "analyzed", "changed since", "dead", "HOT updates", "fillfactor")
    rows = [
        (
            name,
            _when(each["vacuumed_at"]),
            _when(each["analyzed_at"]),
            _number(each["changed"], ",d"),
            _number(each["dead_share"], ".0%"),
            _number(each["hot_share"], ".0%"),
            each["fillfactor"],
        )
        for name, each in counted.items()
    ]
    print_table(head, rows, text=3)


def _number(value: float | None, form: str, *, unit: float = 1) -> str:
    return "-" if value is None else format(value if unit == 1 else value / unit, form)


def _when(moment: datetime.datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _print_rotations(found: list[dict[str, Any]]) -> None:
    if not found:
        return
    texts = ("table", "vector", "rotation", "kind", "metric")
    head = (*texts, "dims", "fitted on", "when", "recommended", "used by")
    rows = [
        (
            *(each[name] for name in texts),
            f"{each['dims']} > {each['width']}",
            f"{each['rows']:,}",
            _when(each["fitted_at"]),
            "yes" if each["recommended"] else "no",
            ", ".join(each["used_by"]) or "-",
        )
        for each in found
    ]
    print_table(head, rows, text=len(texts))


def _print_funnels(found: list[dict[str, Any]]) -> None:
    if not found:
        print("no funnels; make one with funnelvec.create_funnel")
        return
    names = ("name", "table", "vector", "funnel", "metric", "calibrated")
    rows = [
        [("yes" if each[name] else "no") if name == "calibrated" else each[name] for name in names]
        for each in found
    ]
    print_table(names, rows, text=6)


def _print_relevance(found: list[dict[str, Any]]) -> None:
    for each in found:
        print(each["object"])
        for line in each["advice"].splitlines():
            print(f"  {line}")

"""Rows with named columns from Parquet and CSV files, and from tables of Postgres."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from funnelvec.errors import InvalidInput, MissingDependency, NotFound

__all__ = ["read_csv", "read_parquet", "read_table", "wanted"]


def wanted(columns: Mapping[str, Any]) -> list[str]:
    """The columns that `from_rows` is going to read with these arguments."""
    id = columns.get("id", "id")
    label = columns.get("grade") or columns.get("label") or "relevant"
    return [columns.get("query", "query"), *([id] if isinstance(id, str) else id), label]


def read_parquet(path: str | Path, names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Read columns of a Parquet file."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency.of("pyarrow", extra="arrow") from error
    file = _file(path)
    try:
        with pq.ParquetFile(file) as opened:
            known = opened.schema_arrow.names
            _check_names(names, known, file)
            table = opened.read(columns=list(dict.fromkeys(names)))
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{file} is no Parquet file that can be read: {error}") from None
    columns: dict[str, Sequence[Any]] = table.to_pydict()
    return columns


def read_csv(path: str | Path, names: Sequence[str], *, text_ids: bool) -> dict[str, Sequence[Any]]:
    """Read columns of a CSV file; whole numbers among the keys become numbers."""
    file = _file(path)
    csv.field_size_limit(1 << 28)  # a vector of 3,072 numbers is longer than the default
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            _check_names(names, reader.fieldnames or [], file)
            rows = [{name: row[name] for name in names} for row in reader]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{file} is no CSV file that can be read: {error}") from None
    columns: dict[str, Sequence[Any]] = {name: [row[name] for row in rows] for name in names}
    for name in [] if text_ids else names[1:-1]:
        columns[name] = _whole(columns[name])
    return columns


def _whole(values: Sequence[Any]) -> Sequence[Any]:
    try:
        numbers = [int(value) for value in values]
    except (TypeError, ValueError):
        return values
    # 007 is no number that anybody meant as one.
    same = all(str(number) == value for number, value in zip(numbers, values, strict=True))
    return numbers if same else values


def read_table(database: Any, name: str, names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Read columns of a table through an engine or a psycopg connection."""
    with contextlib.ExitStack() as stack:
        connection = database
        if not hasattr(connection, "execute"):
            if not hasattr(database, "connection"):
                raise InvalidInput(
                    f"from_table reads through a Postgres engine or a psycopg connection, not "
                    f"{type(database).__name__}"
                )
            connection = stack.enter_context(database.connection())
        row = connection.execute("select to_regclass(%s)::text", [str(name)]).fetchone()
        if row is None or row[0] is None:
            raise NotFound(f"there is no table {name!r} on the search_path")
        # Postgres has written the name itself, quoted where it has to be.
        known = [
            column.name
            for column in connection.execute(f"select * from {row[0]} limit 0").description
        ]
        _check_names(names, known, name)
        listed = ", ".join('"' + each.replace('"', '""') + '"' for each in dict.fromkeys(names))
        cursor = connection.execute(f"select {listed} from {row[0]}")
        rows = cursor.fetchall()
    return {each: [row[place] for row in rows] for place, each in enumerate(dict.fromkeys(names))}


def _file(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise NotFound(f"there is no file {str(path)!r}")
    return file


def _check_names(names: Sequence[str], known: Sequence[str], where: object) -> None:
    for name in names:
        if name not in known:
            raise InvalidInput(
                f"judgments: {where} has no column {name!r} (it has: {', '.join(known)}); name it "
                "with query, id, label or grade"
            )

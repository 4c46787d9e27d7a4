"""What `compare_writes` has found, as tables, lines and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from funnelvec.bench.ledger import OPERATIONS, OTHER, Kept
from funnelvec.bench.report import Section
from funnelvec.bench.stats import Ratio, ratio

__all__ = ["TARGET", "Line", "WriteBench"]

#: With `side`, an update of another column costs at most so many times what it does without us.
TARGET = 1.10


@dataclass(frozen=True, slots=True)
class Line:
    """One contestant at one operation.

    Attributes
    ----------
    part
        ``"operations"``, ``"promise"`` (longer, fewer contestants) or ``"room"`` (fillfactor).
    row_us, bare_us
        Microseconds per row by shape of statement, round by round: its own, and those of the table
        without codes, or in ``"room"`` of the one without codes and without room.
    wal
        Bytes of WAL per row.
    hot, hot_at_first
        Share of the updates that were HOT, and that of the first round, when pages were as filling
        had left them. None where nothing was updated.
    """

    part: str
    operation: str
    kept: Kept
    row_us: dict[str, tuple[float, ...]]
    bare_us: dict[str, tuple[float, ...]]
    wal: float
    hot: float | None
    hot_at_first: float | None

    def versus(self, shape: str) -> Ratio:
        """Its time as a multiple of the table without codes."""
        found = ratio(self.row_us[shape], self.bare_us[shape])
        assert found is not None  # writing has taken some time
        return found

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "part": self.part,
            "operation": self.operation,
            "name": self.kept.name,
            "storage": self.kept.storage or None,
            "index": self.kept.index or None,
            "fillfactor": self.kept.fillfactor,
            "row_us": {shape: median(times) for shape, times in self.row_us.items()},
            "rows_per_second": {shape: 1e6 / median(times) for shape, times in self.row_us.items()},
            "versus_bare": {shape: self.versus(shape).as_json() for shape in self.row_us},
            "wal_bytes_per_row": self.wal,
            "hot_share": self.hot,
            "hot_share_at_first": self.hot_at_first,
        }


@dataclass(frozen=True, slots=True)
class WriteBench:
    """What a run has measured; `chunk` rows are written by a transaction."""

    dataset: str
    rows: int
    dims: int
    resolution: str
    chunk: int
    server: str
    images: str
    measured: tuple[Line, ...]

    def line(self, part: str, operation: str, name: str) -> Line:
        """One contestant, by its name, at one operation."""
        return next(
            each
            for each in self.measured
            if (each.part, each.operation, each.kept.name) == (part, operation, name)
        )

    def promise(self, *, touched: bool = False) -> dict[str, Ratio]:
        """By shape of statement: an update of another column with `side`, times one without us.

        `touched`: both with a trigger that runs before the row is written.
        """
        side = next(
            each
            for each in self.measured
            if each.part == "promise"
            and each.kept.storage == "side"
            and each.kept.touched is touched
        )
        return {shape: side.versus(shape) for shape in side.row_us}

    @property
    def passed(self) -> bool:
        """Whether `side` keeps to the target, in a run that is steady enough to say."""
        return all(each.stable and each.value <= TARGET for each in self.promise().values())

    def sections(self) -> list[Section]:
        """The tables to print."""
        made = [
            self._section(operation.capitalize(), "operations", operation)
            for operation in OPERATIONS
        ]
        made.append(self._section("Update of another column, longer", "promise", OTHER))
        room = [each for each in self.measured if each.part == "room"]
        made.append(
            Section(
                "Room on the pages: update of another column, vacuum after every fifth of the rows",
                ("", "rows/s", "WAL B/row", "HOT at first", "HOT later"),
                tuple(
                    (
                        each.kept.name,
                        *(f"{1e6 / median(times):,.0f}" for times in each.row_us.values()),
                        f"{each.wal:,.0f}",
                        _share(each.hot_at_first),
                        _share(each.hot),
                    )
                    for each in room
                ),
            )
        )
        return made

    def _section(self, title: str, part: str, operation: str) -> Section:
        lines = [e for e in self.measured if (e.part, e.operation) == (part, operation)]
        shapes = list(lines[0].row_us)
        head = [each for shape in shapes for each in (f"rows/s, {shape}", "cost, of 'without us'")]
        return Section(
            title,
            ("", *head, "WAL B/row", "HOT"),
            tuple(
                (
                    each.kept.name,
                    *(
                        cell
                        for shape in shapes
                        for cell in (
                            f"{1e6 / median(each.row_us[shape]):,.0f}",
                            each.versus(shape).text(),
                        )
                    ),
                    f"{each.wal:,.0f}",
                    _share(each.hot),
                )
                for each in lines
            ),
        )

    def lines(self) -> list[str]:
        """What follows from the figures."""
        said = "kept" if self.passed else "missed"
        if not all(each.stable for each in self.promise().values()):
            said = "this run is too unsteady to say"
        costs, touched = (
            " and ".join(
                f"{each.text()} {shape}" for shape, each in self.promise(touched=t).items()
            )
            for t in (False, True)
        )
        side, bare, column = (
            self.line("promise", OTHER, name).wal for name in ("side", "without us", "column")
        )
        return [
            f"an update of another column takes {costs}, with side storage as a multiple of the "
            f"same table without us (at most {TARGET:.2f}: {said}); {touched} where a trigger of "
            "yours runs before the row is written, of which nobody can tell what it changes",
            f"it writes {side / bare:.2f} times the WAL with side storage, {column / bare:.2f} "
            "times with codes in a column",
            f"WAL {self.images}; {self.chunk} rows a transaction; vacuum after each round",
            f"{self.rows:,} rows of {self.dims:,} dimensions, codes {self.resolution}, "
            f"{self.dataset}; {self.server}",
        ]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "dataset": self.dataset,
            "rows": self.rows,
            "dims": self.dims,
            "resolution": self.resolution,
            "rows_per_transaction": self.chunk,
            "server": self.server,
            "wal": self.images,
            "target": TARGET,
            "passed": self.passed,
            "promise": {
                name: {
                    shape: each.as_json() for shape, each in self.promise(touched=touched).items()
                }
                for name, touched in (("plain", False), ("with_a_trigger", True))
            },
            "measured": [each.as_json() for each in self.measured],
        }


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"

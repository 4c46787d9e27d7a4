"""Where judgments come from: files, tables, clicks, the query log, a judge, known items.

The class methods of `Judgments` stand here; what they share is in `columns` (rows with named
columns) and `files` (Parquet, CSV, tables of a database). Whatever the source, the rule by which a
row counts as relevant is stated by the caller, and what nobody judged is never guessed in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self

    from funnelvec.types import Hit, Key

__all__ = ["Encoder", "Judge", "JudgmentSources", "Unjudged"]

#: Texts in, their (n, d) embeddings out, by the model that made the column.
Encoder: TypeAlias = Callable[[list[str]], Any]
#: (query, hit) in; True, False, a grade where there is a rule for it, or None: no opinion.
Judge: TypeAlias = Callable[[Any, "Hit"], Any]
#: What a row without a label is: left out, or counted as not relevant.
Unjudged: TypeAlias = Literal["ignored", "irrelevant"]


class JudgmentSources:
    """The class methods of `Judgments` that make them, and how unjudged rows are added."""

    __slots__ = ()

    if TYPE_CHECKING:  # what the value has

        def __init__(
            self,
            queries: npt.NDArray[np.float32],
            ids: Sequence[Key],
            labels: npt.NDArray[np.bool_],
        ) -> None: ...

        @property
        def queries(self) -> npt.NDArray[np.float32]: ...
        @property
        def ids(self) -> Sequence[Key]: ...
        @property
        def labels(self) -> npt.NDArray[np.bool_]: ...

    @classmethod
    def from_rows(
        cls,
        rows: Any,
        *,
        query: str = "query",
        id: str | Sequence[str] = "id",
        label: str | None = None,
        grade: str | None = None,
        relevant_from: float | None = None,
        unjudged: Unjudged | None = None,
        encoder: Encoder | None = None,
    ) -> Self:
        """Read judged pairs from rows with named columns.

        Parameters
        ----------
        rows
            A mapping of names to columns, mappings one for each row, an Arrow table or a data
            frame.
        query
            The column with the query: a vector, or a text where there is an `encoder`.
        id
            The column with the key of the judged row; several where the key has several.
        label, grade, relevant_from
            Which column says whether it is relevant. `label` holds booleans or 0 and 1 (default:
            ``relevant``). `grade` holds numbers, and ``relevant_from`` is the least that counts as
            relevant: there is no default, since 1 means "related" in one set and "perfect" in
            another.
        unjudged
            What rows are whose label is missing: ``ignored`` or ``irrelevant``. None refuses them.
        encoder
            Called once, with a list of the different texts.

        Raises
        ------
        InvalidInput
            If a column is missing or holds something else.
        """
        from funnelvec.judging import columns

        rule = columns.Rule(label, grade, relevant_from, unjudged)
        read = columns.read(rows, query=query, id=id, rule=rule, encoder=encoder)
        return cls(read.queries, read.ids, read.labels)

    @classmethod
    def from_parquet(cls, path: str | Path, **columns: Any) -> Self:
        """Read a Parquet file; for the columns see `from_rows`.

        Raises
        ------
        NotFound
            If there is no such file.
        InvalidInput
            If it cannot be read, or a column is missing or holds something else.
        MissingDependency
            If pyarrow is not installed.
        """
        from funnelvec.judging import files

        return cls.from_rows(files.read_parquet(path, files.wanted(columns)), **columns)

    @classmethod
    def from_csv(cls, path: str | Path, *, text_ids: bool = False, **columns: Any) -> Self:
        """Read a CSV file with a line of names; for the columns see `from_rows`.

        Vectors are written as lists, ``[0.1, 0.2]``; keys that are all whole numbers are read as
        such, unless `text_ids` says that they are texts.

        Raises
        ------
        NotFound
            If there is no such file.
        InvalidInput
            If it cannot be read, or a column is missing or holds something else.
        """
        from funnelvec.judging import files

        named = files.wanted(columns)
        return cls.from_rows(files.read_csv(path, named, text_ids=text_ids), **columns)

    @classmethod
    def from_table(cls, database: Any, name: str, **columns: Any) -> Self:
        """Read a table or view of a Postgres database; for the columns see `from_rows`.

        Parameters
        ----------
        database
            A synchronous Postgres engine, or a psycopg connection.
        name
            The table, as SQL writes it: ``shop.judgments``.
        """
        from funnelvec.judging import files

        return cls.from_rows(files.read_table(database, name, files.wanted(columns)), **columns)

    @classmethod
    def from_clicks(
        cls,
        rows: Any,
        *,
        query: str = "query",
        id: str | Sequence[str] = "id",
        position: str = "position",
        clicked: str = "clicked",
        shown: str | None = None,
        min_clicks: int = 1,
        encoder: Encoder | None = None,
    ) -> Self:
        """Make judgments of clicks: a clicked row is relevant, one that was passed over is not.

        People look at answers from the top, so a row that was not clicked says something only if
        they came past it: rows above the lowest click count as not relevant, rows below it are
        left out (Joachims, KDD 2002), and so are answers without a click. What stands first is
        clicked more than it deserves all the same. **Judgments of clicks are biased by position**,
        which a `PositionBias` warning says; certify with judgments of people where you can.

        Parameters
        ----------
        rows
            A row for every row of every answer that was shown; forms as in `from_rows`.
        position, clicked
            The columns with its place in the answer and whether it was clicked.
        shown
            The column that says which answer it was part of; None takes all rows of one query as
            one answer.
        min_clicks
            How many clicks make a row relevant; with fewer it is left out.
        """
        from funnelvec.judging import clicks

        read = clicks.read(
            rows, query=query, id=id, names=(position, clicked, shown),
            min_clicks=min_clicks, encoder=encoder,
        )  # fmt: skip
        return cls(read.queries, read.ids, read.labels)

    @classmethod
    def known_items(
        cls, queries: Any, ids: Sequence[Key], *, encoder: Encoder | None = None
    ) -> Self:
        """Make judgments of queries whose right answer is known: row ``ids[i]`` for query i.

        Such as the title of each of some documents, or questions that were written for a passage.
        Other rows are not judged by this; `with_unjudged` says what they are.

        Parameters
        ----------
        queries
            (n, d), or n texts where there is an `encoder`.
        """
        import numpy as np

        from funnelvec.judging import columns

        given = list(ids)
        return cls(columns.vectors(queries, encoder), given, np.ones(len(given), dtype=np.bool_))

    @classmethod
    def from_answers(
        cls,
        queries: Any,
        answers: Iterable[Sequence[Hit]],
        judge: Judge,
        *,
        relevant_from: float | None = None,
        unjudged: Unjudged | None = "ignored",
        encoder: Encoder | None = None,
    ) -> Self:
        """Have every hit of some answers judged.

        Parameters
        ----------
        queries, answers
            n queries, vectors or texts, and what `search_many` gave for them.
        judge
            Called with the query as it was given and one hit; says True or False, a grade (then
            with `relevant_from`), or None where it has no opinion.
        unjudged
            What a hit is that the judge has no opinion of: ``ignored`` or ``irrelevant``.
        """
        from funnelvec.judging import answers as judging

        rule = judging.rule_of(relevant_from, unjudged)
        read = judging.read(queries, answers, judge, rule=rule, encoder=encoder)
        return cls(read.queries, read.ids, read.labels)

    @classmethod
    def from_judge(
        cls, table: Any, queries: Any, judge: Judge, *, k: int = 10, **options: Any
    ) -> Self:
        """Search with queries, and have the `k` best rows of each judged; see `from_answers`.

        Parameters
        ----------
        table
            A table of any synchronous engine. With an asynchronous one, await `search_many` and
            hand the answers to `from_answers`.
        """
        from funnelvec.judging import columns

        vectors = columns.vectors(queries, options.get("encoder"))
        return cls.from_answers(queries, table.search_many(vectors, k=k), judge, **options)

    @classmethod
    def from_log(
        cls, table: Any, judge: Judge, *, limit: int = 200, k: int = 10, **options: Any
    ) -> Self:
        """Have answers to the queries judged that people asked last; see `from_judge`.

        Queries come from the query log (`log_queries`), each once, newest first. The log holds
        vectors, so that is what the judge is called with.
        """
        from funnelvec.judging import columns

        asked = columns.distinct(table.logged_queries(limit))
        return cls.from_judge(table, asked, judge, k=k, **options)

    @property
    def unique_queries(self) -> npt.NDArray[np.float32]:
        """(m, d) the different queries, in the order in which they first occur."""
        from funnelvec.judging import columns

        return columns.distinct(self.queries)

    def with_answers(self, answers: Iterable[Sequence[Hit]]) -> Self:
        """Add the rows of answers that nobody judged, as not relevant.

        Parameters
        ----------
        answers
            One for each of `unique_queries`, in their order.
        """
        from funnelvec.judging import answers as judging

        read = judging.completed(self.queries, self.ids, self.labels, answers)
        return type(self)(read.queries, read.ids, read.labels)

    def with_unjudged(self, table: Any, *, k: int = 100, funnel: str | None = None) -> Self:
        """Add the rows that a search returns and nobody judged, as not relevant.

        Judgments that name only what is relevant (known items, clicks, most public sets) need it:
        a curve cannot be fitted to relevant rows alone. It assumes that whoever judged would have
        found what is relevant; where many relevant rows were overlooked, relevances come out too
        low. Without it, only judged rows count.

        Parameters
        ----------
        table
            A table of any synchronous engine; with an asynchronous one use `with_answers`.
        """
        return self.with_answers(table.search_many(self.unique_queries, k=k, funnel=funnel))

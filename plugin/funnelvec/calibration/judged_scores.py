"""Judged pairs with their scores, and what is known of their queries: what choices are made on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.alike import alike
from funnelvec.calibration.listed import list_features
from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.row_stats import QUERY_FEATURES, RowStats
from funnelvec.types import Judgments

__all__ = ["JudgedScores"]

#: As many as there are folds.
_LEAST_GROUPS = 5


@dataclass(frozen=True, slots=True, eq=False)
class JudgedScores:
    """Judged pairs with their scores, and what their queries' shortlists look like.

    Attributes
    ----------
    scores, labels
        (m,) of the pairs.
    query_of
        (m,) the number of each pair's query, from 0.
    lists
        (n, depth) the best scores of each query's shortlist, falling; None where the funnel has no
        shortlist, or nobody has asked for an adapter. Before they are `corrected`, all of the
        shortlist in the order of its `JudgedHubs`.
    groups
        (n,) numbers of groups of queries that cross-validation keeps together; None: each query is
        one of its own. See `alike`.
    asked, rows
        (n,) each: `QUERY_FEATURES` of the queries by name, and what they were read off; none of
        them where the rows were not measured.
    """

    scores: Floats
    labels: npt.NDArray[np.bool_]
    query_of: npt.NDArray[np.intp]
    lists: Floats | None = None
    groups: npt.NDArray[np.int64] | None = None
    asked: Mapping[str, Floats] = field(default_factory=dict)
    rows: RowStats | None = None

    @classmethod
    def of(cls, judgments: Judgments, scores: Floats) -> JudgedScores:
        """Number the queries of judged pairs, whose (m,) scores are given."""
        numbers: dict[bytes, int] = {}
        of = [numbers.setdefault(query.tobytes(), len(numbers)) for query in judgments.queries]
        wanted: list[list[Hashable]] = [[] for _ in numbers]
        for number, id, relevant in zip(of, judgments.ids, judgments.labels, strict=True):
            if relevant:
                wanted[number].append(id)
        return cls(
            scores, judgments.labels, np.array(of, dtype=np.intp), groups=cls.grouped(wanted)
        )

    @staticmethod
    def grouped(wanted: Sequence[Sequence[Hashable]]) -> npt.NDArray[np.int64] | None:
        """Return the groups of queries, given the keys of the relevant rows of each.

        None where there would be too few groups to hold any of them out.
        """
        numbers: dict[Hashable, int] = {}
        groups = alike(
            [
                np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
                for keys in wanted
            ]
        )
        return groups if len(np.unique(groups)) >= _LEAST_GROUPS else None

    @property
    def queries(self) -> int:
        """Number of queries."""
        return int(self.query_of.max()) + 1 if len(self.query_of) else 0

    def take(self, some: npt.NDArray[np.int64]) -> JudgedScores:
        """Return the pairs of some of the queries, which are numbered anew."""
        number = np.full(self.queries, -1, dtype=np.intp)
        number[some] = np.arange(len(some))
        of = number[self.query_of]
        return JudgedScores(
            self.scores[of >= 0],
            self.labels[of >= 0],
            of[of >= 0],
            None if self.lists is None else self.lists[some],
            None if self.groups is None else self.groups[some],
            {name: values[some] for name, values in self.asked.items()},
            self.rows,
        )

    def measured(self, rows: RowStats | None, queries: npt.NDArray[np.float32]) -> JudgedScores:
        """Return the same with what measured rows say of the (n, d) queries."""
        if rows is None:
            return self
        names = QUERY_FEATURES[: 2 + len(rows.directions)]
        asked = dict(zip(names, rows.features(names, queries).T, strict=True))
        return replace(self, asked=asked, rows=rows)

    def features(self, names: tuple[str, ...]) -> Floats:
        """Return (n, len(names)) features of the queries and their lists."""
        assert self.lists is not None
        return list_features(names, self.lists, self.asked)

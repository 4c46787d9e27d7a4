"""Searches of an application whose relevance is read off their shortlist: adapters.

The one request brings the ids and scores of as many rows as the adapter looks at. What the
application is shown is cut out of these here, and only that has its payload and vectors read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import models

from funnelvec.engines.qdrant.hook.funnelling import Asked
from funnelvec.engines.qdrant.hook.judging import Judge
from funnelvec.engines.qdrant.hook.known import Known
from funnelvec.engines.qdrant.hook.reading import hidden
from funnelvec.engines.qdrant.hook.steps import Call, Given, Steps

__all__ = ["Page", "Shortlist"]


@dataclass(frozen=True, slots=True)
class Page:
    """What an application has asked for of a search that is sent for its whole shortlist.

    Attributes
    ----------
    first, rows
        Where its page begins, and how many rows it has.
    with_payload, with_vectors
        As it wrote them.
    """

    first: int
    rows: int
    with_payload: Any
    with_vectors: Any


@dataclass(frozen=True, slots=True)
class Shortlist:
    """A search for `rows` of its shortlist, of which the application is shown a page.

    Attributes
    ----------
    asked
        As the application did, but for the stages of the funnel.
    """

    asked: Asked
    judge: Judge
    page: Page
    rows: int

    @classmethod
    def of(cls, known: Known, judge: Judge, asked: Asked, page: Page) -> Shortlist:
        """Find out how many rows have to come.

        Raises
        ------
        CapabilityError
            If the strict mode of the collection does not allow so many.
        """
        rows = max(asked.rows, judge.depth)
        if known.info is not None:
            known.info.limits.check(judge.depth, "the shortlist that an adapter reads")
        return cls(asked, judge, page, rows)

    @property
    def sent(self) -> Asked:
        """How it is sent."""
        return replace(self.asked, threshold=None, with_vectors=False)

    @property
    def limits(self) -> Given:
        """Arguments of the call beside those of `sent`."""
        return {"limit": self.rows, "offset": None, "with_payload": False}

    def shown(self, known: Known, found: list[models.ScoredPoint]) -> Steps[list[Any]]:
        """Cut the page out of what came back, read what it shows, and mark it."""
        if not found:
            return []
        at, hits = self.judge.cut(found, self.asked.threshold)
        hits = hits[self.page.first : self.page.first + self.page.rows]
        if hits and (self.page.with_payload or self.page.with_vectors):
            hits = yield from self._filled(hits)
        hidden(known, hits, self.page.with_vectors)
        self.judge.mark(hits, at)
        return hits

    def _filled(self, hits: list[models.ScoredPoint]) -> Steps[list[models.ScoredPoint]]:
        given: Given = {
            "collection_name": self.asked.collection,
            "ids": [hit.id for hit in hits],
            "with_payload": self.page.with_payload,
            "with_vectors": self.asked.with_vectors,
            **self.asked.routing,
        }
        records: list[models.Record] = yield Call("retrieve", given)
        read = {str(record.id): record for record in records}
        kept = [hit for hit in hits if str(hit.id) in read]  # some may have been deleted meanwhile
        for hit in kept:
            record = read[str(hit.id)]
            hit.payload, hit.vector = record.payload, record.vector
        return kept

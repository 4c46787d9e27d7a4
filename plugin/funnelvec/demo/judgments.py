"""Judgments that the corpus itself yields, so that the demo can calibrate without a human judge.

The scheme
----------
A query is the first sentence of a docstring. It is judged against its exact top 10, without the
row it was taken from. A row counts as relevant when it belongs to the same package (`csv`,
`asyncio`, `numpy`, ...) as the query's own docstring. Queries come only from packages with at
least ten other documents, so that a full answer could exist.

Why: whoever asks about something that `asyncio` documents is served by a row of `asyncio` more
likely than by another; authors drew these borders, not we. Ten rows are what a search shows, so
the relevance speaks about shown rows. Leaving the own row out keeps the query from finding itself.

What is wrong with it: rows of other packages that would answer count as not relevant, which
pushes relevance down; rows of the same package that miss the point count as relevant, which
pushes it up. The relevance therefore reads as "probability that this row is about the query's
subject", not that it settles the question. With judgments of your users, calibrate with those.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from funnelvec.demo.corpus import Document
from funnelvec.errors import CalibrationError
from funnelvec.types import Judgments

QUERIES = 600
DEPTH = 10
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_LEAST_WORDS, _MOST_WORDS = 4, 25

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def first_sentence(text: str) -> str:
    """The first sentence of a document's prose."""
    return _SENTENCE_END.split(text, maxsplit=1)[0]


def from_corpus(
    documents: Sequence[Document],
    vectors: npt.NDArray[np.float32],
    encode: Encode,
    *,
    queries: int = QUERIES,
    depth: int = DEPTH,
    seed: int = 0,
) -> Judgments:
    """Judge sampled first sentences against their exact top `depth`, as the module says.

    Parameters
    ----------
    documents
        n documents.
    vectors
        Their embeddings, (n, d) float32 of unit length.
    encode
        Turns texts into embeddings of the same space.
    queries, depth, seed
        How many sentences, how many judged rows for each, and the seed of the sample.

    Raises
    ------
    CalibrationError
        When no package has enough documents.
    """
    sample = _sample(documents, queries, depth, seed)
    encoded = encode([first_sentence(documents[i].text) for i in sample])
    packages = np.array([document.package for document in documents])
    scores = encoded @ vectors.T
    scores[np.arange(len(sample)), sample] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return Judgments(
        queries=np.repeat(encoded, depth, axis=0),
        ids=[documents[i].id for i in top.ravel().tolist()],
        labels=(packages[top] == packages[sample][:, None]).ravel(),
    )


def _sample(documents: Sequence[Document], queries: int, depth: int, seed: int) -> list[int]:
    sizes = Counter(document.package for document in documents)
    eligible = [
        i
        for i, document in enumerate(documents)
        if sizes[document.package] > depth
        and _LEAST_WORDS <= len(first_sentence(document.text).split()) <= _MOST_WORDS
    ]
    if not eligible:
        raise CalibrationError(
            f"no package among the {len(documents)} documents has more than {depth} of them, so "
            "the corpus yields no judgments; install more packages beside the demo"
        )
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(eligible, size=min(queries, len(eligible)), replace=False).tolist())

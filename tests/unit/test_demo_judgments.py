from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from funnelvec.demo import questions
from funnelvec.demo.corpus import Document
from funnelvec.demo.judgments import first_sentence, from_corpus
from funnelvec.errors import CalibrationError


def make_documents(per_package: dict[str, int]) -> list[Document]:
    documents: list[Document] = []
    for package, count in per_package.items():
        for number in range(count):
            text = f"Sentence number {number} of {package}. And a second one."
            documents.append(
                Document(len(documents) + 1, f"{package}.f{number}", "function", package, text)
            )
    return documents


def make_vectors(count: int) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(5).standard_normal((count, 16)).astype(np.float32)
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def test_labels_say_same_package_and_the_own_row_is_left_out() -> None:
    documents = make_documents({"big": 8, "other": 6, "small": 2})
    vectors = make_vectors(len(documents))
    of_text = {first_sentence(d.text): vectors[d.id - 1] for d in documents}
    judged = from_corpus(
        documents,
        vectors,
        lambda texts: np.array([of_text[text] for text in texts]),
        queries=100,
        depth=3,
    )
    # Every document of the two packages with more than `depth` documents, and no other.
    assert len(judged) == (8 + 6) * 3
    for query, key, label in zip(judged.queries, judged.ids, judged.labels, strict=True):
        own = int(np.flatnonzero((vectors == query).all(axis=1))[0])
        assert key != documents[own].id
        assert label == (documents[int(str(key)) - 1].package == documents[own].package)
    first = judged.queries[0]
    scores = vectors @ first
    scores[0] = -1
    assert list(judged.ids[:3]) == [int(i) + 1 for i in np.argsort(-scores)[:3]]


def test_a_corpus_of_small_packages_yields_nothing() -> None:
    documents = make_documents({"a": 2, "b": 2})
    with pytest.raises(CalibrationError, match="more than 10"):
        from_corpus(documents, make_vectors(4), lambda texts: make_vectors(len(texts)))


def test_first_sentence() -> None:
    assert first_sentence("Open v1.2 files. Then more.") == "Open v1.2 files."
    assert first_sentence("No end") == "No end"


def test_the_questions_are_five_and_twenty() -> None:
    assert (len(questions.ANSWERABLE), len(set(questions.UNANSWERABLE))) == (5, 20)
    assert questions.MIN_RELEVANCE == 0.5

"""The steps of the demo. Each uses the public interface or SQL, as an application would."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

import funnelvec as fv
from funnelvec import bench
from funnelvec.demo import corpus, judgments, plan
from funnelvec.demo.database import READY, clear, describe_server, mark
from funnelvec.demo.encoder import DIMS, MODEL, Encoder
from funnelvec.demo.results import Answer, Built, Fit, Found
from funnelvec.errors import NotFound

if TYPE_CHECKING:
    from funnelvec.demo.show import Screen
    from funnelvec.engines.base import Table
    from funnelvec.engines.postgres.sync import PostgresEngine
    from funnelvec.reports import RecallReport, ResolutionStatus
    from funnelvec.types import Judgments


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the story plays: the open database, the model, and the screen it is told on."""

    engine: PostgresEngine
    encoder: Encoder
    screen: Screen


class Clock:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        self._start, passed = now, now - self._start
        return passed


class _Text(NamedTuple):
    found: corpus.Corpus
    vectors: npt.NDArray[np.float32]
    gather_seconds: float
    encode_seconds: float


class _Stored(NamedTuple):
    table: Table
    load_seconds: float
    resolution_seconds: float
    status: ResolutionStatus


def build(stage: Stage, *, keep: bool) -> tuple[Built, bench.Dataset]:
    """Gather, embed, load, add a resolution, create a funnel, measure it, calibrate it.

    Returns
    -------
    Built, Dataset
        What was measured; the corpus as vectors, with the sentences that were sampled for the
        judgments as queries.
    """
    stage.screen.step("Real text, without a download")
    text = _gather_and_embed(stage)
    stage.screen.step("A table, a resolution and a funnel in Postgres")
    stored = _store(stage, text)
    stage.screen.step("Recall against exact search")
    recall = _measure(stage, stored.table)
    stage.screen.step("Relevance, calibrated with judgments from the corpus itself")
    judged = judgments.from_corpus(
        text.found.documents, text.vectors, stage.encoder.encode, seed=plan.SEED
    )
    fit = _calibrate(stage, stored.table, judged)
    if keep:
        _keep_for_psql(stage, judged)
    mark(stage.engine, plan.TABLE, READY)
    built = Built(
        documents=len(text.found.documents),
        files=text.found.files,
        gather_seconds=text.gather_seconds,
        encode_seconds=text.encode_seconds,
        load_seconds=stored.load_seconds,
        resolution_seconds=stored.resolution_seconds,
        status=stored.status,
        recall=recall,
        fit=fit,
    )
    dataset = bench.Dataset(
        name="this corpus",
        rows=text.vectors,
        queries=judged.queries[:: judgments.DEPTH],
        note="first sentences of docstrings as queries",
    )
    return built, dataset


def _gather_and_embed(stage: Stage) -> _Text:
    clock = Clock()
    found = _gather(stage.screen)
    gathered = clock.lap()
    stage.screen.gathered(found, gathered)
    vectors = stage.encoder.encode([document.content for document in found.documents])
    encoded = clock.lap()
    stage.screen.encoded(MODEL, DIMS, encoded)
    return _Text(found, vectors, gathered, encoded)


def _store(stage: Stage, text: _Text) -> _Stored:
    screen = stage.screen
    screen.server(describe_server(stage.engine))
    clear(stage.engine)
    clock = Clock()
    table = _load(stage, text.found.documents, text.vectors)
    loaded = clock.lap()
    screen.call(f"docs.add(ids, vectors, columns=...)  # {len(text.vectors):,} rows", loaded)
    with screen.working(f"storing {plan.RESOLUTION}"):
        table.add_resolution(plan.RESOLUTION, index=True)
    stored = clock.lap()
    screen.call(f'docs.add_resolution("{plan.RESOLUTION}", index=True)', stored)
    table.create_funnel(f"{plan.TABLE}_search", plan.FUNNEL, model=MODEL)
    screen.call(f'docs.create_funnel("{plan.TABLE}_search", "{plan.FUNNEL}")', clock.lap())
    with stage.engine.connection() as connection:
        # What autovacuum does in the next minute, which the demo does not wait for.
        connection.execute(f"analyze {plan.TABLE}".encode())
    status = table.status()[0]
    screen.status(status)
    return _Stored(table, loaded, stored, status)


def _measure(stage: Stage, table: Table) -> RecallReport:
    clock = Clock()
    with stage.screen.working("measuring recall"):
        recall = table.measure_recall(sample=plan.RECALL_SAMPLE, k=plan.K, seed=plan.SEED)
    stage.screen.recall(recall, clock.lap())
    return recall


def _gather(screen: Screen) -> corpus.Corpus:
    with screen.bar("reading docstrings") as advance:
        found = corpus.gather(limits=plan.CORPUS, progress=advance)
    if len(found.documents) < plan.LEAST_DOCUMENTS:
        raise NotFound(
            f"only {len(found.documents)} docstrings were found (stopped by: "
            f"{found.stopped_by or 'nothing more to read'}); the demo wants "
            f"{plan.LEAST_DOCUMENTS}: install the demo extra with its dependencies "
            "(pip install 'funnelvec[demo]') beside a Python that has its .py files"
        )
    return found


def _load(
    stage: Stage, documents: Sequence[corpus.Document], vectors: npt.NDArray[np.float32]
) -> Table:
    table = stage.engine.create(
        plan.TABLE,
        dims=DIMS,
        columns={"name": "text", "kind": "text", "package": "text", "text": "text"},
    )
    mark(stage.engine, plan.TABLE)
    table.add(
        [document.id for document in documents],
        vectors,
        columns={
            "name": [document.name for document in documents],
            "kind": [document.kind for document in documents],
            "package": [document.package for document in documents],
            "text": [document.text for document in documents],
        },
        progress=stage.screen.interactive,
    )
    return table


def _calibrate(stage: Stage, table: Table, judged: Judgments) -> Fit:
    clock = Clock()
    fitted = cast("fv.PlattCalibration", table.calibrate(judged))
    seconds = clock.lap()
    with stage.engine.connection() as connection:
        row = connection.execute(
            "select funnelvec.cutoff(%s, %s)", [f"{plan.TABLE}_search", plan.MIN_RELEVANCE]
        ).fetchone()
    assert row is not None
    fit = Fit(
        slope=fitted.slope,
        offset=fitted.offset,
        cutoff=float(row[0]),
        queries=judged.distinct_queries,
        pairs=len(judged),
        relevant=int(judged.labels.sum()),
    )
    stage.screen.calibrated(fit, judgments.DEPTH, seconds)
    return fit


def _keep_for_psql(stage: Stage, judged: Judgments) -> None:
    """Store the embedded questions and the judgments as tables, for SQL typed by hand."""
    texts = [*plan.ANSWERABLE, *plan.UNANSWERABLE]
    table = stage.engine.create("questions", dims=DIMS, columns={"question": "text"})
    mark(stage.engine, "questions")
    table.add(range(1, len(texts) + 1), stage.encoder.encode(texts), columns={"question": texts})
    with stage.engine.connection() as connection:
        connection.execute(
            f"create table judgments (query vector({DIMS}) not null, id bigint not null, "
            "relevant boolean not null)"
        )
        with connection.cursor() as cursor, cursor.copy("copy judgments from stdin") as copy:
            for query, key, label in zip(judged.queries, judged.ids, judged.labels, strict=True):
                copy.write_row((str(query.tolist()), key, bool(label)))
    mark(stage.engine, "judgments")


def answer(stage: Stage, questions: Sequence[str], *, k: int = plan.SHOWN) -> list[Answer]:
    """Search for each question at the fixed threshold."""
    table = stage.engine.table(plan.TABLE)
    answers = []
    for question, vector in zip(questions, stage.encoder.encode(questions), strict=True):
        hits = table.search(vector, k=k, min_relevance=plan.MIN_RELEVANCE)
        nearest = [] if hits else table.search(vector, k=plan.SHOWN)
        answers.append(
            Answer(question, _with_text(stage.engine, hits), _with_text(stage.engine, nearest))
        )
    return answers


def _with_text(engine: PostgresEngine, hits: Sequence[fv.Hit]) -> tuple[Found, ...]:
    with engine.connection() as connection:
        rows: dict[Any, tuple[str, str]] = {
            key: (name, text)
            for key, name, text in connection.execute(
                f"select id, name, text from {plan.TABLE} where id = any(%s)",
                [[hit.id for hit in hits]],
            )
        }
    return tuple(Found(hit, *rows[hit.id]) for hit in hits)


def explain(stage: Stage, question: str) -> fv.Explanation:
    """Explain the search for one question."""
    table = stage.engine.table(plan.TABLE)
    vector = stage.encoder.encode([question])[0]
    table.search(vector, k=plan.K)  # the first one reads pages that the next ones find in memory
    return table.explain(vector, k=plan.K, min_relevance=plan.MIN_RELEVANCE)


def compare(stage: Stage, dataset: bench.Dataset) -> Iterator[bench.BenchReport]:
    """Compare on the corpus, then on wide generated vectors; the bench's tables, not `docs`."""
    # Spread over the corpus: they come in its order.
    step = max(1, len(dataset.queries) // plan.COMPARED_QUERIES)
    queries = dataset.queries[::step][: plan.COMPARED_QUERIES]
    yield _compare(stage, replace(dataset, queries=queries), plan.FUNNEL)
    wide = bench.generate(
        plan.WIDE_ROWS, plan.COMPARED_QUERIES, dims=plan.WIDE_DIMS, seed=plan.SEED
    )
    yield _compare(stage, replace(wide, name="generated vectors"), plan.WIDE_FUNNEL)


def _compare(stage: Stage, dataset: bench.Dataset, funnel: str) -> bench.BenchReport:
    server = stage.engine.server
    assert server is not None  # `database` opens embedded servers only
    with stage.screen.working(dataset.name) as say:
        return bench.compare(
            server.url(),
            dataset,
            funnel=funnel,
            k=plan.K,
            rounds=plan.COMPARED_ROUNDS,
            with_overhead=False,
            say=say,
        )

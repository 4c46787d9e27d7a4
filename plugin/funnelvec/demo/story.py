"""The steps of the demo. Each uses the public interface or SQL, as an application would."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

import funnelvec as fv
from funnelvec.demo import corpus, judgments, plan, synthetic
from funnelvec.demo.compare import Case, Comparison, compare
from funnelvec.demo.encoder import DIMS, MODEL, Encoder
from funnelvec.demo.results import Answer, Built, Fit, Found, Server
from funnelvec.errors import Conflict, NotFound

if TYPE_CHECKING:
    from funnelvec.demo.show import Screen
    from funnelvec.engines.base import Table
    from funnelvec.engines.postgres.sync import PostgresEngine
    from funnelvec.types import Judgments

# Written as a comment on our tables, so that a later run knows them from the user's own.
_MARK = "made by funnelvec demo"
_READY = f"{_MARK}, complete"
_TABLES = (plan.TABLE, plan.WIDE_TABLE, "questions", "judgments")


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


@contextmanager
def database(directory: Path, *, tuned: bool) -> Iterator[PostgresEngine]:
    """Open the embedded Postgres of a folder; `tuned` gives it the comparison's settings."""
    options = {"settings": _server_settings()} if tuned else {}
    with cast("PostgresEngine", fv.connect(f"pg-embedded:{directory}", **options)) as engine:
        yield engine


def _server_settings() -> dict[str, str | int | float | bool]:
    settings: dict[str, str | int | float | bool] = {
        "shared_buffers": f"{plan.SHARED_BUFFERS_MB}MB",
        "maintenance_work_mem": f"{plan.MAINTENANCE_MB}MB",
        "max_wal_size": "4GB",
    }
    # A parallel build shares its memory there, and containers often have 64 MB of it.
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free < (plan.MAINTENANCE_MB + 32) << 20:
        settings["max_parallel_maintenance_workers"] = 0
    return settings


def describe_server(engine: PostgresEngine) -> Server:
    """Read the versions, and how to reach the database from outside."""
    server = engine.server
    assert server is not None  # `database` opens embedded servers only
    with engine.connection() as connection:
        row = connection.execute(
            "select current_setting('server_version'), funnelvec.version(), "
            "(select extversion from pg_extension where extname = 'vector')"
        ).fetchone()
    assert row is not None
    return Server(
        directory=str(server.directory),
        psql=str(server.bin_dir / "psql"),
        url=server.url(),
        postgres=row[0],
        funnelvec=row[1],
        pgvector=row[2],
    )


def is_ready(engine: PostgresEngine) -> bool:
    """Whether an earlier run left a complete table of documents here."""
    return _comment(engine, plan.TABLE) == _READY


def clear(engine: PostgresEngine) -> None:
    """Remove what an earlier run left; a table of those names that is not ours is a `Conflict`."""
    present = [name for name in _TABLES if _comment(engine, name) is not None]
    for name in present:
        if not (_comment(engine, name) or "").startswith(_MARK):
            raise Conflict(
                f"the database has a table {name!r} that this demo did not make; use another "
                "folder with --keep, or rename that table"
            )
    for name in present:
        if name in (plan.TABLE, plan.WIDE_TABLE):
            table = engine.table(name, vector="embedding")
            # An earlier run may have been interrupted before it came that far.
            with suppress(NotFound):
                table.drop_funnel(f"{name}_search")
        with engine.connection() as connection:
            connection.execute(f"drop table {name}")


def _comment(engine: PostgresEngine, table: str) -> str | None:
    """The comment on a table, '' if it has none, None if there is no such table."""
    with engine.connection() as connection:
        row = connection.execute(
            "select coalesce(obj_description(to_regclass(%s), 'pg_class'), '') "
            "where to_regclass(%s) is not null",
            [table, table],
        ).fetchone()
    return None if row is None else str(row[0])


def _mark(engine: PostgresEngine, table: str, text: str = _MARK) -> None:
    with engine.connection() as connection:
        connection.execute(f"comment on table {table} is '{text}'")


def build(stage: Stage, *, keep: bool) -> tuple[Built, npt.NDArray[np.float32]]:
    """Gather, embed, load, add a resolution, create a funnel, measure it, calibrate it.

    Returns
    -------
    Built, ndarray
        What was measured, and (m, 256) float32 queries that the comparison may use: sentences of
        the corpus that were sampled for the judgments.
    """
    screen, clock = stage.screen, Clock()
    screen.step("Real text, without a download")
    found = _gather(screen)
    gathered = clock.lap()
    screen.gathered(found, gathered)
    vectors = stage.encoder.encode([document.content for document in found.documents])
    encoded = clock.lap()
    screen.encoded(MODEL, DIMS, encoded)

    screen.step("A table, a resolution and a funnel in Postgres")
    screen.server(describe_server(stage.engine))
    clear(stage.engine)
    clock.lap()
    table = _load(stage, found.documents, vectors)
    loaded = clock.lap()
    screen.call(f"docs.add(ids, vectors, columns=...)  # {len(found.documents):,} rows", loaded)
    _build_in_parallel(stage.engine, plan.TABLE)
    clock.lap()
    table.add_resolution(plan.RESOLUTION, index=True)
    stored = clock.lap()
    screen.call(f'docs.add_resolution("{plan.RESOLUTION}", index=True)', stored)
    table.create_funnel(f"{plan.TABLE}_search", plan.FUNNEL, model=MODEL)
    screen.call(f'docs.create_funnel("{plan.TABLE}_search", "{plan.FUNNEL}")', clock.lap())
    status = table.status()[0]
    screen.status(status)

    screen.step("Recall against exact search")
    clock.lap()
    recall = table.measure_recall(sample=plan.RECALL_SAMPLE, k=plan.K, seed=plan.SEED)
    screen.recall(recall, clock.lap())

    screen.step("Relevance, calibrated with judgments from the corpus itself")
    judged = judgments.from_corpus(found.documents, vectors, stage.encoder.encode, seed=plan.SEED)
    clock.lap()
    fit = _calibrate(stage.engine, table, judged)
    screen.calibrated(fit, judgments.DEPTH, clock.lap())
    if keep:
        _keep_for_psql(stage, judged)
    _mark(stage.engine, plan.TABLE, _READY)
    built = Built(
        documents=len(found.documents),
        files=found.files,
        gather_seconds=gathered,
        encode_seconds=encoded,
        load_seconds=loaded,
        resolution_seconds=stored,
        status=status,
        recall=recall,
        fit=fit,
    )
    return built, judged.queries[:: judgments.DEPTH]


def _gather(screen: Screen) -> corpus.Corpus:
    with screen.bar("reading docstrings") as advance:
        found = corpus.gather(progress=advance)
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
    _mark(stage.engine, plan.TABLE)
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


def _calibrate(engine: PostgresEngine, table: Table, judged: Judgments) -> Fit:
    fitted = cast("fv.PlattCalibration", table.calibrate(judged))
    with engine.connection() as connection:
        row = connection.execute(
            "select funnelvec.cutoff(%s, %s)", [f"{plan.TABLE}_search", plan.MIN_RELEVANCE]
        ).fetchone()
    assert row is not None
    return Fit(
        slope=fitted.slope,
        offset=fitted.offset,
        cutoff=float(row[0]),
        queries=judged.distinct_queries,
        pairs=len(judged),
        relevant=int(judged.labels.sum()),
    )


def _keep_for_psql(stage: Stage, judged: Judgments) -> None:
    """Store the embedded questions and the judgments as tables, for SQL typed by hand."""
    texts = [*plan.ANSWERABLE, *plan.UNANSWERABLE]
    table = stage.engine.create("questions", dims=DIMS, columns={"question": "text"})
    _mark(stage.engine, "questions")
    table.add(range(1, len(texts) + 1), stage.encoder.encode(texts), columns={"question": texts})
    with stage.engine.connection() as connection:
        connection.execute(
            f"create table judgments (query vector({DIMS}) not null, id bigint not null, "
            "relevant boolean not null)"
        )
        with connection.cursor() as cursor, cursor.copy("copy judgments from stdin") as copy:
            for query, key, label in zip(judged.queries, judged.ids, judged.labels, strict=True):
                copy.write_row((str(query.tolist()), key, bool(label)))
    _mark(stage.engine, "judgments")


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


def compare_corpus(stage: Stage, built: Built, queries: npt.NDArray[np.float32]) -> Comparison:
    """Compare on the corpus, with sentences of it as queries."""
    case = Case(
        title=f"this corpus: {built.documents:,} x {DIMS}",
        table=plan.TABLE,
        vector="embedding",
        key="id",
        function=f"{plan.TABLE}_search",
        funnel=plan.FUNNEL,
        code_column=built.status.column,
        funnel_index=str(built.status.index),
        funnel_seconds=built.resolution_seconds,
        ef_search=plan.EF_SEARCH,
    )
    return _run(stage, case, queries[: plan.COMPARED_QUERIES])


def compare_wide(stage: Stage) -> Comparison:
    """Generate the wide case, load it, give it a funnel, and compare."""
    generated = synthetic.generate(
        plan.WIDE_ROWS, plan.COMPARED_QUERIES, dims=plan.WIDE_DIMS, seed=plan.SEED
    )
    table = stage.engine.create(plan.WIDE_TABLE, dims=plan.WIDE_DIMS)
    _mark(stage.engine, plan.WIDE_TABLE)
    table.add(range(1, plan.WIDE_ROWS + 1), generated.rows, progress=stage.screen.interactive)
    _build_in_parallel(stage.engine, plan.WIDE_TABLE)
    clock = Clock()
    table.add_resolution(plan.RESOLUTION, index=True)
    seconds = clock.lap()
    table.create_funnel(f"{plan.WIDE_TABLE}_search", plan.WIDE_FUNNEL)
    status = table.status()[0]
    case = Case(
        title=(f"generated: {plan.WIDE_ROWS:,} x {plan.WIDE_DIMS:,}, {synthetic.FORMULA}"),
        table=plan.WIDE_TABLE,
        vector="embedding",
        key="id",
        function=f"{plan.WIDE_TABLE}_search",
        funnel=plan.WIDE_FUNNEL,
        code_column=status.column,
        funnel_index=str(status.index),
        funnel_seconds=seconds,
        ef_search=plan.EF_SEARCH,
    )
    return _run(stage, case, generated.queries)


def _build_in_parallel(engine: PostgresEngine, table: str) -> None:
    """Let both contestants' index builds use the second core.

    Left alone, Postgres counts the pages of the table itself, and wide vectors are not in there.
    """
    with engine.connection() as connection:
        connection.execute(f"alter table {table} set (parallel_workers = {plan.BUILD_WORKERS})")


def _run(stage: Stage, case: Case, queries: npt.NDArray[np.float32]) -> Comparison:
    with stage.engine.connection() as connection:
        connection.execute(f"vacuum analyze {case.table}")
        with stage.screen.bar(f"searching {case.table} in turns") as advance:
            return compare(connection, case, queries, k=plan.K, progress=advance)

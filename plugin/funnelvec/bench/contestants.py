"""Who takes part: each way to search is one value, so another one is another line in a list.

Everything a contestant does is SQL that a user could type. Contestants on the same table with the
same `build` share what it builds; those that must not meet in one planner get different tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from funnelvec.errors import CapabilityError
from funnelvec.funnel import Funnel

__all__ = [
    "EF_SEARCH",
    "FILTER_COLUMN",
    "FUNNEL_TABLE",
    "PLAIN_TABLE",
    "Contestant",
    "default_funnel",
    "exact_scan",
    "full_hnsw",
    "our_funnel",
    "over_plain",
]

PLAIN_TABLE, FUNNEL_TABLE = "plain", "funneled"
FUNNEL_NAME = "funneled_search"
FILTER_COLUMN = "bucket"

#: The values of ``hnsw.ef_search`` among which full HNSW's best is looked for; 40 is its default.
EF_SEARCH = (40, *range(50, 200, 10), *range(200, 400, 20), *range(400, 1001, 50))

_M, _EF_CONSTRUCTION = 16, 64
_HNSW = f"m {_M}, ef_construction {_EF_CONSTRUCTION}"
_LONGEST = 1000  # of hnsw.ef_search


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to search.

    Attributes
    ----------
    name, label
        As printed: in full, and where there is little room.
    table
        Table in the benchmark's schema that it searches.
    statement
        SQL with ``%(query)s`` and ``%(k)s``; the first column of its rows is the id.
    build, undo
        SQL that makes its indexes (timed) and removes them again. One that ends in ``\\gexec`` is
        run until it gives nothing, and what it gives is run, as in psql.
    settings
        Settings of its connection.
    remark
        What a reader has to know of its settings beside `settings`.
    index
        Whether its plan has to use an index, and the table's indexes count as its own.
    ours
        Whether the others are compared with it.
    every
        It runs only every so many queries: for those that take long and whose recall is known.
    indexes
        Which indexes of its table are its own; empty: all but the primary key.
    beside
        Tables that it keeps beside its own.
    ready
        SQL that is run before it searches and takes no time worth counting.
    """

    name: str
    label: str
    table: str
    statement: str
    build: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    remark: str = ""
    index: bool = True
    ours: bool = False
    every: int = 1
    indexes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()


def default_funnel(dims: int) -> Funnel:
    """What is measured when no funnel is named: 128 dimensions keep 200 rows, as in the manual."""
    return Funnel.parse(f"{max(1, min(128, dims // 2))}:f16@200 > {dims}:f32")


def our_funnel(schema: str, funnel: Funnel, *, dims: int) -> Contestant:
    """A funnel, built by the calls that the manual shows."""
    table = f"{schema}.{FUNNEL_TABLE}"
    first, *others = dict.fromkeys(str(stage.resolution) for stage in funnel.stages)
    stored = [other for other in others if other != f"{dims}:f32"]
    approximate = str(funnel.last.resolution) != f"{dims}:f32"
    return Contestant(
        name=f"funnel {funnel}",
        label="funnel",
        table=FUNNEL_TABLE,
        statement=f"select * from {schema}.{FUNNEL_NAME}(%(query)s, %(k)s)",
        build=(
            f"select funnelvec.add_resolutions('{table}', 'embedding', '{funnel}', "
            "allow_rewrite => true)",
            f"select funnelvec.create_funnel('{FUNNEL_NAME}', '{table}', 'embedding', '{funnel}'"
            f"{', approximate => true' if approximate else ''})",
        ),
        undo=(
            f"select funnelvec.drop_funnel('{schema}.{FUNNEL_NAME}')",
            *(
                f"select funnelvec.drop_resolution('{table}', 'embedding', '{resolution}')"
                for resolution in (first, *stored)
            ),
        ),
        remark=f"{_HNSW}; the function sets hnsw.ef_search to the first keep, for its call",
        ours=True,
    )


def full_hnsw(schema: str, *, dims: int, ef_search: int, note: str = "") -> Contestant:
    """HNSW over the whole vector: over the column itself, or its halfvec cast beyond 2,000."""
    table = f"{schema}.{PLAIN_TABLE}"
    if dims > 4000:
        raise CapabilityError(f"pgvector has no HNSW index over {dims} dimensions; 4,000 at most")
    cast = f"::halfvec({dims})" if dims > 2000 else ""
    expression = f"(embedding{cast})" if cast else "embedding"
    opclass = "halfvec_cosine_ops" if cast else "vector_cosine_ops"
    kind = "full HNSW (halfvec)" if cast else "full HNSW"
    return over_plain(
        schema,
        f"{kind}, ef_search {ef_search}{note}",
        f"{PLAIN_TABLE}_hnsw",
        f"{expression} {opclass}",
        label=f"{kind}, ef {ef_search}",
        statement=f"select id, 1 - (embedding <=> %(query)s) as score from {table} "
        f"order by {expression} <=> %(query)s{cast} limit %(k)s",
        ef_search=ef_search,
    )


def over_plain(
    schema: str,
    name: str,
    index: str,
    what: str,
    *,
    statement: str,
    ef_search: int,
    label: str | None = None,
) -> Contestant:
    """A search by an HNSW index of its own over the table without codes.

    Parameters
    ----------
    index, what
        Name of the index, and what it is over, with its operator class.
    """
    return Contestant(
        name=name,
        label=label or name,
        table=PLAIN_TABLE,
        statement=statement,
        build=(
            f"create index {index} on {schema}.{PLAIN_TABLE} using hnsw ({what}) "
            f"with (m = {_M}, ef_construction = {_EF_CONSTRUCTION})",
        ),
        undo=(f"drop index {schema}.{index}",),
        indexes=(index,),
        # As the funnel's function does for its own call: the planner may not prefer a scan.
        settings=(("hnsw.ef_search", str(min(ef_search, _LONGEST))), ("enable_seqscan", "off")),
        remark=_HNSW,
    )


def exact_scan(schema: str, *, every: int) -> Contestant:
    """Every row compared. No index serves a sum, so one on the table changes nothing."""
    distance = "embedding <=> %(query)s"
    return Contestant(
        name="exact scan",
        label="exact",
        table=PLAIN_TABLE,
        statement=f"select id, 1 - ({distance}) as score from {schema}.{PLAIN_TABLE} "
        f"order by ({distance}) + 0, id limit %(k)s",
        index=False,
        every=every,
    )

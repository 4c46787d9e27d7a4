"""More of what people run: exact search, Supabase's two passes, pgvectorscale.

`recipes` has what pgvector's own manual says.
"""

from __future__ import annotations

from typing import Any

from funnelvec.bench.contestants import PLAIN_TABLE, Contestant, exact_scan
from funnelvec.bench.knobs import Setting
from funnelvec.bench.recipes import KEEPS, Recipe

__all__ = ["SCALE_TABLE", "adaptive", "diskann", "diskann_missing", "exact"]

#: Exact search takes as long for any query: it answers one in so many.
EXACT_EVERY = 20
#: As Supabase published it: m, ef_construction, and the shortest list of a search.
_ADAPTIVE_M, _ADAPTIVE_EF, _ADAPTIVE_LIST = 32, 400, 200
_ADAPTIVE_WIDTH = 512
#: Each row of a shortlist costs it a call of its function.
_ADAPTIVE_KEEPS = tuple(keep for keep in KEEPS if keep <= 200)
#: A table of its own: over the other one the planner would have two indexes for one search.
SCALE_TABLE = "plain_scale"
_SCALE_LISTS = (10, 20, 40, 60, 80, 100, 150, 200, 300, 400, 600, 1000)
_SCALE_RESCORE = (25, 50, 100, 200, 400, 1000)


def exact(schema: str) -> Recipe:
    """Every row compared; there is nothing to turn."""
    return Recipe("exact scan", "exact scan", (), lambda at: exact_scan(schema, every=EXACT_EVERY))


def adaptive(schema: str, *, dims: int, home: str) -> Recipe:
    """The adaptive retrieval of supabase.com/blog/matryoshka-embeddings, made to run.

    Two passes: a shortlist by a prefix that `sub_vector` cuts and scales to unit length, under an
    index over that expression with their parameters, then the whole vectors of the shortlist. What
    differs from the text of 2024-02, which does not create: the body is one query (theirs stands
    between begin and end of a function in SQL), the shortlist is literal (8 times the rows that
    are asked for, in theirs; a knob here), the list of the index is at least as long as the
    shortlist, the second pass orders by cosine, as these vectors need not be of unit length, and
    the type is written with its schema: PostgreSQL 17 builds indexes with a search_path of its own.

    Parameters
    ----------
    home
        Schema of pgvector.
    """
    width = min(_ADAPTIVE_WIDTH, dims // 2)
    cut = f"{schema}.sub_vector({{}}, {width})::vector({width})"
    coarse = f"{cut.format('embedding')} <#> (select {cut.format('%(query)s::vector')})"
    index = "plain_adaptive"

    def at(setting: Setting) -> Contestant:
        shortlist = f"select * from {schema}.{PLAIN_TABLE} order by {coarse} asc limit {setting[0]}"
        return Contestant(
            name=f"Supabase's adaptive retrieval({width}), shortlist {setting[0]}",
            label="adaptive retrieval",
            table=PLAIN_TABLE,
            statement=f"with shortlist as ({shortlist}) "
            "select id, 1 - (embedding <=> %(query)s) as score from shortlist "
            "order by embedding <=> %(query)s limit %(k)s",
            build=(
                _sub_vector(schema, home),
                f"create index {index} on {schema}.{PLAIN_TABLE} "
                f"using hnsw (({cut.format('embedding')}) vector_ip_ops) "
                f"with (m = {_ADAPTIVE_M}, ef_construction = {_ADAPTIVE_EF})",
            ),
            undo=(f"drop index {schema}.{index}",),
            indexes=(index,),
            settings=(
                ("hnsw.ef_search", str(max(_ADAPTIVE_LIST, setting[0]))),
                ("enable_seqscan", "off"),
            ),
            remark=f"m {_ADAPTIVE_M}, ef_construction {_ADAPTIVE_EF}, as published",
        )

    name = f"adaptive retrieval({width})"
    return Recipe("Supabase's adaptive retrieval", name, (("shortlist", _ADAPTIVE_KEEPS),), at)


def _sub_vector(schema: str, home: str) -> str:
    """The prefix at unit length by way of an array, in PL/pgSQL, as in the publication."""
    return f"""
        create or replace function {schema}.sub_vector(whole {home}.vector, dims integer)
        returns {home}.vector
        language plpgsql
        immutable
        as $$
        begin
          return (
            select array_agg(n / length order by i)::{home}.vector
              from unnest(whole::real[]) with ordinality as part(n, i),
                   (select sqrt(sum(n * n)) as length
                      from unnest(whole::real[]) with ordinality as part(n, i)
                     where i <= dims) as prefix
             where i <= dims);
        end
        $$"""


def diskann(schema: str) -> Recipe:
    """pgvectorscale's StreamingDiskANN over its quantized codes, rescored; built as it comes."""
    index = "plain_diskann"

    def at(setting: Setting) -> Contestant:
        rescore, list_size = setting
        return Contestant(
            name=f"pgvectorscale, list {list_size}, rescore {rescore}",
            label="pgvectorscale",
            table=SCALE_TABLE,
            statement="select id, 1 - (embedding <=> %(query)s) as score "
            f"from {schema}.{SCALE_TABLE} order by embedding <=> %(query)s limit %(k)s",
            build=(
                f"create index {index} on {schema}.{SCALE_TABLE} "
                "using diskann (embedding vector_cosine_ops)",
            ),
            undo=(f"drop index {schema}.{index}",),
            indexes=(index,),
            settings=(
                ("diskann.query_rescore", str(rescore)),
                ("diskann.query_search_list_size", str(list_size)),
                ("enable_seqscan", "off"),
            ),
        )

    knobs = (("rescore", _SCALE_RESCORE), ("list", _SCALE_LISTS))
    return Recipe("pgvectorscale", "pgvectorscale", knobs, at)


def diskann_missing(connection: Any, *, own: bool) -> str | None:
    """Why pgvectorscale cannot take part; None where it can.

    On a server of its own the run creates the extension; in a database of the user's it has to be
    there, as a benchmark leaves nothing behind.
    """
    row = connection.execute(
        "select installed_version from pg_available_extensions where name = 'vectorscale'"
    ).fetchone()
    if row is None:
        return "no pgvectorscale: it is not on this server"
    if row[0] is None and not own:
        return "no pgvectorscale: this server has it, but not this database (create extension)"
    if row[0] is None:
        connection.execute("create extension vectorscale")
    return None

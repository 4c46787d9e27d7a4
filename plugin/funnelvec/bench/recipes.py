"""What people run today, each with the knobs that its manual names, and our funnels beside them.

A `Recipe` is a way to search whose knobs are not turned yet. The peers' statements are those of
pgvector's README: HNSW, half-precision indexing, binary quantization, indexing subvectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from funnelvec.bench.contestants import (
    EF_SEARCH,
    PLAIN_TABLE,
    Contestant,
    full_hnsw,
    over_plain,
)
from funnelvec.bench.knobs import Knobs, Setting
from funnelvec.codes.rotations import is_random
from funnelvec.errors import InvalidInput
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution

__all__ = ["KEEPS", "Recipe", "our_recipe", "peers"]

#: The values of every keep and limit among which the best is looked for.
KEEPS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500, 700, 1000)

_DEFAULT_EF = 40
#: Rotations that are turned after they are fitted, by the names that templates give them.
_CHAINS = {"pcar": "random"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to search, and what can be turned about it.

    Attributes
    ----------
    family
        The best recipe of a family stands for it: they differ in what they index.
    name
        As printed while it is measured.
    knobs
        See `Knobs`; empty where there is nothing to turn.
    at
        The contestant for a value of each knob.
    ours
        Whether it is a funnel.
    fitted
        Rotations that have to be fitted first: name, width, and what turns them afterwards.
    elsewhere
        The same over another table; for those that have a table of their own.
    """

    family: str
    name: str
    knobs: Knobs
    at: Callable[[Setting], Contestant]
    ours: bool = False
    fitted: tuple[tuple[str, int, str | None], ...] = ()
    elsewhere: Callable[[str], Recipe] | None = None

    def dearest(self) -> Setting:
        """The setting that finds most."""
        return tuple(values[-1] for _, values in self.knobs)


def peers(schema: str, *, dims: int) -> list[Recipe]:
    """Full HNSW, HNSW over halfvec, subvectors and signs, each searched as its manual says."""
    found = []
    if dims <= 2000:
        found.append(
            Recipe(
                "full HNSW",
                "full HNSW",
                (("ef_search", EF_SEARCH),),
                lambda at: full_hnsw(schema, dims=dims, ef_search=at[0]),
            )
        )
    if dims <= 4000:
        found.append(_halfvec(schema, dims))
    found += [_subvector(schema, width) for width in (64, 128, 256, 512) if width < dims]
    return [*found, _signs(schema, dims)]


def _halfvec(schema: str, dims: int) -> Recipe:
    expression = f"(embedding::halfvec({dims}))"

    def at(setting: Setting) -> Contestant:
        return over_plain(
            schema,
            f"halfvec HNSW, ef_search {setting[0]}",
            "plain_halfvec",
            f"{expression} halfvec_cosine_ops",
            statement=f"select id, 1 - (embedding <=> %(query)s) as score "
            f"from {schema}.{PLAIN_TABLE} "
            f"order by {expression} <=> %(query)s::halfvec({dims}) limit %(k)s",
            ef_search=setting[0],
        )

    return Recipe("halfvec HNSW", "halfvec HNSW", (("ef_search", EF_SEARCH),), at)


def _subvector(schema: str, width: int) -> Recipe:
    expression = f"(subvector(embedding, 1, {width})::vector({width}))"
    name = f"subvector({width})"

    def at(setting: Setting) -> Contestant:
        return _reranked(
            schema,
            name,
            f"plain_sub_{width}",
            f"{expression} vector_cosine_ops",
            f"{expression} <=> subvector(%(query)s::vector, 1, {width})::vector({width})",
            keep=setting[0],
        )

    return Recipe("subvector + rerank", name, (("limit", KEEPS),), at)


def _signs(schema: str, dims: int) -> Recipe:
    expression = f"(binary_quantize(embedding)::bit({dims}))"

    def at(setting: Setting) -> Contestant:
        return _reranked(
            schema,
            "sign codes",
            "plain_signs",
            f"{expression} bit_hamming_ops",
            f"{expression} <~> binary_quantize(%(query)s::vector)::bit({dims})",
            keep=setting[0],
        )

    return Recipe("sign codes + rerank", "sign codes", (("limit", KEEPS),), at)


def _reranked(
    schema: str, name: str, index: str, what: str, order: str, *, keep: int
) -> Contestant:
    inner = f"select * from {schema}.{PLAIN_TABLE} order by {order} limit {keep}"
    return over_plain(
        schema,
        f"{name} + rerank {keep}",
        index,
        what,
        statement=f"select id, 1 - (embedding <=> %(query)s) as score from ({inner}) as coarse "
        "order by embedding <=> %(query)s limit %(k)s",
        ef_search=max(_DEFAULT_EF, keep),
    )


def our_recipe(schema: str, template: str, *, table: str, dims: int, storage: str) -> Recipe:
    """A funnel whose keeps are its knobs.

    Parameters
    ----------
    template
        A funnel without keeps: ``"128:f16 > 512:f16 > 1536:f32"``.
    table
        Its own table, so that no codes but its own widen the rows.
    storage
        Where its codes lie: ``column`` or ``side``.
    """
    resolutions = tuple(part.strip() for part in template.split(">"))
    if len(resolutions) not in (2, 3):
        raise InvalidInput(f"a template has two or three resolutions, unlike {template!r}")
    first, *others = resolutions[:-1]
    name = template if storage == "column" else f"{template}, {storage}"
    function = f"{table}_search"
    beside = tuple(
        f"{table}_embedding_{each.replace(':', '_').replace('~', '_')}" for each in (first, *others)
    ) * (storage == "side")

    def at(setting: Setting) -> Contestant:
        funnel = Funnel.parse(
            " > ".join(
                (
                    *(f"{each}@{keep}" for each, keep in zip(resolutions, setting, strict=False)),
                    resolutions[-1],
                )
            )
        )
        return Contestant(
            name=f"funnel {funnel}" + ("" if storage == "column" else f", {storage}"),
            label="funnel",
            table=table,
            statement=f"select * from {schema}.{function}(%(query)s, %(k)s)",
            build=_storing(schema, table, (first, *others), whole=resolutions[-1], storage=storage),
            undo=_dropping(schema, table, (first, *others)),
            beside=beside,
            ready=(
                f"select funnelvec.create_funnel('{function}', '{schema}.{table}', 'embedding', "
                f"'{funnel}', replace => true)",
            ),
            ours=True,
        )

    knobs = [(f"keep of {first}", tuple(keep for keep in KEEPS if keep >= 40))]
    knobs += [(f"keep of {other}", tuple(keep for keep in KEEPS if keep <= 60)) for other in others]
    return Recipe(
        "funnel",
        name,
        tuple(knobs),
        at,
        ours=True,
        fitted=_fitted(resolutions),
        elsewhere=lambda other: our_recipe(
            schema, template, table=other, dims=dims, storage=storage
        ),
    )


def _fitted(resolutions: tuple[str, ...]) -> tuple[tuple[str, int, str | None], ...]:
    """Rotations of a template that are not random ones, each at its widest."""
    widths: dict[str, int] = {}
    for resolution in map(Resolution.parse, resolutions):
        name = resolution.rotation
        if name is not None and not is_random(name):
            widths[name] = max(widths.get(name, 0), resolution.dims)
    return tuple((name, width, _CHAINS.get(name)) for name, width in widths.items())


def _dropping(schema: str, table: str, resolutions: tuple[str, ...]) -> tuple[str, ...]:
    """Take everything away that `_storing` and the funnel have made."""
    drop = f"select funnelvec.drop_resolution('{schema}.{table}', 'embedding', '{{}}')"
    return (
        f"select funnelvec.drop_funnel('{schema}.{table}_search')",
        *map(drop.format, resolutions),
    )


def _storing(
    schema: str, table: str, resolutions: tuple[str, ...], *, whole: str, storage: str
) -> tuple[str, ...]:
    """Store the codes, in one rewrite of the table, and index the first."""
    keeps = " > ".join(f"{each}@{KEEPS[-1]}" for each in resolutions)
    statements = [
        f"select funnelvec.add_resolutions('{schema}.{table}', 'embedding', '{keeps} > {whole}', "
        f"storage => '{storage}', allow_rewrite => true)"
    ]
    if storage == "side":
        # It says what is next, which comes right after; that ends with the level reset.
        statements.insert(0, "set client_min_messages = warning")
        statements.append(rf"select funnelvec.next_step('{schema}.{table}') \gexec")
    return tuple(statements)

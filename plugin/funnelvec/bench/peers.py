"""Every recipe at its best setting for a recall, side by side, in one run.

A recipe's knobs are turned until it reaches the recall at the least median time; the best of each
family then answers the same queries in turns. Vectors count in two bases: as they are, and under a
random orthogonal matrix, which leaves every cosine as it is and takes from a prefix what it knew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from funnelvec.bench import stage
from funnelvec.bench.crowd import check_clients
from funnelvec.bench.data import Dataset, rotated
from funnelvec.bench.peers_report import PeersReport
from funnelvec.bench.peers_run import Plan, Run
from funnelvec.engines import checks
from funnelvec.errors import InvalidInput

__all__ = ["BASES", "compare_peers"]

#: As they are; and under a random orthogonal matrix.
BASES = ("own", "rotated")

Say = Callable[[str], None]


def compare_peers(
    url: str | None,
    dataset: Dataset,
    *,
    funnels: Sequence[str] = (),
    target: float = 0.99,
    k: int = 10,
    rounds: int = 5,
    builds: int = 1,
    clients: int = 1,
    bases: Sequence[str] = BASES,
    grown_from: int | None = None,
    say: Say = lambda text: None,
) -> PeersReport:
    """Measure funnels beside what people run: recipes, other clients, and bounds.

    Parameters
    ----------
    url
        As for `compare`.
    funnels
        Templates, funnels without keeps; empty takes those of `peers_run.templates`.
    target
        Recall@k that every recipe has to reach, 0 to 1.
    builds
        How often the best of each family is built, and measured on each build: two builds of one
        index differ in what they find.
    clients
        With more than 1, also how many queries a second so many clients get answered at once.
    grown_from
        Also run the best funnel on so many of the rows.

    Raises
    ------
    InvalidInput
        For a recall or a basis that does not exist, or a template that is none.
    """
    checks.check_k(k)
    check_clients(clients)
    if not 0 < target <= 1:
        raise InvalidInput(f"a recall is above 0 and at most 1, unlike {target}")
    if unknown := set(bases) - set(BASES):
        raise InvalidInput(f"there is no basis {min(unknown)!r}; there are {', '.join(BASES)}")
    if rounds < 1 or builds < 1:
        raise InvalidInput(f"rounds and builds must be at least 1, not {rounds} and {builds}")
    if grown_from is not None and not k < grown_from < len(dataset.rows):
        raise InvalidInput(
            f"the smaller table must have more than k={k} and fewer than {len(dataset.rows):,} "
            f"rows, not {grown_from:,}"
        )
    plan = Plan(
        funnels=tuple(funnels), target=target, k=k, rounds=rounds, builds=builds, clients=clients,
        grown_from=grown_from,
    )  # fmt: skip
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        own = url is None
        if url is None:
            say("starting a server")
            url = stack.enter_context(stage.hosted(dataset, tables=8))
        found, notes = [], []
        for basis in bases:
            run = Run(url, dataset if basis == "own" else rotated(dataset), plan, own=own, say=say)
            found.append(run.report(basis))
            notes += run.notes
    return PeersReport(
        dataset=dataset.name,
        note=dataset.note,
        rows=len(dataset.rows),
        dims=dataset.dims,
        queries=len(dataset.queries),
        k=k,
        target=target,
        rounds=rounds,
        builds=builds,
        clients=clients,
        grown_from=grown_from,
        bases=tuple(found),
        notes=tuple(dict.fromkeys(notes)),
        seconds=time.perf_counter() - started,
    )

"""Whether a funnel still fits its table, as far as a diagnosis tells without further searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from funnelvec.doctor.prefixes import TARGET
from funnelvec.doctor.stages import rounded
from funnelvec.funnel import Funnel
from funnelvec.reports import ResolutionStatus
from funnelvec.tuning.ground import KeptFunnel

if TYPE_CHECKING:
    from funnelvec.doctor.diagnosis import Diagnosis

__all__ = ["outgrown"]

#: Below this share of the list that the sample asks for, a first stage has been outgrown; lists
#: are estimates, and a tuned one may be shorter since a lower recall was asked for.
_SHORT = 0.5
_COVERED = 0.99


def outgrown(
    found: Diagnosis, funnels: Mapping[str, KeptFunnel], status: Iterable[ResolutionStatus]
) -> list[str]:
    """Say which funnels want to be tuned again, and why."""
    stages = {} if found.measures.prefixes is None else {
        stage.resolution: stage for stage in found.measures.prefixes.stages
    }  # fmt: skip
    coverage = {each.resolution: each.coverage for each in status}
    said = []
    for name, kept in sorted(funnels.items()):
        funnel = Funnel.parse(kept.funnel)
        for stage in funnel.stages[:-1]:
            share = coverage.get(str(stage.resolution), 1.0)
            if share < _COVERED:
                said.append(
                    f"{name}: {1 - share:.1%} of the rows have no {stage.resolution}, so it cannot "
                    "find them; backfill, or see status"
                )
        first = funnel.stages[0]
        known = stages.get(str(first.resolution))
        if known is None or first.keep is None or found.measures.prefixes is None:
            continue
        needed = rounded(known.keep_at(found.measures.prefixes.rows, found.rows))
        if first.keep < _SHORT * needed:
            said.append(
                f"{name}: keeps {first.keep:,} rows of {first.resolution}, and for {TARGET:g} of "
                f"the top 10 of {found.rows:,} rows this sample asks for {needed:,}; "
                "measure_recall(), and tune again"
            )
    return said

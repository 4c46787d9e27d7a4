"""The tables of ``funnelvec bench relevance``: figures beside their baselines and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from funnelvec.bench.report import Section

if TYPE_CHECKING:
    from funnelvec.bench.relevance import RelevanceReport, SetFigures

__all__ = ["TARGETS", "missed", "sections"]

#: set -> measure -> (target, whether more is better). A target of F1 may be raw plus a margin.
TARGETS: dict[str, dict[str, tuple[float, bool]]] = {
    "csfcube": {
        "f1_gain": (0.055, True),
        "pr_auc_ratio": (1.06, True),
        "loo_kept_ratio": (0.90, False),
        "brier_ratio": (0.95, False),
        "ece": (0.027, False),
    },
    "csfcube grade 2": {"f1_gain": (0.0, True), "pr_auc_ratio": (1.0, True)},
    "dbpedia_entity": {
        "f1_gain": (0.03, True),
        "pr_auc_ratio": (1.09, True),
        "kept_ratio": (0.84, False),
        "brier_ratio": (0.97, False),
        "ece": (0.010, False),
    },
    "clinc": {
        "f1": (0.645, True),
        "pr_auc_ratio": (1.20, True),
        "kept_ratio": (0.70, False),
        "brier_ratio": (0.80, False),
        "ece": (0.010, False),
        "ece_top20": (0.06, False),
        "abstain_auc": (0.975, True),
        "abstain_auc_unseen": (0.967, True),
    },
    "clinc imbalanced": {
        "f1": (0.585, True),
        "pr_auc_ratio": (1.15, True),
        "kept_ratio": (0.52, False),
        "brier_ratio": (0.87, False),
        "ece": (0.010, False),
        "ece_top20": (0.04, False),
    },
    "clinc imbalanced, unseen intents": {
        "f1": (0.57, True),
        "miss": (0.055, False),
    },
    "squad": {
        "best_f1": (0.68, True),
        "pr_auc_ratio": (1.7, True),
        "kept_ratio": (0.40, False),
        "brier_ratio": (0.88, False),
        "abstain_auc": (0.832, True),
    },
}

_NAMES = {
    "f1": "macro F1, one threshold",
    "f1_gain": "macro F1 less raw",
    "best_f1": "macro F1, best_f1",
    "pr_auc_ratio": "pooled PR-AUC / raw",
    "kept_ratio": "rows kept / raw at max_miss .05",
    "loo_kept_ratio": "the same, leave one out",
    "brier_ratio": "Brier / global Platt",
    "ece": "ECE",
    "ece_top20": "ECE of the top 20",
    "miss": "missed at max_miss .05",
    "abstain_auc": "abstention AUC",
    "abstain_auc_unseen": "abstention AUC, unseen intents",
}


def sections(report: RelevanceReport) -> list[Section]:
    """Return what to print: figures beside baselines, then targets."""
    head = (
        *("set", "F1 raw", "Platt", "ours", "best_f1", "oracle", "PR-AUC raw", "ours"),
        *("kept raw", "ours", "missed raw", "ours", "Brier Platt", "ours"),
        *("ECE Platt", "ours", "top 20", "AUC abstain"),
    )
    rows = tuple(_row(each.name, each.means) for each in report.sets)
    searched = tuple(_searched(each.name, each.means) for each in report.sets)
    targets = tuple(
        (each.name, _NAMES[name], f"{value:.3f}", _bound(goal, more), verdict)
        for each in report.sets
        for name, value, goal, more, verdict in _targets(each)
    )
    return [
        Section(f"Relevance, means of {report.halvings} halvings of the queries", head, rows),
        Section(
            'What calibrate(family="auto") makes of the same, applied by searches; on the right '
            "with a hub column (add_hub), of which alpha is taken off",
            (
                *("set", "F1 raw", "F1", "PR-AUC / raw", "Brier / Platt", "ECE", "top 20"),
                *("alpha", "F1", "PR-AUC / raw", "Brier / Platt", "ECE", "top 20"),
            ),
            searched,
        ),
        Section("Targets", ("set", "figure", "reached", "target", ""), targets),
    ]


def missed(report: RelevanceReport) -> list[str]:
    """Name the targets that were not reached."""
    return [
        f"{each.name}: {_NAMES[name]} {value:.4f}, not {_bound(goal, more)}"
        for each in report.sets
        for name, value, goal, more, verdict in _targets(each)
        if verdict
    ]


def _targets(each: SetFigures) -> list[tuple[str, float, float, bool, str]]:
    values = {**each.means, "f1_gain": each.means["f1"] - each.means["raw_f1"]}
    found = []
    for name, (goal, more) in TARGETS.get(each.name, {}).items():
        value = values[name]
        reached = value >= goal if more else value <= goal
        found.append((name, value, goal, more, "" if reached else "missed"))
    return found


def _searched(name: str, m: Mapping[str, float]) -> tuple[str, ...]:
    searched, hub = (
        (
            f"{m[f'{kind}_f1']:.3f}",
            f"{m[f'{kind}_pr_auc_ratio']:.3f}",
            f"{m[f'{kind}_brier_ratio']:.3f}",
            f"{m[f'{kind}_ece']:.4f}",
            f"{m[f'{kind}_ece_top20']:.4f}",
        )
        for kind in ("searches", "hub")
    )
    return (name, f"{m['raw_f1']:.3f}", *searched, f"{m['hub_alpha']:.2f}", *hub)


def _bound(goal: float, more: bool) -> str:
    return f"{'at least' if more else 'at most'} {goal:.3f}"


def _row(name: str, m: Mapping[str, float]) -> tuple[str, ...]:
    return (
        name,
        f"{m['raw_f1']:.3f}",
        # One threshold on a rising curve over the score is one threshold on the score.
        f"{m['raw_f1']:.3f}",
        f"{m['f1']:.3f}",
        f"{m['best_f1']:.3f}",
        f"{m['oracle_f1']:.3f}",
        f"{m['raw_pr_auc']:.3f}",
        f"{m['pr_auc']:.3f}",
        f"{m['raw_kept']:.1f}",
        f"{m['kept']:.1f}",
        f"{m['raw_miss']:.3f}",
        f"{m['miss']:.3f}",
        f"{m['platt_brier']:.4f}",
        f"{m['brier']:.4f}",
        f"{m['platt_ece']:.4f}",
        f"{m['ece']:.4f}",
        f"{m['ece_top20']:.4f}",
        f"{m['abstain_auc']:.3f}" if "abstain_auc" in m else "-",
    )

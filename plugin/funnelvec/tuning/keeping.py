"""Prices are measured once on a machine, and kept beside the funnels that were tuned with them."""

from __future__ import annotations

import datetime
import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.tuning.calls import Call, Say, Steps
from funnelvec.tuning.cost import Prices, usual
from funnelvec.tuning.ground import Ground
from funnelvec.tuning.pricing import measure_prices
from funnelvec.tuning.wanted import Wanted
from funnelvec.types import Storage

__all__ = ["find_prices", "packed"]

#: Prices that are older are measured again: machines and settings change unseen.
_DAYS = 30
#: Of what is kept; another form has another key.
_FORM = 1

Matrix = npt.NDArray[np.float32]


def find_prices(
    ground: Ground, wanted: Wanted, rows: Matrix, queries: Matrix, *, indexed: bool
) -> Steps[Prices]:
    """Read the prices that a run has measured on this machine, else measure them.

    Where some codes stand in a side table and others will not, or the other way round, both kinds
    are priced. A dry run measures nothing, and goes by a usual machine where none are kept.
    """
    main: Storage = wanted.storage or "column"
    stored = {each.storage for each in ground.stored.values()}
    found = yield from _of_kind(ground, wanted, rows, queries, kind=main, indexed=indexed)
    other: Storage = "column" if main == "side" else "side"
    if other not in stored or ground.about.engine != "postgres":
        return found
    beside = yield from _of_kind(ground, wanted, rows, queries, kind=other, indexed=indexed)
    return replace(found, other=beside)


def _of_kind(
    ground: Ground, wanted: Wanted, rows: Matrix, queries: Matrix, *, kind: Storage, indexed: bool
) -> Steps[Prices]:
    known = replace(usual(ground.about.engine, ground.about.base.dims), kind=kind)
    machine = yield Call("_machine")
    key = None if machine is None else _key(ground, machine, kind)
    if key is not None and not wanted.measure_again:
        kept = yield Call("_kept_prices", (key,))
        found = _unpacked(known, key, kept)
        if found is not None:
            return found
    if wanted.dry_run:
        return known
    yield Say("measuring what the engine charges", 12)
    found = yield from measure_prices(ground, rows, queries, indexed=indexed, storage=kind)
    if not found.measured or key is None:
        return replace(found, kind=kind)
    now = datetime.datetime.now(datetime.timezone.utc)
    return replace(found, kind=kind, key=key, at=f"{now:%Y-%m-%dT%H:%M:%SZ}")


def _key(ground: Ground, machine: str, kind: str) -> str:
    """What prices hang on: server, client (the way between them is a price), column, storage."""
    about = ground.about
    text = f"{_FORM} {machine} {platform.node()} {about.base} {about.metric} {kind}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def packed(prices: Prices) -> list[dict[str, Any]]:
    """Return what is kept of measured prices, as JSON has it, in four digits."""
    kinds = filter(None, (prices, prices.other))
    return [
        {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in asdict(replace(each, other=None)).items()
            if value is not None and name != "kept"
        }
        for each in kinds
        if each.key is not None
    ]


def _unpacked(known: Prices, key: str, kept: Any) -> Prices | None:
    """Read kept prices; None where they are old, or are not what was once written.

    Whoever owns a table may write its rows of the registry by hand.
    """
    if not isinstance(kept, Mapping) or kept.get("key") != key:
        return None
    try:
        age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.strptime(
            str(kept.get("at")), "%Y-%m-%dT%H:%M:%SZ"
        ).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    numbers = {}
    for each in fields(Prices):
        expected: Any = getattr(known, each.name)
        value: Any = kept.get(each.name)
        if type(expected) in (int, float):
            right = type(value) in (int, float) and math.isfinite(value) and value >= 0
            if not right or (each.name == "rows" and value < 1):
                return None
            numbers[each.name] = type(expected)(value)
    if not datetime.timedelta(0) <= age <= datetime.timedelta(days=_DAYS):
        return None
    return replace(known, **numbers, measured=True, key=key, at=str(kept["at"]), kept=True)

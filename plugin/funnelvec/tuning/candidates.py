"""Which resolutions a funnel could be made of: what is there, and what could be built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from funnelvec.codes import is_bits
from funnelvec.codes.bits import levels
from funnelvec.funnel import Funnel, Stage
from funnelvec.resolution import OWN_CODES, Resolution
from funnelvec.types import Metric

__all__ = ["PCA", "Template", "bytes_of", "first_stages", "middle_stages"]

#: What the rotations are called that a run fits; one that ends in r is a chain for signs.
PCA, CHAIN = "tuned", "tunedr"
#: Widths of float prefixes, and of fitted signs.
_WIDTHS = (32, 64, 128, 256)
_MIDDLES = (128, 256, 512)
#: Columns up to this width are tried with several bits a number: wide ones do not need them.
_NARROW = 512


@dataclass(frozen=True, slots=True)
class Template:
    """A funnel whose keeps are open: the resolutions of its stages, the column itself last."""

    stages: tuple[Resolution, ...]

    @property
    def first(self) -> Resolution:
        """What a search begins with."""
        return self.stages[0]

    @property
    def middle(self) -> Resolution | None:
        """What stands between the first and the column itself, if anything does."""
        return self.stages[1] if len(self.stages) > 2 else None

    def funnel(self, keeps: tuple[int, ...]) -> Funnel:
        """The funnel with these keeps, one for each stage but the last."""
        parts = [Stage(r, keep) for r, keep in zip(self.stages[:-1], keeps, strict=True)]
        return Funnel((*parts, Stage(self.stages[-1])))

    def __str__(self) -> str:
        return " > ".join(map(str, self.stages))


def bytes_of(resolution: Resolution) -> int:
    """Bytes of one code, without what a database adds."""
    if is_bits(resolution.code):
        return -(-resolution.dims * levels(resolution.code) // 8)
    return resolution.dims * (4 if resolution.code == "f32" else 2)


def first_stages(
    base: Resolution, *, metric: Metric, there: Iterable[Resolution], fitted: int
) -> list[Resolution]:
    """Resolutions to begin a search with.

    Parameters
    ----------
    there
        What the column has: it costs nothing to build.
    fitted
        Most dimensions that a rotation can be fitted for; 0 where none can be kept.
    """
    dims = base.dims
    found = [Resolution(width, "f16") for width in _WIDTHS if 2 * width <= dims]
    found += [Resolution(dims, "bit"), Resolution(dims, "bit", "random")]
    if dims <= _NARROW:
        found += [Resolution(dims, code, "random") for code in ("bit2", "bit3", "bit4")]
    found += [Resolution(w, "f16", PCA) for w in _WIDTHS if 2 * w <= dims and w <= fitted]
    wide = min(512, dims // 2)
    if wide >= 128 and wide <= fitted:
        found.append(Resolution(wide, "bit", CHAIN))
    # Codes of an engine's own have no twin in numpy to simulate them with.
    stored = [each for each in there if each != base and each.code not in OWN_CODES]
    return [each for each in dict.fromkeys([*stored, *found]) if each != base]


def middle_stages(
    first: Resolution, base: Resolution, *, there: Iterable[Resolution], fitted: int
) -> list[Resolution]:
    """Resolutions that can stand between a first stage and the column itself.

    A stage between pays where it knows much more than the first and costs much less than the
    column, so it has at least half as much again as the first and at most half of the column.
    """
    most, least = bytes_of(base) // 2, 1.5 * bytes_of(first)
    found = [Resolution(width, "f16") for width in _MIDDLES]
    found += [Resolution(width, "f16", PCA) for width in _MIDDLES if width <= fitted]
    return [
        each
        for each in dict.fromkeys([*there, *found])
        if each.code not in OWN_CODES
        and each.dims < base.dims
        and least <= bytes_of(each) <= most
        and each != first
    ]

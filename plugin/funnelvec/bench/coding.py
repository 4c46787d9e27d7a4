"""What codes keep of the exact neighbours, per byte: those that are offered, and those that lost.

Everything is in numpy and exact, so that codes are compared and not indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.bench.data import Dataset
from funnelvec.bench.maps import Wide, sparse_projection, whitening
from funnelvec.bench.report import Section
from funnelvec.codes import Codes, encode
from funnelvec.codes.rotations import rotate
from funnelvec.doctor.neighbours import Space, space
from funnelvec.errors import InvalidInput
from funnelvec.fitting.axes import principal, quantized, random_orthogonal, sphering
from funnelvec.fitting.measure import KEEP, Trial, bytes_of, points
from funnelvec.resolution import Resolution
from funnelvec.types import Code

__all__ = ["CodeBench", "CodeFigure", "compare_codes"]

#: The recall that shortlists are lengthened for.
_TARGET = 0.99
#: Rows that maps are fitted on.
_FIT = 10_000
_RIDGE = 0.1

_Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CodeFigure:
    """One code: share of the exact top 10 among the best 100, and the rows that hold 0.99 of it.

    `offered` says whether a resolution can be made of it.
    """

    code: str
    bytes: int
    recall: float
    rows: int
    offered: bool


@dataclass(frozen=True, slots=True)
class CodeBench:
    """Everything that one run measured."""

    dataset: str
    rows: int
    queries: int
    figures: tuple[CodeFigure, ...]

    def section(self) -> Section:
        """The figures as a table, by size."""
        return Section(
            title=f"Codes of {self.dataset}: {self.rows:,} rows, {self.queries:,} queries",
            head=("code", "bytes", "best 100 hold", "rows for 0.99", "offered"),
            rows=tuple(
                (
                    each.code,
                    str(each.bytes),
                    f"{each.recall:.3f}",
                    f"{each.rows:,}",
                    "yes" if each.offered else "no",
                )
                for each in self.figures
            ),
        )

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return asdict(self)


def compare_codes(
    dataset: Dataset, *, turned: bool = False, seed: int = 0, say: Callable[[str], object] = print
) -> CodeBench:
    """Measure every code on rows and queries under cosine.

    Parameters
    ----------
    turned
        Rotate rows and queries at random before, so that no dimension is special: what models
        without Matryoshka training give.
    seed
        Of what is random.
    say
        Told what is measured next.
    """
    rows, queries = dataset.rows, dataset.queries
    if len(rows) < 2 * KEEP:
        raise InvalidInput(f"{len(rows)} rows are too few to compare codes; take {2 * KEEP}")
    if turned:
        across = random_orthogonal(dataset.dims, seed + 1).astype(np.float32)
        rows, queries = rows @ across, queries @ across
    # What is fitted to queries is fitted to half of them, and everything measured with the others.
    heard = space(queries[1::2], "cosine").points
    trial = Trial(rows, queries[::2], metric="cosine", base="f32")
    found = []
    for name, size, offered, coded in _contestants(trial, heard, seed):
        say(name)
        places = coded().places(trial.places, trial.truth, among=trial.rows)
        recall = float(places.kept(KEEP).mean())
        found.append(CodeFigure(name, size, recall, places.keep_for(_TARGET), offered))
    found.sort(key=lambda each: (each.bytes, -each.recall))
    name = dataset.name + (", rotated at random" if turned else "")
    return CodeBench(name, trial.rows, len(trial.places), tuple(found))


_Contestant = tuple[str, int, bool, Callable[[], Space]]


def _contestants(trial: Trial, heard: _Rows, seed: int) -> Iterator[_Contestant]:
    """Name, bytes, whether it is offered, and what gives its points."""
    all_of, dims = trial.vectors, trial.vectors.shape[1]
    unit = space(all_of, "cosine").points
    fit = unit[: min(_FIT, trial.rows)]
    turned = rotate("random", unit)
    axes = principal(fit, min(dims, 512))
    widths = [width for width in (32, 64, 128, 256) if width <= dims // 2]
    for width in widths:
        f16 = Resolution(width, "f16")
        yield str(f16), 2 * width, True, partial(_plain, f16, all_of)
        yield f"{f16} of ~random", 2 * width, False, partial(_plain, f16, turned)
        yield f"{f16}~pca", 2 * width, True, partial(_floats, unit, axes[:width])
        sparse = sparse_projection(dims, width, seed)
        yield f"{f16}, sparse projection", 2 * width, False, partial(_floats, unit, sparse)
    if widths:
        asked, given = sphering(fit, heard, widths[-1])
        for width in widths:
            points_of = partial(_two, trial, unit, asked[:width], given[:width])
            yield f"{width}:f16~sphering", 2 * width, True, points_of
        for ridge in (0.0, _RIDGE):
            mean, white = whitening(fit, widths[-1], ridge)
            for width in widths:
                name = f"{width}:f16, whitened" + (f", ridge {ridge:g}" if ridge else "")
                yield name, 2 * width, False, partial(_floats, unit - mean, white[:width])
    yield from _signs(trial, unit, fit, axes, turned, seed)


def _signs(
    trial: Trial, unit: _Rows, fit: _Rows, axes: Wide, turned: _Rows, seed: int
) -> Iterator[_Contestant]:
    dims = unit.shape[1]
    codes: tuple[Code, ...] = ("bit", "bit2", "bit3", "bit4")
    yield f"{dims}:bit", -(-dims // 8), True, partial(_bits, unit)
    for code in codes[: 4 if dims <= 512 else 1]:
        rotated = Resolution(dims, code, "random")
        yield str(rotated), bytes_of(rotated), True, partial(_plain, rotated, unit)
    middle = np.median(turned[: trial.rows], axis=0)
    name = f"{dims}:bit~random"
    yield f"{name}, balanced", -(-dims // 8), False, partial(_bits, turned - middle)
    yield f"{name}, query in floats", -(-dims // 8), False, partial(_asymmetric, trial, turned)
    for width in (w for w in (64, 128, 256, 512) if w <= min(dims, len(axes))):
        chained = _mapped(unit, random_orthogonal(width, seed) @ axes[:width])
        size = -(-width // 8)
        yield f"{width}:bit of ~random", size, False, partial(_bits, turned[:, :width])
        yield f"{width}:bit~pca", size, True, partial(_bits, _mapped(unit, axes[:width]))
        yield f"{width}:bit~pcar", size, True, partial(_bits, chained)
        yield (
            f"{width}:bit~pcar, query in floats", size, False,
            partial(_asymmetric, trial, chained),
        )  # fmt: skip
        if width <= 256:
            learned = quantized(fit, axes[:width], seed)
            yield f"{width}:bit~itq", size, True, partial(_bits, _mapped(unit, learned))
        levels = Resolution(width, "bit3")
        yield (
            f"{width}:bit3~pcar", bytes_of(levels), True,
            partial(_levels, chained),
        )  # fmt: skip


def _plain(resolution: Resolution, vectors: _Rows) -> Space:
    codes: Codes = encode(resolution, vectors)
    return points(resolution, codes, "cosine")


def _mapped(vectors: _Rows | Wide, across: Wide) -> _Rows:
    with np.errstate(all="ignore"):  # some builds of BLAS warn of what is in no operand
        found: _Rows = (vectors @ across.T).astype(np.float32)
    return found


def _floats(vectors: _Rows | Wide, across: Wide) -> Space:
    return _plain(Resolution(len(across), "f16"), _mapped(vectors, across))


def _two(trial: Trial, unit: _Rows, asked: Wide, given: Wide) -> Space:
    rows = _mapped(unit[: trial.rows], given).astype(np.float16).astype(np.float32)
    return space(np.concatenate([rows, _mapped(unit[trial.rows :], asked)]), "dot")


def _bits(vectors: _Rows) -> Space:
    return _plain(Resolution(vectors.shape[1], "bit"), vectors)


def _levels(vectors: _Rows) -> Space:
    """Three bits of each number, by the levels that are offered."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True) / vectors.shape[1] ** 0.5
    level = 0.6744897501960817
    bits = [vectors > edge * lengths for edge in (-level, 0.0, level)]
    signs = np.concatenate(bits, axis=1).astype(np.float32) * 2 - 1
    return Space(signs, np.zeros(len(vectors), np.float32))


def _asymmetric(trial: Trial, vectors: _Rows) -> Space:
    """Rows as signs, queries as they are."""
    signs = np.sign(vectors[: trial.rows])
    return Space(np.concatenate([signs, vectors[trial.rows :]]), np.zeros(len(vectors), np.float32))

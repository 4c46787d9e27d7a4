"""Golden values from a third, slow, obvious implementation: the standard library only.

    python tests/golden/make.py          writes the .json files here

Both the numpy twins and the SQL are tested against these files. Every float is the text that
``float.hex`` gives (``float.fromhex`` reads it; also "inf", "-inf"), so nothing is lost on the way.

codes.json: a list of cases
    name        what the case is about
    vector      the base vector: float32 values (float16 where base is f16), one hex text each
    resolution  "dims:code"
    metric      cosine, dot or euclidean
    base        code of the base column: f32, or f16 (halfvec); "24:f16" of such a column is the
                column itself
    code        for f32 and f16 a list of hex texts, the stored numbers; for bit a text of 0 and 1,
                the first number first
scores.json: a list of cases
    name, resolution, metric, base
    query, vector   base vectors as above
    hamming         only for bit: the number of bits in which the two codes differ
    score           hex text, of the two codes: cosine, inner product, or negative Euclidean
                    distance; 1 - 2 * hamming / dims for bit
rotations.json: a list of {name, rotation, vector: [hex], rotated: [hex]}; what is stored may never
    change, so neither may these
maps.json: a list of {name, numbers: [[integer]], step: hex, vector: [hex], mapped: [hex]}: a fitted
    rotation, the sums exact and rounded to double precision once
calibration.json: an object
    fits     list of {name, scores: [hex], labels: [0 or 1], slope: hex, offset: hex}
    maps     list of {slope, offset, score, relevance: hex}
    cutoffs  list of {slope, offset, relevance, cutoff: hex}
families.json: an object (made by families.py)
    isotonic   list of {name, scores, labels, low, high, levels, asked, relevance, wanted, cutoffs}:
               a fit, its relevance of the scores `asked`, its cutoffs for the relevances `wanted`
    beta       list of {name, scores, labels, slope, offset, map: [a, b, c]}: fits
    beta_maps  list of {numbers: [slope, offset, a, b, c], asked, relevance, wanted, cutoffs}
    adapters   list of {name, adapter, query, list, slope, offset, asked, relevance, wanted,
               cutoffs}: the line of a query with that shortlist
"""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from collections.abc import Iterable
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).parent

DIMS = 24
METRICS = ("cosine", "dot", "euclidean")
LONGEST = 65504.0  # the largest 16-bit float


def f32(number: float) -> float:
    """Round to the nearest 32-bit float, ties to even."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def f16(number: float) -> float:
    """Round to the nearest 16-bit float, ties to even."""
    return float(struct.unpack("<e", struct.pack("<e", number))[0])


def bell(rng: random.Random) -> float:
    """A nearly Gaussian number; unlike random.gauss the same to the last bit on every machine."""
    total = 0.0
    for _ in range(12):
        total += rng.random()  # not sum(): from Python 3.12 on it rounds in another way
    return total - 6.0


def norm(vector: list[float]) -> float:
    """Length of a vector; the sum is rounded once."""
    return math.sqrt(math.fsum(x * x for x in vector))


def encode(
    resolution: str, vector: list[float], metric: str = "cosine", base: str = "f32"
) -> list[float] | str:
    """Store a base vector at a resolution."""
    dims, code = resolution.split(":")
    prefix = vector[: int(dims)]
    if code == base and int(dims) == len(vector):
        return prefix  # the column itself
    if code == "f32":
        return prefix
    if code == "bit":
        return "".join("1" if x > 0 else "0" for x in prefix)
    length = norm(prefix)
    if metric == "cosine":
        return [f16(f32(x / length)) if length > 0 else 0.0 for x in prefix]
    if base == "f16" or length <= LONGEST:
        return [f16(x) for x in prefix]
    return [f16(f32(f32(x / length) * LONGEST)) for x in prefix]


def sign(seed: int, number: int, place: int) -> float:
    """A sign from a hash of where it stands."""
    mixed = (seed * 1640531527 + number * 2654435769 + place) % 2**32
    mixed = (mixed ^ (mixed >> 16)) * 569420461 % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 1935289751 % 2**32
    return 1.0 if (mixed ^ (mixed >> 15)) >> 31 else -1.0


def rotate(rotation: str, vector: list[float]) -> list[float]:
    """Rotate at random, number by number."""
    dims, seed = len(vector), int(rotation.removeprefix("random") or 0)
    if dims == 1:
        return [sign(seed, 0, 0) * vector[0]]
    half, rounds = dims // 2, 12  # for up to 2,048 dimensions
    turned = [sign(seed, 0, i) * x / 64 for i, x in enumerate(vector)]
    left, right, waits = turned[:half], turned[half : 2 * half], turned[2 * half :]
    for number in range(rounds):
        flipped = [sign(seed, 1 + number % 2, i) * x for i, x in enumerate(right)]
        sums = [f32(a + b) for a, b in zip(left, flipped, strict=True)]
        right = [f32(a - b) for a, b in zip(left, flipped, strict=True)]
        shift = max(1, half >> (number + 1)) if half > 1 else 0
        left = [sums[(i + shift) % half] for i in range(half)]
        if waits:
            left.append(f32(waits[0] * f32(1.4142135)))
            waits = [left.pop(0)]
    return [*waits, *left, *right]


def rotation_cases() -> list[dict[str, object]]:
    """Widths of every kind: odd and even, of one and two, a prime, a power of two."""
    rng = random.Random(7)
    return [
        {
            "name": f"{dims} dimensions, {rotation}",
            "rotation": rotation,
            "vector": [x.hex() for x in vector],
            "rotated": [x.hex() for x in rotate(rotation, vector)],
        }
        for dims in (1, 2, 3, 5, 24, 37, 64)
        for vector in [[f32(bell(rng)) for _ in range(dims)]]
        for rotation in ("random", "random1", "random999999999")
    ]


def map_cases() -> list[dict[str, object]]:
    """Maps of whole numbers up to a million, of vectors of every length."""
    rng = random.Random(11)
    cases: list[dict[str, object]] = []
    for dims, width in ((1, 1), (5, 3), (24, 8), (24, 24)):
        numbers = [[int(bell(rng) * 200_000) for _ in range(dims)] for _ in range(width)]
        numbers[0][0] = 1_000_000
        step = abs(bell(rng)) * 1e-6 + 1e-7
        for size in (1.0, 1e-30, 1e30, 0.0):
            vector = [f32(bell(rng) * size) for _ in range(dims)]
            sums = [
                sum((n * Fraction(x) for n, x in zip(row, vector, strict=True)), Fraction(0))
                for row in numbers
            ]
            cases.append({
                "name": f"{dims} to {width}, length about {size:g}",
                "numbers": numbers,
                "step": step.hex(),
                "vector": [x.hex() for x in vector],
                "mapped": [float(each * Fraction(step)).hex() for each in sums],
            })  # fmt: skip
    return cases


def hamming(a: str, b: str) -> int:
    """Count the places in which two texts of bits differ."""
    return sum(x != y for x, y in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    """Cosine with an exact inner product."""
    dot = sum((Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)), Fraction(0))
    squares = [sum((Fraction(x) ** 2 for x in v), Fraction(0)) for v in (a, b)]
    squared = dot**2 / (squares[0] * squares[1])
    return math.copysign(math.sqrt(squared), dot)


def dot(a: list[float], b: list[float]) -> float:
    """Exact inner product, rounded once."""
    return float(sum((Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)), Fraction(0)))


def euclidean(a: list[float], b: list[float]) -> float:
    """Negative distance, from an exact sum of squares."""
    squares = sum(
        ((Fraction(x) - Fraction(y)) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0)
    )
    return 0.0 - math.sqrt(squares)


SCORES = {"cosine": cosine, "dot": dot, "euclidean": euclidean}


def vectors() -> dict[str, list[float]]:
    """Base vectors by name; every number is a 32-bit float."""
    rng = random.Random(20240531)

    def gauss(n: int, scale: float = 1.0) -> list[float]:
        return [f32(scale * bell(rng)) for _ in range(n)]

    def axis(number: float) -> list[float]:
        return [0.0, number, *[0.0] * (DIMS - 2)]

    made = {
        "gaussian": gauss(24),
        "gaussian, small": gauss(24, 0.05),
        "unit axis": [0.0] * 5 + [1.0] + [0.0] * 18,
        "zero": [0.0] * 24,
        "zero prefix": [0.0] * 13 + gauss(11),
        "signed zeros": [0.0, -0.0, 1.0, -1.0] * 6,
        "smallest positive": [2.0**-149, -(2.0**-149), 1.0, 0.0] * 6,
        "1e30": [f32(1e30 * x) for x in gauss(24)],
        "70000": [70000.0, -70000.0, 1.0, 65504.0] * 6,
        "1e-30": [f32(1e-30 * x) for x in gauss(24)],
        "constant": [0.25] * 24,
        "wide range": [f32(10.0 ** (x - 12)) for x in range(24)],
        "three four": [3.0, 4.0] + [0.0] * 22,
        "negative": [-abs(x) for x in gauss(24)],
    }
    made["gaussian, twice"] = [2.0 * x for x in made["gaussian"]]
    made["gaussian, opposite"] = [-x for x in made["gaussian"]]
    # Around the length at which 16-bit codes are shortened under dot and euclidean.
    made["longest"] = axis(LONGEST)
    made["a little longer"] = axis(65510.0)
    made["opposite, longer"] = axis(-70000.0)
    made["long, of small numbers"] = [f32(15000.0 * (1 + 0.1 * x)) for x in gauss(DIMS)]
    made["1e7"] = gauss(DIMS, 1e7)
    made["3e38"] = axis(f32(3e38))
    return made


def halves() -> dict[str, list[float]]:
    """Base vectors of a halfvec column: those that fit, rounded."""
    return {
        name: [f16(x) for x in vector]
        for name, vector in vectors().items()
        if max(map(abs, vector)) <= LONGEST
    }


def code_cases() -> list[dict[str, object]]:
    """Every vector at resolutions of whole and broken bytes, one dimension, and full width.

    Only 16-bit codes of vectors know the metric; for the others one metric stands for all.
    """
    every = ("13:f32", "1:f16", "13:f16", "24:f16", "1:bit", "13:bit", "24:bit")
    kinds = [
        ("f32", "cosine", every),
        ("f32", "dot", ("13:f32", "1:f16", "13:f16", "24:f16", "13:bit")),
        ("f32", "euclidean", ("13:f16", "24:f16")),
        ("f16", "cosine", ("1:f16", "13:f16", "24:f16", "13:bit")),
        ("f16", "dot", ("13:f16", "24:f16", "24:bit")),
        ("f16", "euclidean", ("13:f16",)),
    ]
    return [
        {
            "name": name_of(name, resolution, metric, base),
            "vector": [x.hex() for x in vector],
            "resolution": resolution,
            "metric": metric,
            "base": base,
            "code": code if isinstance(code, str) else [x.hex() for x in code],
        }
        for base, metric, resolutions in kinds
        for name, vector in (vectors() if base == "f32" else halves()).items()
        for resolution in resolutions
        for code in [encode(resolution, vector, metric, base)]
    ]


def name_of(what: str, resolution: str, metric: str, base: str) -> str:
    """The name of a case."""
    return f"{what} at {resolution}, {metric}" + (", halfvec" if base == "f16" else "")


def score_cases() -> list[dict[str, object]]:
    """Pairs of vectors; a tie is a pair of cases with one score."""
    pairs = [
        ("gaussian", "gaussian, small"),
        ("gaussian", "gaussian"),
        ("gaussian", "gaussian, twice"),
        ("gaussian, small", "gaussian, twice"),
        ("gaussian", "gaussian, opposite"),
        ("gaussian", "1e30"),
        ("1e30", "1e-30"),
        ("gaussian", "70000"),
        ("gaussian", "constant"),
        ("gaussian", "wide range"),
        ("gaussian", "signed zeros"),
        ("unit axis", "three four"),
        ("constant", "negative"),
    ]
    # A zero vector has an inner product and a distance, but no cosine.
    with_zero = [("gaussian", "zero"), ("zero", "gaussian"), ("zero", "zero")]
    shortened = [("gaussian", "1e7"), ("1e7", "gaussian"), ("1e7", "long, of small numbers")]
    every = ("24:f32", "13:f32", "13:f16", "24:f16", "13:bit", "24:bit")
    few = ("24:f32", "13:f16", "24:f16", "24:bit")
    cases: list[dict[str, object]] = []
    for metric in METRICS:
        more = [*with_zero, *shortened] if metric != "cosine" else shortened
        for a, b in [*pairs, *more]:
            for resolution in every if metric == "cosine" else few:
                cases.append(score_case(a, b, resolution, metric, "f32"))
            if a in halves() and b in halves() and "1e-30" not in (a, b):
                for resolution in ("13:f16", "24:f16"):
                    cases.append(score_case(a, b, resolution, metric, "f16"))
    return cases


def score_case(a: str, b: str, resolution: str, metric: str, base: str) -> dict[str, object]:
    """How similar two named vectors are."""
    named = vectors() if base == "f32" else halves()
    x, y = (encode(resolution, named[name], metric, base) for name in (a, b))
    case: dict[str, object] = {
        "name": name_of(f"{a} and {b}", resolution, metric, base),
        "resolution": resolution,
        "metric": metric,
        "base": base,
        "query": [v.hex() for v in named[a]],
        "vector": [v.hex() for v in named[b]],
    }
    if isinstance(x, str) and isinstance(y, str):
        case["hamming"] = hamming(x, y)
        case["score"] = float(1 - Fraction(2 * hamming(x, y), len(x))).hex()
    elif isinstance(x, list) and isinstance(y, list):
        case["score"] = SCORES[metric](x, y).hex()
    return case


def sigmoid(slope: float, offset: float, score: float) -> float:
    """The logistic function of the line, its logit held in [-700, 700]."""
    logit = Decimal(slope) * Decimal(score) + Decimal(offset)
    return float(1 / (1 + (-min(max(logit, Decimal(-700)), Decimal(700))).exp()))


def inverse(slope: float, offset: float, relevance: float) -> float:
    """The score that the curve maps to a relevance."""
    if relevance in (0.0, 1.0):
        return math.inf if relevance else -math.inf
    odds = Decimal(relevance) / (1 - Decimal(relevance))
    return float((odds.ln() - Decimal(offset)) / Decimal(slope))


def total(numbers: Iterable[Decimal]) -> Decimal:
    """Sum of decimals."""
    return sum(numbers, Decimal(0))


def loss(slope: Decimal, offset: Decimal, scores: list[Decimal], targets: list[Decimal]) -> Decimal:
    """Cross-entropy of the curve against the targets."""
    logits = [slope * s + offset for s in scores]
    return total((1 + x.exp()).ln() - t * x for x, t in zip(logits, targets, strict=True))


def platt(raw: list[float], labels: list[int]) -> tuple[float, float]:
    """Fit Platt's curve by Newton's method in decimals of 60 digits.

    Another road to the same minimum than the numpy and SQL twins take: the scores are not
    standardised, and the start is zero.
    """
    n_pos, n_neg = sum(labels), len(labels) - sum(labels)
    high, low = Decimal(n_pos + 1) / (n_pos + 2), Decimal(1) / (n_neg + 2)
    targets = [high if y else low for y in labels]
    scores = [Decimal(s) for s in raw]
    slope = offset = Decimal(0)
    for _ in range(100):
        p = [1 / (1 + (-(slope * s + offset)).exp()) for s in scores]
        errors = [a - t for a, t in zip(p, targets, strict=True)]
        weights = [a * (1 - a) for a in p]
        g_slope = total(e * s for e, s in zip(errors, scores, strict=True))
        g_offset = total(errors)
        h_ss = total(w * s * s for w, s in zip(weights, scores, strict=True))
        h_so = total(w * s for w, s in zip(weights, scores, strict=True))
        h_oo = total(weights)
        det = h_ss * h_oo - h_so * h_so
        step_slope = (h_oo * g_slope - h_so * g_offset) / det
        step_offset = (h_ss * g_offset - h_so * g_slope) / det
        if abs(step_slope) + abs(step_offset) < Decimal("1e-25"):
            return float(slope), float(offset)
        size, before = Decimal(1), loss(slope, offset, scores, targets)
        while (
            loss(slope - size * step_slope, offset - size * step_offset, scores, targets) > before
        ):
            size /= 2
        slope, offset = slope - size * step_slope, offset - size * step_offset
    raise AssertionError("the fit did not settle")


def fit_cases() -> list[dict[str, object]]:
    """Fixed judged scores: overlapping, nearly separated, unbalanced, and far from zero."""
    rng = random.Random(7)
    shapes = [
        ("overlapping", 40, 60, 0.6, 0.4, 0.15),
        ("separated", 20, 20, 0.9, 0.1, 0.02),
        ("few relevant", 10, 300, 0.7, 0.5, 0.1),
        ("narrow", 50, 50, 0.7101, 0.7099, 0.0001),
    ]
    cases: list[dict[str, object]] = []
    for name, n_pos, n_neg, high, low, spread in shapes:
        scores = [high + spread * bell(rng) for _ in range(n_pos)]
        scores += [low + spread * bell(rng) for _ in range(n_neg)]
        labels = [1] * n_pos + [0] * n_neg
        slope, offset = platt(scores, labels)
        cases.append(
            {
                "name": name,
                "scores": [s.hex() for s in scores],
                "labels": labels,
                "slope": slope.hex(),
                "offset": offset.hex(),
            }
        )
    return cases


def calibration() -> dict[str, list[dict[str, object]]]:
    """Fits, the curve, and its inverse."""
    lines = [(12.5, -8.0), (1.0, 0.0), (0.03, 2.0), (5000.0, -3500.0)]
    maps: list[dict[str, object]] = [
        {
            "slope": slope.hex(),
            "offset": offset.hex(),
            "score": score.hex(),
            "relevance": sigmoid(slope, offset, score).hex(),
        }
        for slope, offset in lines
        for score in (-1.0, -0.25, 0.0, 0.5, 0.64, 0.7, 0.71, 1.0)
    ]
    cutoffs: list[dict[str, object]] = [
        {
            "slope": slope.hex(),
            "offset": offset.hex(),
            "relevance": relevance.hex(),
            "cutoff": inverse(slope, offset, relevance).hex(),
        }
        for slope, offset in lines
        for relevance in (0.0, 1e-12, 0.05, 0.5, 0.7, 0.999, 1.0)
    ]
    return {"fits": fit_cases(), "maps": maps, "cutoffs": cutoffs}


def lines_of(cases: list[dict[str, object]]) -> str:
    """A JSON list with one case a line, so that a changed case is one changed line."""
    return "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]"


def files() -> dict[str, str]:
    """The text of every golden file by its name."""
    from tests.golden import families  # a script finds it once the root is on its path

    with localcontext() as context:
        context.prec = 60
        sections = [f'"{name}": {lines_of(cases)}' for name, cases in calibration().items()]
        lines = families.lines(platt)
        context.prec = 36  # enough for double precision, and less to wait for
        parts = {
            "isotonic": families.isotonic_cases(),
            "beta": families.beta_cases(lines),
            "beta_maps": families.beta_maps(),
            "adapters": [*families.adapter_cases(), *families.asking_cases()],
        }
        return {
            "codes.json": lines_of(code_cases()) + "\n",
            "scores.json": lines_of(score_cases()) + "\n",
            "rotations.json": lines_of(rotation_cases()) + "\n",
            "maps.json": lines_of(map_cases()) + "\n",
            "calibration.json": "{\n" + ",\n".join(sections) + "\n}\n",
            "families.json": "{\n"
            + ",\n".join(f'"{name}": {lines_of(cases)}' for name, cases in parts.items())
            + "\n}\n",
        }


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"{HERE / name}: {len(text)} bytes")

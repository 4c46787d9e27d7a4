"""Golden values of the families beside Platt: in decimals and fractions, by the slow way each time."""

from __future__ import annotations

import itertools
import math
import random
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction

Case = dict[str, object]
Platt = Callable[[list[float], list[int]], tuple[float, float]]


def hexed(numbers: list[float]) -> list[str]:
    """Numbers with every digit."""
    return [number.hex() for number in numbers]


def judged(name: str) -> tuple[list[float], list[int]]:
    """Scores and labels of a named shape."""
    rng = random.Random(name)

    def bell() -> float:
        return sum(rng.random() for _ in range(12)) - 6

    if name == "steps":  # many ties
        scores = [rng.randrange(12) / 10 for _ in range(150)]
        return scores, [int(rng.random() < 0.1 + 0.6 * (s > 0.4) + 0.2 * (s > 0.9)) for s in scores]
    if name == "bent":  # rises early and stays short of 1
        scores = [0.5 + 0.15 * bell() for _ in range(60)]
        return scores, [int(rng.random() < 0.8 * min(1.0, max(0.02, 3 * s - 1))) for s in scores]
    if name == "late":  # rises at the very end
        scores = [0.5 + 0.15 * bell() for _ in range(60)]
        return scores, [int(rng.random() < max(0.02, min(1.0, 5 * s - 2.6))) for s in scores]
    scores = [0.4 + 0.1 * bell() for _ in range(35)] + [0.7 + 0.1 * bell() for _ in range(25)]
    return scores, [0] * 35 + [1] * 25


SHAPES = ("steps", "bent", "late", "two hills")


# -- isotonic ----------------------------------------------------------------------------------------


def isotonic(scores: list[float], labels: list[int]) -> list[tuple[float, float, Fraction]]:
    """Blocks of the best rising fit: its value at i is the largest, over starts up to i, of the
    smallest mean, over ends from i on."""
    distinct = sorted(set(scores))
    pairs = [scores.count(s) for s in distinct]
    hits = [sum(y for x, y in zip(scores, labels, strict=True) if x == s) for s in distinct]
    n = len(distinct)
    values = [
        max(
            min(Fraction(sum(hits[j : k + 1]), sum(pairs[j : k + 1])) for k in range(i, n))
            for j in range(i + 1)
        )
        for i in range(n)
    ]
    high, low = smoothed(labels)
    blocks: list[tuple[float, float, Fraction]] = []
    for score, value in zip(distinct, values, strict=True):
        level = low + (high - low) * value
        if blocks and blocks[-1][2] == level:
            blocks[-1] = (blocks[-1][0], score, level)
        else:
            blocks.append((score, score, level))
    return blocks


def smoothed(labels: list[int]) -> tuple[Fraction, Fraction]:
    """Platt's targets for relevant pairs and for the others."""
    positive = sum(labels)
    return Fraction(positive + 1, positive + 2), Fraction(1, len(labels) - positive + 2)


def stepped(blocks: list[tuple[float, float, Fraction]], score: float) -> Fraction:
    """Relevance at a score."""
    at = Fraction(score)
    if at <= blocks[0][1]:
        return blocks[0][2]
    for (_, end, level), (start, stop, above) in itertools.pairwise(blocks):
        if end <= at < start:
            share = (at - Fraction(end)) / (Fraction(start) - Fraction(end))
            return level + share * (above - level)
        if start <= at <= stop:
            return above
    return blocks[-1][2]


def least_score(blocks: list[tuple[float, float, Fraction]], relevance: Fraction) -> float:
    """The smallest score of a relevance."""
    if relevance <= blocks[0][2]:
        return -math.inf
    for (_, end, level), (start, _, above) in itertools.pairwise(blocks):
        if relevance <= above:
            share = (relevance - level) / (above - level)
            return float(Fraction(end) + share * (Fraction(start) - Fraction(end)))
    return math.inf


def isotonic_cases() -> list[Case]:
    """Fits with scores at, between and beyond their steps."""
    cases: list[Case] = []
    for name in SHAPES:
        scores, labels = judged(name)
        blocks = isotonic(scores, labels)
        ends = sorted({each for low, high, _ in blocks for each in (low, high)})
        asked = [
            ends[0] - 1,
            *ends,
            *((a + b) / 2 for a, b in itertools.pairwise(ends)),
            ends[-1] + 1,
        ]
        levels = [float(level) for _, _, level in blocks]
        wanted = [
            0.0,
            1e-6,
            *((a + b) / 2 for a, b in itertools.pairwise(levels)),
            0.999999,
            1.0,
        ]
        cases.append({
            "name": name,
            "scores": hexed(scores), "labels": labels,
            "low": hexed([b[0] for b in blocks]), "high": hexed([b[1] for b in blocks]), "levels": hexed(levels),
            "asked": hexed(asked), "relevance": hexed([float(stepped(blocks, s)) for s in asked]),
            "wanted": hexed(wanted),
            "cutoffs": hexed([
                -math.inf if p == 0 else math.inf if p == 1 else least_score(blocks, Fraction(p)) for p in wanted
            ]),
        })  # fmt: skip
    return cases


# -- beta --------------------------------------------------------------------------------------------


def softplus(z: Decimal) -> Decimal:
    """ln(1 + exp(z))."""
    return (1 + z.exp()).ln()


def beta(z: Decimal, a: Decimal, b: Decimal, c: Decimal) -> Decimal:
    """a ln p - b ln(1 - p) + c, where p is the probability of the log-odds z."""
    return -a * softplus(-z) + b * softplus(z) + c


def solve(matrix: list[list[Decimal]], right: list[Decimal]) -> list[Decimal]:
    """Gauss' elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    n = len(rows)
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(n):
            if k != i:
                factor = rows[k][i] / rows[i][i]
                rows[k] = [x - factor * y for x, y in zip(rows[k], rows[i], strict=True)]
    return [rows[i][n] / rows[i][i] for i in range(n)]


def logistic(
    columns: list[list[Decimal]], targets: list[Decimal], start: list[Decimal]
) -> list[Decimal]:
    """Ridge logistic regression by Newton's method; the ridge is 1e-6 for every coefficient."""
    ridge, theta = Decimal("1e-6"), start

    def loss(at: list[Decimal]) -> Decimal:
        z = [sum((t * x for t, x in zip(at, row, strict=True)), Decimal(0)) for row in columns]
        losses = (softplus(x) - t * x for x, t in zip(z, targets, strict=True))
        return sum(losses, Decimal(0)) + ridge / 2 * sum((t * t for t in at), Decimal(0))

    for _ in range(60):
        z = [sum((t * x for t, x in zip(theta, row, strict=True)), Decimal(0)) for row in columns]
        p = [1 / (1 + (-x).exp()) for x in z]
        width = range(len(theta))
        gradient = [
            sum(
                ((q - t) * row[i] for q, t, row in zip(p, targets, columns, strict=True)),
                Decimal(0),
            )
            + ridge * theta[i]
            for i in width
        ]
        hessian = [
            [
                sum(
                    (q * (1 - q) * row[i] * row[k] for q, row in zip(p, columns, strict=True)),
                    Decimal(0),
                )
                + (ridge if i == k else 0)
                for k in width
            ]
            for i in width
        ]
        step, size, before = solve(hessian, gradient), Decimal(1), loss(theta)
        if sum(abs(s) for s in step) < Decimal("1e-20"):
            return theta
        while loss([t - size * s for t, s in zip(theta, step, strict=True)]) > before:
            size /= 2
        theta = [t - size * s for t, s in zip(theta, step, strict=True)]
    raise AssertionError("the fit did not settle")


def fit_beta(
    line: tuple[float, float], scores: list[float], labels: list[int]
) -> tuple[Decimal, Decimal, Decimal]:
    """The best beta map with coefficients of 0 or more: of all subsets, the one of least loss."""
    high, low = (Decimal(x.numerator) / x.denominator for x in smoothed(labels))
    targets = [high if y else low for y in labels]
    z = [Decimal(line[0]) * Decimal(s) + Decimal(line[1]) for s in scores]
    full = [[-softplus(-x), softplus(x), Decimal(1)] for x in z]
    found: list[tuple[Decimal, list[Decimal]]] = []
    for used in ((0, 1, 2), (0, 2), (1, 2)):
        theta = logistic(
            [[row[i] for i in used] for row in full], targets, [Decimal(int(i < 2)) for i in used]
        )
        whole = [Decimal(0)] * 3
        for place, value in zip(used, theta, strict=True):
            whole[place] = value
        if min(whole[:2]) >= 0:
            logits = [
                sum((t * x for t, x in zip(whole, row, strict=True)), Decimal(0)) for row in full
            ]
            found.append(
                (
                    sum(
                        (softplus(x) - t * x for x, t in zip(logits, targets, strict=True)),
                        Decimal(0),
                    ),
                    whole,
                )
            )
    _, (a, b, c) = min(found)
    return a, b, c


def relevance_of(line: Decimal, a: Decimal, b: Decimal, c: Decimal) -> Decimal:
    """Relevance by a line with a beta map behind it, both held within [-700, 700]."""
    edge = Decimal(700)
    logit = beta(min(max(line, -edge), edge), a, b, c)
    return 1 / (1 + (-min(max(logit, -edge), edge)).exp())


def line_of(relevance: float, a: Decimal, b: Decimal, c: Decimal) -> Decimal:
    """What a line has to reach, by bisection; infinite where no line within 700 does, or all do."""
    if relevance in (0.0, 1.0):
        return Decimal("Infinity" if relevance else "-Infinity")
    wanted = (Decimal(relevance) / (1 - Decimal(relevance))).ln()
    low, high = Decimal(-700), Decimal(700)
    if beta(low, a, b, c) >= wanted:
        return Decimal("-Infinity")
    if beta(high, a, b, c) < wanted:
        return Decimal("Infinity")
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if beta(middle, a, b, c) < wanted else (low, middle)
    return high


def lines(platt: Platt) -> dict[str, tuple[float, float]]:
    """Platt's line of the shapes that overlap."""
    return {name: platt(*judged(name)) for name in SHAPES[1:]}


def beta_cases(lines: dict[str, tuple[float, float]]) -> list[Case]:
    """Fits of every shape."""
    cases: list[Case] = []
    for name, line in lines.items():
        scores, labels = judged(name)
        cases.append({
            "name": name, "scores": hexed(scores), "labels": labels,
            "slope": line[0].hex(), "offset": line[1].hex(),
            "map": hexed([float(x) for x in fit_beta(line, scores, labels)]),
        })  # fmt: skip
    return cases


def beta_maps() -> list[Case]:
    """Maps of all kinds: the unchanged one, convex, concave, with a coefficient of 0, flat and steep."""
    cases: list[Case] = []
    for numbers in (
        (12.5, -8.0, 1.0, 1.0, 0.0), (12.5, -8.0, 0.4, 2.0, 0.7), (30.0, -12.0, 2.5, 0.3, -0.4),
        (8.0, -3.0, 0.0, 1.3, 0.5), (8.0, -3.0, 1.3, 0.0, 0.5), (5000.0, -3500.0, 0.05, 0.9, 3.0),
    ):  # fmt: skip
        slope, offset, a, b, c = map(Decimal, numbers)
        asked = [-1.0, -0.2, 0.0, 0.3, 0.5, 0.64, 0.7, 0.71, 1.0]
        wanted = [0.0, 1e-9, 0.05, 0.3, 0.5, 0.7, 0.999, 1.0]
        cases.append({
            "numbers": hexed(list(numbers)),
            "asked": hexed(asked),
            "relevance": hexed([float(relevance_of(slope * Decimal(s) + offset, a, b, c)) for s in asked]),
            "wanted": hexed(wanted),
            "cutoffs": hexed([float((line_of(p, a, b, c) - offset) / slope) for p in wanted]),
        })  # fmt: skip
    return cases


# -- adapters ----------------------------------------------------------------------------------------


def adapter_cases() -> list[Case]:
    """Adapters on lists that are full, short, of one row, and far from what was seen."""
    rng = random.Random(3)
    cases: list[Case] = []
    for depth, names in (
        (20, ["rank0", "last"]),
        (50, ["rank0", "rank4", "rank19", "rank49", "last"]),
        (200, ["rank149"]),
    ):
        width = len(names)
        made = {
            "features": names, "depth": depth,
            "feature_means": [0.6 - 0.05 * i for i in range(width)],
            "feature_scales": [0.05 + 0.01 * i for i in range(width)],
            "score_mean": 0.45, "score_scale": 0.11, "floor": 0.06,
            "offsets": [-1.2, *(rng.uniform(-1, 1) for _ in names)],
            "slopes": [1.4, *(rng.uniform(-0.6, 0.6) for _ in names)],
            "a": 0.8, "b": 1.3, "c": 0.2,
        }  # fmt: skip
        for length, middle in (
            (depth, 0.5),
            (depth + 37, 0.55),
            (7, 0.6),
            (1, 3.0),
        ):
            shortlist = sorted((middle + 0.3 * rng.random() for _ in range(length)), reverse=True)
            name = f"{depth} rows, {width} features, {length} at {middle}"
            cases.append(adapter_case(name, made, shortlist))
    return cases


def adapter_case(
    name: str, made: dict[str, object], shortlist: list[float], query: Sequence[float] = ()
) -> Case:
    """What an adapter makes of a shortlist, and of a query where it reads one."""
    rows = made.get("rows")
    asked_of = of_query(rows, list(query)) if isinstance(rows, dict) else None
    slope, offset = adapter_line(made, shortlist, asked_of)
    asked, wanted = [0.2, 0.5, shortlist[0], shortlist[-1]], [0.05, 0.5, 0.8, 1.0]
    a, b, c = (Decimal(made[name]) for name in "abc")  # type: ignore[arg-type]
    return {
        "name": name,
        "adapter": spelled(made), "query": hexed(list(query)), "list": hexed(shortlist),
        "slope": float(slope).hex(), "offset": float(offset).hex(),
        "asked": hexed(asked),
        "relevance": hexed([float(relevance_of(slope * Decimal(s) + offset, a, b, c)) for s in asked]),
        "wanted": hexed(wanted),
        "cutoffs": hexed([float((line_of(p, a, b, c) - offset) / slope) for p in wanted]),
    }  # fmt: skip


def spelled(value: object) -> object:
    """The same with every digit of every number that is not whole."""
    if isinstance(value, dict):
        return {name: spelled(part) for name, part in value.items()}
    if isinstance(value, list):
        return [spelled(part) for part in value]
    return value.hex() if isinstance(value, float) else value


def asking_cases() -> list[Case]:
    """Adapters that read something off the query, by every metric; queries of all lengths."""
    rng = random.Random(4)
    lengths, dims = (3900, 3900, 2500, 40, 3000), 24
    names = ["query_mean", "rank0", "query_sd", "place2", "last", "place0"]
    cases: list[Case] = []
    for metric in ("cosine", "dot", "euclidean"):
        vectors = [(length, [rng.gauss(0, 1) for _ in range(dims)]) for length in lengths]
        mean, *directions, middle = (
            "[" + ",".join(str(round(length * x / math.hypot(*v))) for x in v) + "]"
            for length, v in vectors
        )
        rows: dict[str, object] = {
            "format": 1, "metric": metric, "mean": mean, "mean_length": 0.7, "square": 1.3, "directions": directions,
            "spread": 0.3, "rest": 0.004, "middle": middle if metric == "euclidean" else None, "middle_length": 0.2,
            "middle_square": 0.05,
        }  # fmt: skip
        made: dict[str, object] = {
            "features": names, "depth": 20,
            "feature_means": [rng.uniform(-0.2, 0.2) for _ in names], "feature_scales": [rng.uniform(0.5, 2) for _ in names],
            "score_mean": 0.45, "score_scale": 0.11, "floor": 0.06,
            "offsets": [-1.2, *(rng.uniform(-1, 1) for _ in names)], "slopes": [1.4, *(rng.uniform(-0.3, 0.3) for _ in names)],
            "a": 0.8, "b": 1.3, "c": 0.2, "rows": rows,
        }  # fmt: skip
        for length in (1.0, 0.01, 40.0):
            query = [f32(length * rng.gauss(0, 0.3)) for _ in range(dims)]
            shortlist = sorted((0.5 + 0.3 * rng.random() for _ in range(20)), reverse=True)
            name = f"{metric}, a query of {length}"
            cases.append(adapter_case(name, made, shortlist, query))
    return cases


def f32(number: float) -> float:
    """Round to the nearest 32-bit float, ties to even."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def of_query(rows: dict[str, object], query: list[float]) -> dict[str, Decimal]:
    """What rows say of a query: the mean of its scores, their deviation, and where it lies.

    Of a query the direction counts, in 4096ths; vectors of the rows are in 3900ths.
    """

    def number(name: str) -> Decimal:
        return Decimal(float(rows[name]))  # type: ignore[arg-type]

    length = sum((Decimal(x) ** 2 for x in query), Decimal(0)).sqrt()
    whole = [round(Fraction(f32(float(Decimal(x) / length))) * 4096) for x in query]
    size = Decimal(1) if rows["metric"] == "cosine" else length

    def along(notation: str) -> Decimal:
        product = sum(
            a * int(b) for a, b in zip(whole, notation.strip("[]").split(","), strict=True)
        )
        return size * product / (4096 * 3900)

    mean = along(str(rows["mean"])) * number("mean_length")
    places = [along(each) for each in rows["directions"]]  # type: ignore[attr-defined]
    found = {f"place{i}": place for i, place in enumerate(places)}
    spread = sum((place**2 for place in places), Decimal(0))
    if rows["metric"] == "euclidean":
        away = (size**2 - 2 * mean + number("square")).sqrt()
        spread += number("middle_square") - 2 * along(str(rows["middle"])) * number("middle_length")
        inside = number("rest") * (size**2 - 2 * mean + number("mean_length") ** 2)
        inside += number("spread") * spread
        return {**found, "query_mean": -away, "query_sd": max(inside, Decimal(0)).sqrt() / away}
    inside = number("rest") * size**2 + number("spread") * spread
    return {**found, "query_mean": mean, "query_sd": inside.sqrt()}


def adapter_line(
    made: dict[str, object], shortlist: list[float], asked: dict[str, Decimal] | None = None
) -> tuple[Decimal, Decimal]:
    """The line of one query: its features in deviations, held to four of them."""

    def numbers(name: str) -> list[Decimal]:
        value = made[name]
        assert isinstance(value, list)
        return [Decimal(x) for x in value]

    def number(name: str) -> Decimal:
        value = made[name]
        assert isinstance(value, (int, float))
        return Decimal(value)

    considered = shortlist[: int(number("depth"))]
    considered += [considered[-1]] * (int(number("depth")) - len(considered))
    names = made["features"]
    assert isinstance(names, list)
    features = []
    for name, mean, scale in zip(
        names, numbers("feature_means"), numbers("feature_scales"), strict=True
    ):
        if asked is not None and name in asked:
            value = asked[name]
        else:
            at = -1 if name == "last" else min(int(name[4:]), len(considered) - 1)
            value = Decimal(considered[at])
        deviations = (value - mean) / scale
        features.append(min(max(deviations, Decimal(-4)), Decimal(4)))
    offsets, slopes = numbers("offsets"), numbers("slopes")
    steepness = slopes[0] + sum(
        (w * f for w, f in zip(slopes[1:], features, strict=True)), Decimal(0)
    )
    slope = max(steepness, number("floor")) / number("score_scale")
    base = offsets[0] + sum((w * f for w, f in zip(offsets[1:], features, strict=True)), Decimal(0))
    return slope, base - slope * number("score_mean")

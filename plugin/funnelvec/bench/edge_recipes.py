"""What `bench qdrant` measures on Edge: full vectors, Qdrant's own quantizations, and funnels.

A recipe is plain values, since it goes to other processes. Its knobs are turned until it reaches
the recall; the last knob trades time for recall more finely than those before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from funnelvec.funnel import Funnel

__all__ = ["FULL", "OURS", "Recipe", "Setting", "funnel_recipe", "peers", "templates"]

#: Values of the knobs, in their order.
Setting = tuple[float, ...]

#: Families: full vectors, and funnels.
FULL, OURS = "full HNSW", "funnel"

_EFS = (16, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800)
_OVERSAMPLING = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0)
_KEEPS = (10, 12, 16, 20, 24, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640)
_MIDDLE_KEEPS = (12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to store and search.

    Attributes
    ----------
    family
        Only the best of a family is compared in the end.
    quantization
        Kind and its bits, ``("binary", "two_bits", "default")``; empty where there is none.
    template
        A funnel without keeps.
    knobs
        Name and values of each, ascending.
    """

    name: str
    family: str
    knobs: tuple[tuple[str, tuple[float, ...]], ...]
    quantization: tuple[str, ...] = ()
    template: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is a funnel."""
        return bool(self.template)

    def starts(self) -> Iterator[Setting]:
        """Every setting of all knobs but the last, cheap ones first."""
        return itertools.product(*(values for _, values in self.knobs[:-1]))

    def funnel(self, setting: Setting) -> str:
        """The funnel at a setting; its keeps do not grow."""
        *stages, last = self.template.split(" > ")
        # The last knob is the first stage's keep, since it decides what is found at all.
        keeps = [int(each) for each in (setting[-1], *setting[:-1])]
        kept = [f"{stage}@{keep}" for stage, keep in zip(stages, keeps, strict=True)]
        return " > ".join([*kept, last])

    def shown(self, setting: Setting) -> str:
        """The setting in words."""
        if self.ours:
            return self.funnel(setting)
        return ", ".join(
            f"{name} {value:g}" for (name, _), value in zip(self.knobs, setting, strict=True)
        )


def funnel_recipe(template: str) -> Recipe:
    """Return the recipe of a funnel without keeps.

    Raises
    ------
    SpecError
        If it is no funnel.
    """
    stages = template.split(" > ")
    Funnel.parse(" > ".join([*(f"{each}@100" for each in stages[:-1]), stages[-1]]))
    middle = [("second keep", _MIDDLE_KEEPS)] * (len(stages) - 2)
    knobs = (*middle, ("first keep", _KEEPS)) if len(stages) > 1 else ()
    return Recipe(template, OURS, knobs, template=template)


def templates(dims: int, basis: str, *, quick: bool) -> list[str]:
    """Funnels that are tried where none is named."""
    narrow, wider, widest = min(128, dims // 2), min(256, dims // 2), min(384, dims // 2)
    if basis == "own":
        found = [f"{wider}:turbo", f"{narrow}:turbo8"]
        more = [
            f"{widest}:turbo",
            f"{narrow}:int8",
            f"{narrow}:f16",
            f"{narrow}:int8 > {wider}:int8",
        ]
    else:  # what a prefix knew has to be found again; turbo turns vectors itself
        found = [f"{wider}:turbo~pca", f"{narrow}:turbo8~pca", f"{dims}:bq2"]
        more = [f"{dims}:turbo", f"{narrow}:f16~pca", f"{dims}:bit"]
    chosen = dict.fromkeys(found if quick else found + more)
    return [f"{each} > {dims}:f32" for each in chosen]


def peers(*, quick: bool) -> list[Recipe]:
    """Full vectors, and Qdrant's quantizations of them with rescoring."""
    found = [Recipe("full-dimension HNSW", FULL, (("ef", _EFS),))]
    quantized = [
        ("int8", "int8", ("scalar",)),
        ("binary, 1 bit", "binary", ("binary", "one_bit", "default")),
        ("binary, 2 bits", "binary", ("binary", "two_bits", "default")),
        ("turbo, 4 bits", "turbo", ("turbo", "bits4")),
    ]
    if not quick:
        quantized += [
            ("binary, 1.5 bits", "binary", ("binary", "one_and_half_bits", "default")),
            ("binary, 1 bit, query of 8", "binary", ("binary", "one_bit", "scalar8bits")),
            ("turbo, 1.5 bits", "turbo", ("turbo", "bits1_5")),
            ("turbo, 2 bits", "turbo", ("turbo", "bits2")),
            ("turbo, 8 bits", "turbo", ("turbo", "bits8")),
        ]
    knobs = (("oversampling", _OVERSAMPLING), ("ef", _EFS))
    return found + [Recipe(name, family, knobs, given) for name, family, given in quantized]

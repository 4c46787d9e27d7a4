"""Funnels: stages from coarse to fine, each but the last with the number of rows it keeps.

Grammar: ``funnel = stage { ">" stage }``, ``stage = resolution [ "@" keep ]``. Spaces around
``>`` and ``@`` and at both ends are accepted; the printed form is always
``128:f16@200 > 768:f32``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from funnelvec.errors import SpecError
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode

__all__ = ["MAX_KEEP", "MAX_STAGES", "Funnel", "Stage"]

#: The largest keep of nine digits: it fits the 32-bit integers of every database.
MAX_KEEP = 999_999_999

#: More stages than this cost time to plan and save none; the SQL side has the same limit.
MAX_STAGES = 16

_KEEP = re.compile(r"[1-9][0-9]{0,8}")
_SPACE = " \t\r\n"
_EXAMPLE = "'128:f16@200 > 768:f32'"


@dataclass(frozen=True, slots=True)
class Stage:
    """A resolution and how many rows it keeps (None: the last stage, which answers).

    Raises
    ------
    SpecError
        If `keep` is not a whole number from 1 to 999,999,999.
    """

    resolution: Resolution
    keep: int | None = None

    def __post_init__(self) -> None:
        keep: Any = self.keep
        if keep is not None and (type(keep) is not int or not 1 <= keep <= MAX_KEEP):
            raise SpecError(
                f"stage {self.resolution} must keep a whole number of rows from 1 to "
                f"{MAX_KEEP}, not {keep!r}"
            )

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Read ``resolution`` or ``resolution@keep``."""
        given: Any = text
        if not isinstance(given, str):
            raise SpecError(f"a stage is text such as '128:f16@200', not {given!r}")
        resolution, at, keep = given.partition("@")
        parsed = Resolution.parse(resolution.strip(_SPACE))
        if not at:
            return cls(parsed)
        keep = keep.strip(_SPACE)
        if not _KEEP.fullmatch(keep):
            raise SpecError(
                f"stage {given.strip(_SPACE)!r}: the number after @ must be a plain whole number "
                f"from 1 to {MAX_KEEP}, not {keep!r}"
            )
        return cls(parsed, int(keep))

    def __str__(self) -> str:
        return str(self.resolution) if self.keep is None else f"{self.resolution}@{self.keep}"


@dataclass(frozen=True, slots=True)
class Funnel:
    """Stages from coarse to fine; the text is the identity: ``Funnel.parse(str(f)) == f``.

    Raises
    ------
    SpecError
        If there is no stage, a stage before the last keeps nothing, the last stage keeps a
        number, a keep grows, or a resolution follows itself.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise SpecError(f"a funnel needs at least one stage, as in {_EXAMPLE}")
        if len(self.stages) > MAX_STAGES:
            raise SpecError(
                f"the funnel has {len(self.stages)} stages; it may have {MAX_STAGES}, and two or "
                "three are what pays"
            )
        for stage in self.stages[:-1]:
            if stage.keep is None:
                raise SpecError(
                    f"funnel '{self}': stage {stage} is not the last and must say how many rows "
                    f"it keeps; write {stage}@200"
                )
        if self.last.keep is not None:
            raise SpecError(
                f"funnel '{self}': the last stage answers and keeps no number; write "
                f"{self.last.resolution}, and ask for rows with k"
            )
        for coarse, fine in pairwise(self.stages):
            if coarse.resolution == fine.resolution:
                raise SpecError(
                    f"funnel '{self}': stage {fine} repeats the resolution before it; leave one out"
                )
            if coarse.keep is not None and fine.keep is not None and fine.keep > coarse.keep:
                raise SpecError(
                    f"funnel '{self}': stage {fine} keeps more rows than the {coarse.keep} that "
                    f"reach it; write {fine.resolution}@{coarse.keep} or less"
                )

    @classmethod
    def parse(cls, text: str) -> Funnel:
        """Read the text form.

        Raises
        ------
        SpecError
            If the text does not follow the grammar.
        """
        given: Any = text
        if not isinstance(given, str):
            raise SpecError(f"a funnel is text such as {_EXAMPLE}, not {given!r}")
        if not given.strip(_SPACE):
            raise SpecError(f"the funnel is empty; write one such as {_EXAMPLE}")
        return cls(tuple(Stage.parse(stage.strip(_SPACE)) for stage in given.split(">")))

    def __str__(self) -> str:
        return " > ".join(str(stage) for stage in self.stages)

    @property
    def last(self) -> Stage:
        """The stage whose score orders the answer."""
        return self.stages[-1]

    @property
    def narrowest_keep(self) -> int | None:
        """How many rows can reach the last stage; None for a funnel of a single stage."""
        return self.stages[-2].keep if len(self.stages) > 1 else None

    def check(self, *, dims: int, code: BaseCode = "f32", approximate: bool = False) -> None:
        """Check the funnel against the base column.

        Parameters
        ----------
        dims, code
            Width and code of the base column.
        approximate
            Whether an ending other than the base column is wanted.

        Raises
        ------
        SpecError
            If a stage is wider than the base or holds more digits, or the ending is not exact
            and does not say so.
        """
        for stage in self.stages:
            if stage.resolution.dims > dims:
                raise SpecError(
                    f"funnel '{self}': stage {stage} is wider than the column, which has {dims} "
                    f"dimensions; write {dims} or less"
                )
            if code == "f16" and stage.resolution.code == "f32":
                raise SpecError(
                    f"funnel '{self}': stage {stage} would hold more digits than the column of "
                    f"16-bit floats; write {stage.resolution.dims}:f16"
                )
        base = Resolution(dims, code)
        if self.last.resolution != base and not approximate:
            raise SpecError(
                f"funnel '{self}' ends in {self.last.resolution}, not in the column itself; end it "
                f"with '> {base}', or pass approximate=True to accept approximate scores"
            )

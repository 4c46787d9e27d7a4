"""What a run starts from: the column, what is stored of it, and what the engine can do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from funnelvec.codes import Rotation
from funnelvec.reports import ResolutionStatus
from funnelvec.resolution import Resolution
from funnelvec.tuning.candidates import CHAIN, PCA
from funnelvec.types import Metric

__all__ = ["About", "Ground", "KeptFunnel", "Names", "ScoreRule"]

#: Names that need no quotes anywhere.
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


class KeptFunnel(NamedTuple):
    """A funnel that the table has."""

    funnel: str
    model: str | None
    returns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """What the calibration of a funnel asks of whatever takes its place.

    Attributes
    ----------
    least
        Rows that it has to keep before its last stage; with fewer it loses the calibration.
    alpha
        How much of the hub of its row a score is less; 0 is the plain order.
    """

    least: int = 0
    alpha: float = 0.0

    @property
    def needs_list(self) -> bool:
        """Whether a funnel of one stage cannot have it."""
        return self.least > 0 or self.alpha != 0.0


@dataclass(frozen=True, slots=True)
class About:
    """The column that is tuned."""

    name: str
    vector: str
    base: Resolution
    metric: Metric
    key: str | tuple[str, ...]
    engine: str


@dataclass(frozen=True, slots=True)
class Names:
    """Names of what a run makes beside the funnel, so that a later run knows it again."""

    table: str

    @property
    def prefix(self) -> str:
        """What they begin with; short enough for every database."""
        name = self.table
        if len(name) > 30 or not _PLAIN.fullmatch(name):
            plain = "".join(c for c in name.lower() if c.isascii() and c.isalnum())[:12]
            name = f"t{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return f"{name}_tune"

    def trial(self, number: int) -> str:
        """A funnel that is being measured."""
        return f"{self.prefix}_try{number}"

    @property
    def scratch(self) -> str:
        """A table of some rows, to measure what the engine charges."""
        return f"{self.prefix}_scratch"

    @property
    def copy(self) -> str:
        """A table of some rows, to tune instead of the table."""
        return f"{self.prefix}_copy"

    def mark(self, resolution: Resolution) -> str:
        """A funnel that says: this resolution was built by a run, and may go."""
        rotation = f"_{resolution.rotation}" if resolution.rotation else ""
        return f"{self.prefix}_{resolution.dims}_{resolution.code}{rotation}"

    def mark_rotation(self, rotation: str) -> str:
        """The same for a rotation."""
        return f"{self.prefix}_rotation_{rotation}"


@dataclass(slots=True)
class Ground:
    """What stands, and what this run and those before it have built.

    Attributes
    ----------
    rotations
        Fitted rotations of the column; None where the engine keeps none.
    stored
        Stored resolutions.
    ours, fitted_here
        Resolutions and rotations that a run has built, this one or one that was stopped.
    made, gone
        Funnels of the run's own that it made, and dropped again.
    on
        The copy that is tuned instead of the table, or None.
    model, rule
        Of the funnel that is replaced; what is tried has both, so it scores as the funnel will.
    """

    about: About
    rows: int
    names: Names
    funnels: Mapping[str, KeptFunnel]
    rotations: Mapping[str, Rotation] | None
    stored: dict[Resolution, ResolutionStatus] = field(default_factory=dict)
    ours: list[Resolution] = field(default_factory=list)
    fitted_here: list[str] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    on: Any = None
    model: str | None = None
    rule: ScoreRule = ScoreRule()

    @classmethod
    def of(
        cls, about: About, rows: int, funnels: Mapping[str, KeptFunnel],
        rotations: Mapping[str, Rotation] | None, status: list[ResolutionStatus],
    ) -> Ground:  # fmt: skip
        """Read what the table says of itself."""
        names = Names(about.name)
        found = cls(about, rows, names, funnels, rotations)
        for each in status:
            if each.storage not in ("window", "base"):
                found.stored[Resolution.parse(each.resolution)] = each
        found.ours = [each for each in found.stored if names.mark(each) in funnels]
        found.fitted_here = [
            each for each in rotations or () if names.mark_rotation(each) in funnels
        ]
        return found

    @property
    def can_fit(self) -> bool:
        """Whether the engine keeps fitted rotations."""
        return self.rotations is not None

    def rotation_of(self, resolution: Resolution) -> str | None:
        """The rotation that would have to be fitted for a resolution, or None."""
        name = resolution.rotation
        if name not in (PCA, CHAIN) or name in (self.rotations or {}):
            return None
        return name

    def ready(self, resolution: Resolution, *, first: bool, indexed: bool) -> bool:
        """Whether a resolution can serve a stage as it stands."""
        if resolution == self.about.base:
            return True
        status = self.stored.get(resolution)
        return status is not None and not (first and indexed and status.index is None)

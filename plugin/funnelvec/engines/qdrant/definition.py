"""What funnelvec knows of a collection, kept with the collection itself. Pure.

It is one text, so that no number in it goes through Qdrant's JSON parser, and has a format number
and a version. Who changes it writes version n + 1 only where version n stands.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from funnelvec.calibration import StoredCalibration, read_calibration
from funnelvec.engines.keys import KeyKind, KeyName, key_kind, key_name, key_names
from funnelvec.engines.qdrant.vectors import Column
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import EngineError, VersionMismatch
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution
from funnelvec.types import ColumnKind

__all__ = ["FORMAT", "Definition", "Kept", "Vector"]

#: The format that this version writes; older ones are turned into it when they are read.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A resolution that is stored: whether it has an index, and whether all points have it."""

    index: bool
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector of the application's, with what was made of it."""

    column: Column
    resolutions: Mapping[Resolution, Kept] = field(default_factory=dict)
    funnels: Mapping[str, NamedFunnel] = field(default_factory=dict)
    calibrations: tuple[StoredCalibration, ...] = ()

    @property
    def indexed(self) -> frozenset[Resolution]:
        """Resolutions with an index."""
        return frozenset(each for each, kept in self.resolutions.items() if kept.index)

    @property
    def filling(self) -> list[Resolution]:
        """Resolutions that some points may not have yet."""
        return [each for each, kept in self.resolutions.items() if not kept.ready]

    def calibration(self, named: NamedFunnel) -> StoredCalibration | None:
        """The calibration in force for a funnel."""
        wanted = (named.model, str(named.funnel.last.resolution))
        return next((c for c in self.calibrations if (c.model, c.last_stage) == wanted), None)

    def calibrated(self, fitted: StoredCalibration) -> Vector:
        """Return the vector with one calibration more, in place of the one before."""
        kept = [
            each
            for each in self.calibrations
            if (each.model, each.last_stage) != (fitted.model, fitted.last_stage)
        ]
        return replace(self, calibrations=(*kept, fitted))


@dataclass(frozen=True, slots=True)
class Definition:
    """The key and columns of a collection, and its vectors.

    Attributes
    ----------
    foreign
        Whether another program made the collection: keys are then the ids of points, and do not
        stand in the payload.
    version
        0 where nothing has been kept yet.
    token
        Of whoever wrote it: tells two writers of one version apart.
    """

    key: KeyName
    kinds: Mapping[str, ColumnKind]
    vectors: Mapping[str, Vector]
    foreign: bool = False
    version: int = 0
    token: str = ""

    @property
    def key_kind(self) -> KeyKind:
        """What keys hold."""
        return key_kind(self.key, self.kinds)

    @property
    def others(self) -> dict[str, ColumnKind]:
        """The kind of every column but the key."""
        names = key_names(self.key)
        return {name: kind for name, kind in self.kinds.items() if name not in names}

    @property
    def filterable(self) -> dict[str, ColumnKind]:
        """The kind of every column that stands in the payload."""
        return self.others if self.foreign else dict(self.kinds)

    def with_vector(self, vector: Vector) -> Definition:
        """Return the definition with one vector changed."""
        return replace(self, vectors={**self.vectors, vector.column.name: vector})

    def next(self) -> Definition:
        """Return what is to be written in place of this one."""
        return replace(self, version=self.version + 1, token=uuid.uuid4().hex)

    def to_text(self) -> str:
        """Write it."""
        content = {
            "format": FORMAT,
            "version": self.version,
            "token": self.token,
            "foreign": self.foreign,
            "key": list(key_names(self.key)),
            "kinds": dict(self.kinds),
            "vectors": {name: _written(vector) for name, vector in self.vectors.items()},
        }
        return json.dumps(content)

    @classmethod
    def from_text(cls, text: str) -> Definition:
        """Read what `to_text` wrote, of this version or one before.

        Raises
        ------
        VersionMismatch
            If a newer version wrote it.
        EngineError
            If it is damaged.
        """
        try:
            content = json.loads(text)
            if content["format"] > FORMAT:
                raise VersionMismatch(
                    f"the definition of the collection has format {content['format']}, and this "
                    f"version of funnelvec reads up to {FORMAT}; upgrade funnelvec"
                )
            return cls(
                key=key_name(content["key"]),
                kinds=content["kinds"],
                vectors={name: _read(name, each) for name, each in content["vectors"].items()},
                foreign=content["foreign"],
                version=content["version"],
                token=content["token"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                f"the definition that funnelvec keeps with the collection is damaged: {error!r}"
            ) from error


def _written(vector: Vector) -> dict[str, Any]:
    return {
        "base": str(vector.column.base),
        "metric": vector.column.metric,
        "resolutions": {
            str(resolution): {"index": kept.index, "ready": kept.ready}
            for resolution, kept in vector.resolutions.items()
        },
        "funnels": {
            name: {"funnel": str(n.funnel), "model": n.model, "returns": list(n.returns)}
            for name, n in vector.funnels.items()
        },
        "calibrations": [calibration.to_json() for calibration in vector.calibrations],
    }


def _read(name: str, given: Mapping[str, Any]) -> Vector:
    return Vector(
        Column(name, Resolution.parse(given["base"]), given["metric"]),
        {
            Resolution.parse(text): Kept(kept["index"], kept["ready"])
            for text, kept in given["resolutions"].items()
        },
        {
            name: NamedFunnel(name, Funnel.parse(n["funnel"]), n["model"], tuple(n["returns"]))
            for name, n in given["funnels"].items()
        },
        tuple(read_calibration(text) for text in given["calibrations"]),
    )

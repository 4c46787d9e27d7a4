"""What funnelvec knows of a collection, kept with the collection itself. Pure.

It is one text, so that no number in it goes through Qdrant's JSON parser, and has a format number
and a version. Who changes it writes version n + 1 only where version n stands.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from funnelvec.calibration import (
    AdapterCalibration,
    Certificate,
    StoredCalibration,
    read_calibration,
)
from funnelvec.codes import Rotation
from funnelvec.engines.keys import KeyKind, KeyName, key_kind, key_name, key_names
from funnelvec.engines.qdrant.banks import KeptHub
from funnelvec.engines.qdrant.correcting import Correction
from funnelvec.engines.qdrant.maps import KeptRotation
from funnelvec.engines.qdrant.names import DEFINITION, PointId, chunk_id
from funnelvec.engines.qdrant.vectors import Column
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import Conflict, EngineError, NotCalibrated, VersionMismatch
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution
from funnelvec.types import ColumnKind, Promised

__all__ = ["FORMAT", "Definition", "Kept", "Vector"]

#: The format that this version writes; older ones are turned into it when they are read.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A resolution that is stored: whether it has an index, and whether all points have it.

    `m` and `ef_construction` are those of the index where they are not the usual ones.
    """

    index: bool
    ready: bool = True
    m: int | None = None
    ef_construction: int | None = None

    @classmethod
    def wanted(
        cls, kept: Kept | None, *, index: bool, ready: bool, graph: tuple[int | None, int | None]
    ) -> Kept:
        """What is to be stored where `kept` is; an index that stands stays as it is."""
        if kept is not None and kept.index:
            return replace(kept, ready=ready)
        return cls(index, ready, *(graph if index else (None, None)))

    @property
    def graph(self) -> dict[str, Any]:
        """What its vector is configured with."""
        return {"index": self.index, "m": self.m, "ef_construction": self.ef_construction}


@dataclass(frozen=True, slots=True)
class KeptCertificate:
    """The certificate of a funnel; void after another calibration."""

    certificate: Certificate
    void: bool = False


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector of the application's, with what was made of it."""

    column: Column
    resolutions: Mapping[Resolution, Kept] = field(default_factory=dict)
    funnels: Mapping[str, NamedFunnel] = field(default_factory=dict)
    calibrations: tuple[StoredCalibration, ...] = ()
    rotations: Mapping[str, KeptRotation] = field(default_factory=dict)
    certificates: Mapping[str, KeptCertificate] = field(default_factory=dict)
    #: What tuning runs have found, by funnel, with the funnel's text then.
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hub: KeptHub | None = None

    @property
    def reserved(self) -> list[PointId]:
        """Points that hold what was made for it."""
        kept = [(rotation.token, rotation.parts) for rotation in self.rotations.values()]
        kept += [] if self.hub is None else [(self.hub.id, self.hub.parts)]
        return [chunk_id(token, number) for token, parts in kept for number in range(parts)]

    @property
    def indexed(self) -> frozenset[Resolution]:
        """Resolutions with an index."""
        return frozenset(each for each, kept in self.resolutions.items() if kept.index)

    @property
    def filling(self) -> list[Resolution]:
        """Resolutions that some points may not have yet."""
        return [each for each, kept in self.resolutions.items() if not kept.ready]

    def calibration(
        self, named: NamedFunnel, *, corrected: bool = True
    ) -> StoredCalibration | None:
        """The calibration in force for a funnel: the newest that it can use.

        Without `corrected` the newest over the plain score.
        """
        wanted, keep = _calibrated_as(named), named.funnel.narrowest_keep
        ready = corrected and self.hub is not None and self.hub.state == "ready"
        hub = self.hub.id if self.hub is not None and ready else None
        for each in self.calibrations[::-1]:
            if _made_for(each) == wanted and each.serves(keep) and each.hub in (None, hub):
                return each
        return None

    def correction(self, named: NamedFunnel) -> Correction | None:
        """What the scores of a funnel are less, None where they are left as they are."""
        found = self.calibration(named)
        if self.hub is None or found is None or not found.alpha:
            return None
        return Correction(self.hub.path, found.alpha)

    def calibrated(self, fitted: StoredCalibration) -> Vector:
        """Return the vector with one calibration more, in place of what it makes useless.

        One over a corrected score leaves one over the plain score, for the time without a hub
        column and for funnels of one stage; an adapter leaves what funnels go by that keep fewer
        rows than it looks at. Certificates of funnels that go by it are void.
        """
        rest = tuple(each for each in self.calibrations if not _replaces(fitted, each))
        return self._judged_by(replace(self, calibrations=(*rest, fitted)), renewed=fitted)

    def hubbed(self, hub: KeptHub | None) -> Vector:
        """Return the vector with another state of its hub column; certificates may be void."""
        kept = tuple(c for c in self.calibrations if c.hub is None or (hub and c.hub == hub.id))
        return self._judged_by(replace(self, hub=hub, calibrations=kept))

    def _judged_by(self, after: Vector, renewed: StoredCalibration | None = None) -> Vector:
        """`after`, with certificates void of funnels that go by other calibrations there."""

        def changed(funnel: str) -> bool:
            now = after.calibration(self.funnels[funnel])
            return now is renewed if renewed is not None else now != self._in_force(funnel)

        certificates = {
            name: replace(kept, void=kept.void or changed(_funnel_of(name)))
            for name, kept in self.certificates.items()
        }
        return replace(after, certificates=certificates)

    def _in_force(self, funnel: str) -> StoredCalibration | None:
        return self.calibration(self.funnels[funnel])

    def certified(self, funnel: str, certificate: Certificate | None) -> Vector:
        """Return the vector with a certificate of a funnel, or without those it had."""
        if certificate is None:
            known = self.certificates.items()
            rest = {name: kept for name, kept in known if _funnel_of(name) != funnel}
        else:
            kept = KeptCertificate(certificate)
            rest = {**self.certificates, _certified_as(certificate.kind, funnel): kept}
        return replace(self, certificates=rest)

    def certificate(self, named: NamedFunnel, kind: Promised) -> Certificate:
        """The certificate in force for a funnel.

        Raises
        ------
        NotCalibrated
            If there is none, or it is void.
        """
        kept = self.certificates.get(_certified_as(kind, named.name))
        if kept is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no certificate of {kind}; call certify(judgments, "
                f"{kind}=..., funnel={named.name!r}) first"
            )
        if kept.void:
            raise NotCalibrated(
                f"the certificate of {named.name!r} is void: it is about "
                f"{kept.certificate.funnel} with another calibration; certify again"
            )
        return kept.certificate


def _certified_as(kind: Promised, funnel: str) -> str:
    """What a certificate is kept as; no kind has a space in it."""
    return f"{kind} {funnel}"


def _funnel_of(name: str) -> str:
    return name.partition(" ")[2]


def _replaces(fitted: StoredCalibration, old: StoredCalibration) -> bool:
    """Whether every funnel that went by the old one goes by the other now."""
    if _made_for(old) != _made_for(fitted) or (fitted.hub and not old.hub):
        return False
    return _least_keep(fitted) <= _least_keep(old)


def _least_keep(calibration: StoredCalibration) -> int:
    return calibration.depth if isinstance(calibration, AdapterCalibration) else 0


def _made_for(calibration: StoredCalibration) -> tuple[str | None, str]:
    return calibration.model, calibration.last_stage


def _calibrated_as(named: NamedFunnel) -> tuple[str | None, str]:
    """What the calibration of a funnel is known by."""
    return named.model, str(named.funnel.last.resolution)


@dataclass(frozen=True, slots=True)
class Definition:
    """The key and columns of a collection, and its vectors.

    Attributes
    ----------
    foreign
        Whether another program made the collection: keys are then the ids of points, and do not
        stand in the payload.
    copying
        The collection that this one is being copied into; nobody else may change anything then.
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
    copying: str | None = None

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

    @property
    def used_rotations(self) -> list[KeptRotation]:
        """Fitted rotations that resolutions take."""
        return [
            kept
            for vector in self.vectors.values()
            for name, kept in vector.rotations.items()
            if name in {each.rotation for each in vector.resolutions}
        ]

    @property
    def reserved(self) -> list[PointId]:
        """Points that are no rows."""
        return [DEFINITION, *(id for vector in self.vectors.values() for id in vector.reserved)]

    @property
    def hub_keys(self) -> frozenset[str]:
        """Keys of the payload that are ours."""
        return frozenset(v.hub.key for v in self.vectors.values() if v.hub is not None)

    def mapped(self, maps: Mapping[str, Rotation]) -> Definition:
        """Return the definition with the maps of `used_rotations`, by token."""
        vectors = dict(self.vectors)
        for name, vector in self.vectors.items():
            own = {n: maps[r.token] for n, r in vector.rotations.items() if r.token in maps}
            if own:
                vectors[name] = replace(vector, column=replace(vector.column, rotations=own))
        return replace(self, vectors=vectors)

    def check_free(self, collection: str, what: str) -> None:
        """Refuse to change a collection that is being copied.

        Raises
        ------
        Conflict
            If it is.
        """
        if self.copying is not None:
            raise Conflict(
                f"{collection!r} is being copied into {self.copying!r} for one more resolution, "
                f"and takes no {what} meanwhile; backfill() finishes the copy, drop_resolution "
                "gives it up"
            )

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
            "copying": self.copying,
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
                copying=content["copying"],
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
            str(resolution): asdict(kept) for resolution, kept in vector.resolutions.items()
        },
        "funnels": {
            name: {"funnel": str(n.funnel), "model": n.model, "returns": list(n.returns)}
            for name, n in vector.funnels.items()
        },
        "calibrations": [calibration.to_json() for calibration in vector.calibrations],
        "rotations": [asdict(rotation) for rotation in vector.rotations.values()],
        "certificates": {
            name: {"certificate": kept.certificate.to_json(), "void": kept.void}
            for name, kept in vector.certificates.items()
        },
        "tuned": {name: dict(kept) for name, kept in vector.tuned.items()},
        "hub": None if vector.hub is None else asdict(vector.hub),
    }


def _read(name: str, given: Mapping[str, Any]) -> Vector:
    return Vector(
        Column(name, Resolution.parse(given["base"]), given["metric"]),
        {Resolution.parse(text): Kept(**kept) for text, kept in given["resolutions"].items()},
        {
            name: NamedFunnel(name, Funnel.parse(n["funnel"]), n["model"], tuple(n["returns"]))
            for name, n in given["funnels"].items()
        },
        tuple(read_calibration(text) for text in given["calibrations"]),
        {each["name"]: KeptRotation(**each) for each in given["rotations"]},
        {
            name: KeptCertificate(Certificate.from_json(c["certificate"]), c["void"])
            for name, c in given["certificates"].items()
        },
        given.get("tuned", {}),
        None if given.get("hub") is None else KeptHub(**given["hub"]),
    )

"""What a server can do, by the version that it reports. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from funnelvec.errors import CapabilityError
from funnelvec.funnel import Funnel
from funnelvec.resolution import CODES, OWN_CODES, Resolution
from funnelvec.types import Code

__all__ = [
    "ADD_VECTOR",
    "CONDITIONAL",
    "FLOOR",
    "UNLINKED",
    "Version",
    "check_code",
    "check_last",
    "check_version",
    "codes_of",
]


class Version(NamedTuple):
    """A version of Qdrant, as far as features go by it."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read the beginning of a version such as ``1.16.3`` or ``1.17.0-dev``.

        Raises
        ------
        CapabilityError
            If it is none.
        """
        found = re.match(r"(\d+)\.(\d+)", text)
        if found is None:
            raise CapabilityError(f"the server calls itself version {text!r}, which is none")
        return cls(int(found[1]), int(found[2]))

    def require(self, needed: Version, what: str, way_out: str) -> None:
        """Refuse what the server is too old for.

        Raises
        ------
        CapabilityError
            If it is.
        """
        if self < needed:
            raise CapabilityError(
                f"{what} needs Qdrant {needed}, and this server is {self}; {way_out}"
            )


#: What filters and codes need.
FLOOR = Version(1, 15)
#: Conditional upserts: two clients cannot both write the first definition of a collection.
CONDITIONAL = Version(1, 16)
#: Payload indexes that add nothing to graphs.
UNLINKED = Version(1, 17)
#: Named vectors added to a collection in use.
ADD_VECTOR = Version(1, 18)
#: Codes that not every server has.
_CODES: dict[Code, Version] = {"turbo": Version(1, 19), "turbo8": Version(1, 20)}


def check_version(text: str) -> Version:
    """Return the version of a server that is new enough.

    Raises
    ------
    CapabilityError
        If it is too old.
    """
    version = Version.parse(text)
    version.require(FLOOR, "funnelvec", "upgrade the server")
    return version


def codes_of(version: Version | None) -> tuple[Code, ...]:
    """Codes of a server of that version; None stands for Edge and local mode, which have all."""
    own = (code for code in OWN_CODES if version is None or version >= _CODES.get(code, FLOOR))
    return (*CODES, *own)


def check_code(resolution: Resolution, version: Version | None) -> None:
    """Refuse a code that the server is too old for.

    Raises
    ------
    CapabilityError
        If it is.
    """
    if version is not None and resolution.code in _CODES:
        version.require(
            _CODES[resolution.code],
            f"the code of {resolution}",
            f"upgrade the server, or take {resolution.dims}:int8",
        )


def check_last(funnel: Funnel) -> None:
    """Refuse scores that mean nothing outside Qdrant, or change with what else is stored.

    Raises
    ------
    CapabilityError
        If a funnel ends in them.
    """
    last = funnel.last.resolution
    if last.code in OWN_CODES and last.code != "int8":
        raise CapabilityError(
            f"funnel '{funnel}' ends in {last.code}, whose scores are estimates of Qdrant's that "
            f"no calibration can use; end in {last.dims}:int8, {last.dims}:f16 or the column itself"
        )

"""What a server can do, by the version that it reports. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from funnelvec.errors import CapabilityError

__all__ = ["FLOOR", "Version", "check_version"]


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


#: Conditional upserts, which keep two clients from overwriting each other's definition.
FLOOR = Version(1, 16)
#: Named vectors added to a collection in use.
ADD_VECTOR = Version(1, 18)


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

"""A resolution: how many leading numbers of an embedding are kept, and how they are stored.

Grammar: ``dims ":" code [ "~" rotation ]``, for example ``128:f16``, ``768:bit``, ``512:bit~pca``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast, get_args

from funnelvec.errors import SpecError
from funnelvec.types import Code, OwnCode, PortableCode

__all__ = ["CODES", "MAX_DIMS", "OWN_CODES", "Resolution"]

#: Codes that every engine has.
CODES: tuple[Code, ...] = get_args(PortableCode)
#: Codes that only some have; see `Capabilities.codes`.
OWN_CODES: tuple[Code, ...] = get_args(OwnCode)

#: The widest value that pgvector's ``vector`` and ``halfvec`` types hold.
MAX_DIMS = 16_000

_SHAPE = re.compile(r"([^:~]*):([^:~]*)(?:~(.*))?", re.DOTALL)
_DIMS = re.compile(r"[1-9][0-9]{0,4}")
_ROTATION = re.compile(r"[a-z][a-z0-9_]{0,15}")


@dataclass(frozen=True, slots=True)
class Resolution:
    """One stored form of an embedding; its text is its identity.

    Parameters
    ----------
    dims
        How many leading numbers are kept, 1 to 16,000.
    code
        ``f32`` (32-bit floats), ``f16`` (16-bit floats) or ``bit`` (signs); see `CODES` and
        `OWN_CODES`.
    rotation
        Name of the stored linear map applied before the cut, or None.

    Raises
    ------
    SpecError
        If a part is out of range or unknown.

    Examples
    --------
    >>> Resolution.parse("128:f16")
    Resolution(dims=128, code='f16', rotation=None)
    >>> str(Resolution(512, "bit", "pca"))
    '512:bit~pca'
    """

    dims: int
    code: Code
    rotation: str | None = None

    def __post_init__(self) -> None:
        # The annotations promise nothing about what a caller passes, hence the widening to Any.
        dims: Any = self.dims
        code: Any = self.code
        rotation: Any = self.rotation
        if type(dims) is not int or not 1 <= dims <= MAX_DIMS:
            raise SpecError(f"dims must be a whole number from 1 to {MAX_DIMS}, not {dims!r}")
        if not isinstance(code, str) or code not in (*CODES, *OWN_CODES):
            raise SpecError(
                f"unknown code {self.code!r}; this version knows {', '.join(CODES)}, and in Qdrant "
                f"{', '.join(OWN_CODES)}"
            )
        if rotation is not None and not (
            isinstance(rotation, str) and _ROTATION.fullmatch(rotation)
        ):
            raise SpecError(
                f"rotation {rotation!r} must be a lower-case letter followed by at most 15 "
                "lower-case letters, digits or underscores"
            )

    @classmethod
    def parse(cls, text: str) -> Resolution:
        """Read the text form; exact about case and spaces.

        Raises
        ------
        SpecError
            If the text does not follow the grammar; the message shows a valid example.
        """
        given: Any = text
        if not isinstance(given, str):
            raise SpecError(f"a resolution is text such as '128:f16', not {given!r}")
        shape = _SHAPE.fullmatch(given)
        if shape is None:
            raise SpecError(f"resolution {given!r} is not of the form dims:code, as in '128:f16'")
        dims, code, rotation = shape.groups()
        if not _DIMS.fullmatch(dims):
            raise SpecError(
                f"resolution {given!r}: dims must be a plain whole number from 1 to {MAX_DIMS}, "
                f"not {dims!r}"
            )
        try:
            return cls(int(dims), cast(Code, code), rotation)
        except SpecError as error:
            raise SpecError(f"resolution {given!r}: {error}") from None

    def __str__(self) -> str:
        rotation = "" if self.rotation is None else f"~{self.rotation}"
        return f"{self.dims}:{self.code}{rotation}"

    def column_name(self, vector: str) -> str:
        """Name of the column that stores this resolution of the column `vector`."""
        rotation = "" if self.rotation is None else f"_{self.rotation}"
        return f"{vector}_{self.dims}_{self.code}{rotation}"

"""One tree of errors: every message says what was wrong, with which value, and what to do next.

A class that also derives from a built-in exception (``ValueError``, ``LookupError``,
``ImportError``, ``TimeoutError``) can be caught as that one, so code that knows nothing of
funnelvec still works.
"""

from __future__ import annotations

__all__ = [
    "CalibrationError",
    "CapabilityError",
    "Conflict",
    "EngineError",
    "FilterError",
    "FunnelvecError",
    "InstallError",
    "InvalidInput",
    "MissingDependency",
    "NotCalibrated",
    "NotFound",
    "PositionBias",
    "SpecError",
    "Timeout",
    "Unreachable",
    "VersionMismatch",
]


class FunnelvecError(Exception):
    """Base of everything that funnelvec raises on purpose."""


class InvalidInput(FunnelvecError, ValueError):
    """An argument, a vector or a value that cannot be used; nothing was written."""


class SpecError(InvalidInput):
    """The text of a resolution or a funnel does not follow the grammar or cannot be served."""


class FilterError(InvalidInput):
    """A filter is malformed, or does not fit the columns of the table."""


class NotFound(FunnelvecError, LookupError):
    """A table, column, resolution, funnel or key that does not exist."""


class Conflict(FunnelvecError):
    """The name is taken, the thing is still in use, or the call would rewrite a large table."""


class NotCalibrated(FunnelvecError):
    """A relevance was asked for, but the funnel has no calibration."""


class CalibrationError(FunnelvecError):
    """The judgments do not support a calibration (too few, or no rising relation)."""


class CapabilityError(FunnelvecError):
    """This engine or version cannot do it; the message names the one that can."""


class InstallError(FunnelvecError):
    """The SQL side is missing or incomplete, or the server does not meet the requirements."""


class VersionMismatch(InstallError):
    """The SQL side and the Python side are of versions that do not work together."""


class MissingDependency(FunnelvecError, ImportError):
    """An optional package is not installed."""

    @classmethod
    def of(cls, package: str, *, extra: str) -> MissingDependency:
        """Build the error for a `package` that the optional dependency group `extra` brings."""
        return cls(
            f"{package} is not installed; it comes with: pip install 'funnelvec[{extra}]'",
            name=package,
        )


class EngineError(FunnelvecError):
    """The database refused or failed; the driver's own error is the ``__cause__``."""


class Timeout(EngineError, TimeoutError):
    """The server stopped a statement that took too long, or waited too long for a lock."""


class Unreachable(EngineError):
    """The server cannot be reached with the address and credentials given."""


class PositionBias(UserWarning):
    """Judgments were made of clicks, which depend on where a row stood."""

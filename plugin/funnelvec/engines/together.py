"""All that a funnel needs, stored by one call; the twin of ``sql/parts/41_together.sql``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funnelvec.engines import checks, options
from funnelvec.funnel import Funnel
from funnelvec.resolution import CODES, Resolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from funnelvec.types import BaseCode, Code, Metric, Storage

__all__ = ["OneByOne", "needed"]


def needed(
    funnel: Funnel | str, *, dims: int, code: BaseCode, known: Sequence[Code] = CODES
) -> list[Resolution]:
    """Return what a funnel needs beside the column itself, the first stage last.

    `known` are the codes that the engine has.

    Raises
    ------
    SpecError, InvalidInput
        If the text is no funnel, or a stage of it is wider than the column.
    """
    parsed = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
    stages = [
        checks.check_resolution(each.resolution, dims=dims, code=code, known=known)
        for each in parsed.stages
    ]
    first, *others = dict.fromkeys(stages)
    return [*(each for each in reversed(others) if each != Resolution(dims, code)), first]


class OneByOne:
    """`Storing` for engines where adding one by one costs nothing more; `known`: their codes."""

    known: Sequence[Code] = CODES

    if TYPE_CHECKING:  # what the table has and this method uses

        @property
        def dims(self) -> int: ...
        @property
        def code(self) -> BaseCode: ...
        def add_resolution(
            self,
            resolution: Resolution | str,
            *,
            index: bool = False,
            allow_rewrite: bool = False,
            metric: Metric | None = None,
            storage: Storage | None = None,
            concurrently: bool = False,
        ) -> None: ...

    def add_resolutions(
        self,
        funnel: Funnel | str,
        *,
        index: bool = True,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
        concurrently: bool = False,
    ) -> None:
        """Store every resolution that a funnel needs, one after the other."""
        options.check_flag(index, "index")
        wanted = needed(funnel, dims=self.dims, code=self.code, known=self.known)
        for resolution in wanted:
            self.add_resolution(
                resolution,
                index=index and resolution == wanted[-1],
                allow_rewrite=allow_rewrite,
                metric=metric,
                storage=storage,
                concurrently=concurrently,
            )

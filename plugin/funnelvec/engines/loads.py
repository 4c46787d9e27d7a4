"""How a load goes on where it stopped: what is remembered of it, and what is checked. Pure.

With every batch an engine keeps how many rows are in, and a checksum of their keys, in the same
transaction. A load of the same name finds that record, reads the keys of so many rows again, and
goes on after them if they are the same. It sends none of them again.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from funnelvec.engines import checks, options
from funnelvec.engines.keys import check_ids, plain
from funnelvec.engines.opening import open_source
from funnelvec.engines.sources import Chunk, Options, Source, Target, fingerprint
from funnelvec.errors import CapabilityError, Conflict, FunnelvecError, InvalidInput
from funnelvec.kinds import convert
from funnelvec.reports import LoadReport

__all__ = ["Record", "Run", "check_parallel", "check_size"]

#: A batch that nobody has chosen the size of: so many bytes of vectors, within these rows.
_BATCH_BYTES, _FEWEST, _MOST = 32 << 20, 1_000, 50_000
_LONGEST_NAME = 200
_MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a load: its source, the rows that are in, and whether it is done."""

    source: dict[str, Any]
    rows: int
    keys_crc: int
    finished: bool


def check_size(batch_size: int | None, dims: int) -> int:
    """Return how many rows go into one batch.

    Raises
    ------
    InvalidInput
        If it is not a whole number from 1 on.
    """
    if batch_size is None:
        return max(_FEWEST, min(_MOST, _BATCH_BYTES // (4 * dims)))
    return checks.check_positive(batch_size, "batch_size")


def check_parallel(parallel: int, *, engine: str, why: str | None = None) -> int:
    """Return how many batches are to be on their way at once.

    Parameters
    ----------
    why
        Why this engine sends one after the other; None where it does not.

    Raises
    ------
    InvalidInput
        If it is not a whole number from 1 to 64.
    CapabilityError
        If it is more than one, and this engine has one writer.
    """
    wanted = checks.check_positive(parallel, "parallel")
    if wanted > _MOST_AT_ONCE:
        raise InvalidInput(f"parallel is at most {_MOST_AT_ONCE}, not {wanted}")
    if wanted > 1 and why is not None:
        raise CapabilityError(
            f"{engine} has one writer ({why}), so parallel={wanted} would gain nothing; leave "
            "parallel out; a Qdrant server (http://...) takes several batches at once"
        )
    return wanted


@dataclass(slots=True)
class Run:
    """A load under way.

    Attributes
    ----------
    name
        What the load is found by when it is started again.
    source
        Where its rows come from.
    described
        What the source was when it began, to be kept with it.
    rows, keys_crc
        How many rows of the source are in, and the checksum of their keys.
    skipped
        How many of them were in before.
    beyond
        Among how many rows after them some may be in, where writes are no transactions.
    """

    name: str
    source: Source
    described: dict[str, Any]
    target: Target
    batch_size: int
    rows: int = 0
    keys_crc: int = 0
    skipped: int = 0
    beyond: int = 0
    ends: tuple[Any, ...] = ()
    before: Record | None = None
    inserted: int = 0
    updated: int = 0
    batches: int = 0
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def open(
        cls, source: Any, target: Target, given: Options, *, resume: bool | str, batch_size: int
    ) -> Run:
        """Open the source, check its columns, and give the load its name."""
        name: bool | str = (
            resume if isinstance(resume, str) else options.check_flag(resume, "resume")
        )
        if isinstance(name, str):
            try:
                name = str(convert(name, "text"))
            except ValueError as error:
                raise InvalidInput(f"resume: {error}") from None
            if not 1 <= len(name) <= _LONGEST_NAME:
                raise InvalidInput(
                    f"resume: a name has 1 to {_LONGEST_NAME} characters, not {len(name)}"
                )
        opened = open_source(source, target, given)
        first = opened.first_key()  # also makes an iterator show the names of its columns
        described = {
            "files": [fingerprint(path) for path in opened.files],
            "columns": dict(opened.mapping),
        }
        if not isinstance(name, str):
            name = _name_of(opened, first)
        return cls(name, opened, described, target, batch_size)

    def begin(self, record: Record | None) -> None:
        """Pass the rows that are in already, if this is the load of `record`.

        Raises
        ------
        Conflict
            If the source is not what it was when the load stopped.
        """
        self.before = record
        if record is None or record.finished:
            return
        self._compare(record)
        keys: list[Any] = []
        for ids in self.source.keys(record.rows, self.batch_size):
            keys = check_ids(ids, kind=self.target.key_kind, first=self.rows)
            self.ends = (self.ends[0] if self.ends else keys[0], keys[-1])
            self.keys_crc = digest(keys, self.keys_crc)
            self.rows += len(keys)
        if self.rows < record.rows:
            raise self._changed(f"it has {self.rows:,} rows, and {record.rows:,} are in already")
        if self.keys_crc != record.keys_crc:
            raise self._changed(f"the keys of its first {record.rows:,} rows are others")
        self.skipped = self.rows

    def _compare(self, record: Record) -> None:
        then, now = record.source, self.described
        if len(then["files"]) != len(now["files"]):
            raise self._changed(f"{len(now['files'])} files, and it was {len(then['files'])}")
        for old, new in zip(then["files"], now["files"], strict=True):
            if old["file"] != new["file"]:
                raise self._changed(f"{new['file']} stands where {old['file']} stood")
            if old["bytes"] != new["bytes"]:
                raise self._changed(
                    f"{new['file']} has {new['bytes']:,} bytes, and it had {old['bytes']:,}"
                )
            if old["sha256"] != new["sha256"]:
                raise self._changed(f"{new['file']} has another content")
        if then["columns"] != now["columns"]:
            raise self._changed(f"columns are {now['columns']}, and they were {then['columns']}")

    def _changed(self, what: str) -> Conflict:
        return Conflict(
            f"the load {self.name!r} stopped after {self.before.rows if self.before else 0:,} "
            f"rows, and its source has changed since: {what}; bring the source back, or pass "
            "resume=False to load from the first row on"
        )

    def check_present(self, present: bool) -> None:
        """Refuse to go on after rows that somebody has removed.

        Raises
        ------
        Conflict
            If the first or last of the rows that were in is not in the table any more.
        """
        if not present:
            raise Conflict(
                f"the load {self.name!r} stopped after {self.rows:,} rows, but the first or last "
                "of them is not in the table any more; pass resume=False to load from the first "
                "row on"
            )

    def chunks(self) -> Iterator[Chunk]:
        """Yield the batches that are not in yet."""
        return (each for each in self.source.chunks(self.rows, self.batch_size) if len(each.ids))

    def committed(self, keys: Sequence[Any], *, inserted: int, updated: int) -> None:
        """Count a batch that is in."""
        self.keys_crc = digest(keys, self.keys_crc)
        self.rows += len(keys)
        self.inserted += inserted
        self.updated += updated
        self.batches += 1

    def step(self, keys: Sequence[Any]) -> dict[str, int]:
        """What is kept with a batch of these keys, and what it follows on."""
        return {
            "rows": self.rows + len(keys),
            "keys_crc": digest(keys, self.keys_crc),
            "before": self.rows,
            "before_crc": self.keys_crc,
        }

    def report(self, *, dry_run: bool) -> LoadReport:
        """Say what was done."""
        return LoadReport(
            name=self.name,
            rows=self.rows - self.skipped,
            inserted=self.inserted,
            updated=self.updated,
            skipped=self.skipped,
            batches=self.batches,
            seconds=round(time.monotonic() - self.started, 3),
            unused=tuple(self.source.unused),
            dry_run=dry_run,
        )

    def explain(self, error: BaseException, *, dry_run: bool = False) -> BaseException:
        """Return the error with a word on how to go on."""
        if dry_run or not (self.rows or self.beyond):
            text = "nothing was written" if dry_run else "no row is in"
            if isinstance(error, Conflict) and self.before is not None and self.before.finished:
                text = f"a load of {self.name!r} was finished before, so its rows may be in"
        else:
            text = (
                f"{self.rows:,} rows of {self.name!r} are in, in whole batches; the same call goes "
                "on after them"
            )
            if self.beyond:
                text += f" (and over the next {self.beyond:,} again, of which some may be in)"
        if isinstance(error, FunnelvecError):
            return type(error)(f"{error}; {text}")
        if isinstance(error, KeyboardInterrupt):
            error.args = (text,)
        elif hasattr(error, "add_note"):  # from Python 3.11 on; the error itself is not ours
            error.add_note(text)
        return error


def digest(keys: Sequence[Any], before: int) -> int:
    """Go on with the checksum of keys; how they are cut into batches makes no difference."""
    return zlib.crc32("".join(f"{key!r}\n" for key in keys).encode(), before)


def _name_of(source: Source, first: Any) -> str:
    """A load that nobody has named is found by its files, or by its first key."""
    if source.files:
        name = str(source.files[0])
        if len(source.files) > 1:
            all_of_them = "\n".join(map(str, source.files)).encode(errors="surrogateescape")
            short = hashlib.sha256(all_of_them).hexdigest()[:8]
            name = f"{name} and {len(source.files) - 1} more ({short})"
    else:
        key = tuple(map(plain, first)) if isinstance(first, tuple) else plain(first)
        name = f"{source.what} from key {key!r}"
    name = name.encode(errors="backslashreplace").decode().replace("\0", "")
    if len(name) > _LONGEST_NAME:
        name = f"...{name[-_LONGEST_NAME + 20 :]} ({hashlib.sha256(name.encode()).hexdigest()[:8]})"
    return name

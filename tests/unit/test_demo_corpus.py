from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from funnelvec.demo import corpus
from funnelvec.demo.corpus import Limits, gather, opening_prose, title
from funnelvec.errors import NotFound


@pytest.fixture(scope="module")
def whole() -> corpus.Corpus:
    return gather(limits=Limits(documents=6_000))


def write(root: Path, name: str, source: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")


def test_this_machine_yields_enough_unique_documents(whole: corpus.Corpus) -> None:
    assert len(whole.documents) >= 5_000
    assert len({document.text for document in whole.documents}) == len(whole.documents)
    assert [document.id for document in whole.documents] == list(range(1, len(whole.documents) + 1))
    assert {document.kind for document in whole.documents} == {"module", "class", "function"}
    assert "gzip.compress" in {document.name for document in whole.documents}


def test_limits_bound_every_package(whole: corpus.Corpus) -> None:
    sizes: dict[str, int] = {}
    for document in whole.documents:
        assert document.name.split(".")[0] == document.package
        sizes[document.package] = sizes.get(document.package, 0) + 1
    assert max(sizes.values()) <= Limits().documents_per_package
    assert len(whole.documents) <= 6_000


def test_gathering_imports_nothing_that_it_reads() -> None:
    script = """
        import json, sys
        import funnelvec.demo.corpus as corpus
        before = set(sys.modules)
        found = corpus.gather(limits=corpus.Limits(documents=2_500))
        print(json.dumps([len(found.documents), sorted(set(sys.modules) - before)]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    count, imported = json.loads(run.stdout)
    assert count == 2_500
    assert [name for name in imported if not name.startswith("_sysconfigdata")] == []


def test_source_that_would_do_harm_is_only_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        "bad/__init__.py",
        '''
        """A module that would raise when imported by anyone."""
        raise SystemExit("imported")
        ''',
    )
    found = gather([tmp_path])
    assert [(d.name, d.kind, d.text) for d in found.documents] == [
        ("bad", "module", "A module that would raise when imported by anyone.")
    ]


def test_names_kinds_and_skipped_definitions(tmp_path: Path) -> None:
    write(
        tmp_path,
        "pack/mod.py",
        '''
        """Module docstring with enough words here."""
        try:
            def guarded():
                """Defined inside of a try statement."""
        except ImportError:
            pass
        class Thing:
            """Class docstring with enough words here."""
            async def act(self):
                """Method docstring with enough words here."""
            def _hidden(self):
                """Private docstring with enough words here."""
            def copy(self):
                """Class docstring, with enough WORDS here!"""
            def short(self):
                """Too few words."""
        ''',
    )
    write(tmp_path, "pack/tests/test_x.py", '"""A test module docstring that is skipped."""')
    write(tmp_path, "pack/broken.py", "def (:")
    found = gather([tmp_path])
    assert [(d.name, d.kind) for d in found.documents] == [
        ("pack.mod", "module"),
        ("pack.mod.guarded", "function"),
        ("pack.mod.Thing", "class"),
        ("pack.mod.Thing.act", "function"),
    ]
    assert (found.files, found.unreadable, found.stopped_by) == (2, 1, None)


@pytest.mark.parametrize(
    ("limits", "documents", "reason"),
    [
        (Limits(documents=3), 3, "documents"),
        (Limits(files=2), 2, "files"),
        (Limits(bytes=1), 1, "bytes"),
        (Limits(seconds=0.0), 0, "seconds"),
        (Limits(documents_per_package=1), 1, None),
    ],
)
def test_the_walk_stops_at_its_limits(
    tmp_path: Path, limits: Limits, documents: int, reason: str | None
) -> None:
    for number in range(6):
        write(tmp_path, f"pack/m{number}.py", f'"""Five words of module number {number}."""')
    found = gather([tmp_path], limits=limits)
    assert (len(found.documents), found.stopped_by) == (documents, reason)


def test_absent_sources_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(NotFound, match="sources of Python's standard library"):
        corpus.source_roots()


def test_prose_ends_where_reference_begins() -> None:
    assert (
        opening_prose(
            """Return the sum.

            It may be
            negative.

            Parameters
            ----------
            x : float
            """
        )
        == "Return the sum. It may be negative."
    )
    assert opening_prose("Add one.\n\n>>> add(1)\n2\n\nMore.") == "Add one."
    assert opening_prose("Add one.\n\nArgs:\n    x: a number") == "Add one."
    assert opening_prose("Add one.\n\n:param x: a number") == "Add one."


def test_long_prose_is_cut_at_a_word() -> None:
    text = opening_prose("word " * 400, most_characters=99)
    assert text == "word " * 19 + "..."


def test_title_spells_a_dotted_name_out() -> None:
    assert title("email.message.EmailMessage.set_content") == (
        "email message Email Message set content"
    )

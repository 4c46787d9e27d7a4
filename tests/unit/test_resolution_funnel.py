"""Resolutions and funnels: the text is the identity, and what is not in the grammar is refused."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from funnelvec.errors import InvalidInput, SpecError
from funnelvec.funnel import MAX_KEEP, Funnel, Stage
from funnelvec.resolution import CODES, Resolution

rotations = st.none() | st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)
resolutions = st.builds(Resolution, st.integers(1, 16_000), st.sampled_from(CODES), rotations)


@st.composite
def funnels(draw: st.DrawFn) -> Funnel:
    chain = draw(st.lists(resolutions, min_size=1, max_size=5))
    assume(all(a != b for a, b in pairwise(chain)))
    keeps = sorted(
        (draw(st.integers(1, MAX_KEEP)) for _ in chain[1:]),
        reverse=True,
    )
    return Funnel(tuple(map(Stage, chain, [*keeps, None])))


@given(resolutions)
def test_a_resolution_is_its_text(resolution: Resolution) -> None:
    assert Resolution.parse(str(resolution)) == resolution


@given(funnels())
def test_a_funnel_is_its_text(funnel: Funnel) -> None:
    assert Funnel.parse(str(funnel)) == funnel
    assert hash(Funnel.parse(str(funnel))) == hash(funnel)


@given(st.text(alphabet="0123456789:~@> afbitp\n_-+.é", max_size=24))
def test_any_text_parses_to_itself_or_is_refused(text: str) -> None:
    try:
        funnel = Funnel.parse(text)
    except SpecError:
        return
    assert re.sub(r"[ \n]", "", str(funnel)) == re.sub(r"[ \n]", "", text)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("768:f32", "768:f32"),
        ("128:f16@200>768:f32", "128:f16@200 > 768:f32"),
        ("  128:f16 @ 200\t>\n768:f32 ", "128:f16@200 > 768:f32"),
        ("512:bit~pca@1000 > 128:f16@1000 > 768:f32", "512:bit~pca@1000 > 128:f16@1000 > 768:f32"),
    ],
)
def test_spaces_are_normalised(text: str, printed: str) -> None:
    assert str(Funnel.parse(text)) == printed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "128",
        "128:",
        ":f16",
        "0:f16",
        "0128:f16",
        "+128:f16",
        "-1:f16",
        "1e2:f16",
        "16001:f16",
        "99999999999:f16",
        "١٢٨:f16",  # Arabic digits are digits to str.isdigit
        "128:F16",
        "128:int4",
        "128:f16 ",
        " 128:f16",
        "128: f16",
        "128:f16~",
        "128:f16~PCA",
        "128:f16~2pca",
        "128:f16~abcdefghijklmnopq",  # 17 characters
        "128:f16~pca~pca",
        "128:f16\n",
        "128:f16;drop table x",
        "128:f16'--",
    ],
)
def test_bad_resolutions_are_refused(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Resolution.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" ", "empty"),
        (">", "not of the form"),
        ("128:f16@200 >", "not of the form"),
        ("128:f16 > 768:f32", r"write 128:f16@200"),
        ("128:f16@200", "the last stage answers"),
        ("128:f16@0 > 768:f32", "'0'"),
        ("128:f16@-5 > 768:f32", "'-5'"),
        ("128:f16@1.5 > 768:f32", "'1.5'"),
        ("128:f16@0200 > 768:f32", "'0200'"),
        ("128:f16@ > 768:f32", "''"),
        ("128:f16@1@2 > 768:f32", "'1@2'"),
        ("128:f16@1234567890 > 768:f32", "1234567890"),
        ("64:f16@100 > 128:f16@200 > 768:f32", r"128:f16@100 or less"),
        ("128:f16@200 > 128:f16@100 > 768:f32", "repeats"),
        ("128:f16@200 ≥ 768:f32", "200 ≥ 768"),
    ],
)
def test_bad_funnels_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Funnel.parse(text)


@pytest.mark.parametrize("given", [None, 128, b"128:f16", ["128:f16"]])
def test_only_text_is_parsed(given: Any) -> None:
    for parse in (Resolution.parse, Stage.parse, Funnel.parse):
        with pytest.raises(SpecError):
            parse(given)


def test_values_built_by_hand_are_checked_too() -> None:
    wrong: list[tuple[Any, Any, Any]] = [
        (True, "f16", None),
        (128.0, "f16", None),
        (0, "f16", None),
        (128, "float", None),
        (128, "f16", ""),
        (128, "f16", 7),
    ]
    for dims, code, rotation in wrong:
        with pytest.raises(SpecError):
            Resolution(dims, code, rotation)
    keep: Any
    for keep in (0, -1, True, 2.0, MAX_KEEP + 1):
        with pytest.raises(SpecError):
            Stage(Resolution(128, "f16"), keep)
    with pytest.raises(SpecError):
        Funnel(())


def test_check_against_the_base_column() -> None:
    Funnel.parse("128:f16@200 > 768:f32").check(dims=768)
    Funnel.parse("768:f32").check(dims=768)
    Funnel.parse("128:f32").check(dims=768, approximate=True)
    with pytest.raises(SpecError, match="wider than the column, which has 512"):
        Funnel.parse("768:bit@200 > 512:f32").check(dims=512)
    for ending in ("256:f32", "768:f16", "768:f32~pca"):
        with pytest.raises(SpecError, match="approximate=True"):
            Funnel.parse(f"128:f16@200 > {ending}").check(dims=768)


def test_check_against_a_column_of_16_bit_floats() -> None:
    Funnel.parse("128:f16@200 > 768:f16").check(dims=768, code="f16")
    with pytest.raises(SpecError, match="end it with '> 768:f16'"):
        Funnel.parse("768:bit").check(dims=768, code="f16")
    for text in ("768:f32", "128:f32@200 > 768:f16"):
        with pytest.raises(SpecError, match=r"more digits than the column .*; write [0-9]+:f16"):
            Funnel.parse(text).check(dims=768, code="f16", approximate=True)


def test_names_and_keeps() -> None:
    assert Resolution.parse("128:f16").column_name("embedding") == "embedding_128_f16"
    assert Resolution.parse("512:bit~pca2").column_name("Vec") == "Vec_512_bit_pca2"
    funnel = Funnel.parse("64:bit@500 > 128:f16@50 > 768:f32")
    assert (funnel.narrowest_keep, str(funnel.last)) == (50, "768:f32")
    assert Funnel.parse("768:f32").narrowest_keep is None


def test_a_spec_error_is_a_value_error() -> None:
    assert issubclass(SpecError, InvalidInput)
    assert issubclass(SpecError, ValueError)

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("wordllama", reason="the demo extra is not installed")

from funnelvec.demo import encoder
from funnelvec.demo.encoder import DIMS, Encoder
from funnelvec.errors import InstallError, InvalidInput, MissingDependency

TEXTS = ["parse a date from a string", "roast a chicken", "Grüße, 你好", "x"]


@pytest.fixture(scope="module")
def model() -> Encoder:
    return Encoder.installed()


def test_rows_are_unit_vectors_whatever_the_batch(model: Encoder) -> None:
    together = model.encode(TEXTS)
    assert (together.shape, together.dtype) == ((len(TEXTS), DIMS), np.float32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    for row, text in enumerate(TEXTS):
        np.testing.assert_array_equal(model.encode([text])[0], together[row])
    assert model.encode([]).shape == (0, DIMS)


def test_meaning_survives(model: Encoder) -> None:
    question, near, far = model.encode(
        ["How do I compress a file?", "Compress data in one shot.", "Who painted the ceiling?"]
    )
    assert question @ near > question @ far


def test_a_text_without_tokens_is_refused_by_position(model: Encoder) -> None:
    with pytest.raises(InvalidInput, match=r"text 1 \(''\)"):
        model.encode(["fine", ""])


def test_it_is_the_library_s_own_embedding(model: Encoder) -> None:
    """The library's pooling, run in its own process because its import sets up logging."""
    script = """
        import json, sys
        from pathlib import Path
        from importlib.util import find_spec
        folder = Path(find_spec("wordllama").submodule_search_locations[0])
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
        from wordllama import WordLlamaInference
        table = load_file(folder / "weights/l2_supercat_256.safetensors")["embedding.weight"]
        tokenizer = Tokenizer.from_file(
            str(folder / "tokenizers/l2_supercat_tokenizer_config.json")
        )
        model = WordLlamaInference(table, tokenizer)
        print(json.dumps(model.embed(json.loads(sys.argv[1]), norm=True).tolist()))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_allclose(model.encode(TEXTS), json.loads(run.stdout), atol=1e-6)


def test_no_network_no_logging_no_import_of_wordllama() -> None:
    script = """
        import logging, socket, sys
        def refuse(*args, **kwargs):
            raise AssertionError("the network was used")
        socket.socket.connect = socket.getaddrinfo = refuse
        from funnelvec.demo.encoder import Encoder
        Encoder.installed().encode(["some text"])
        assert "wordllama" not in sys.modules
        assert logging.getLogger().handlers == []
        assert logging.getLogger().level == logging.WARNING
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_missing_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"funnelvec\[demo\]"):
        Encoder.installed()


def test_a_wheel_without_the_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "_package_folder", lambda: tmp_path)
    with pytest.raises(InstallError, match="l2_supercat_256"):
        Encoder.installed()

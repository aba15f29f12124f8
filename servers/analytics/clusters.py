"""Questions of one meaning together. Blocking: the caller takes a thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Likeness (cosine) from which two questions are one. Of MiniLM's vectors: "where is my order" and "order status" are.
ALIKE = 0.6


def cluster(vectors: Sequence[Sequence[float]], weights: Sequence[int], alike: float = ALIKE) -> list[list[int]]:
    """Positions of unit vectors in groups, the heaviest group first, in each its heaviest member first.

    Each vector, from the heaviest on, joins the group whose first member is nearest, or begins one. So a group is named
    by what was said most, and nothing in it is further from that than `alike`.
    """
    found: npt.NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    leaders: list[int] = []
    groups: list[list[int]] = []
    for i in order:
        if leaders:
            likeness = found[leaders] @ found[i]
            nearest = int(likeness.argmax())
            if likeness[nearest] >= alike:
                groups[nearest].append(i)
                continue
        leaders.append(i)
        groups.append([i])
    return sorted(groups, key=lambda group: -sum(weights[i] for i in group))


def unlike(vectors: Sequence[Sequence[float]], others: Sequence[Sequence[float]], alike: float = ALIKE) -> list[int]:
    """Positions of the unit vectors that are near none of `others`."""
    likeness = np.asarray(vectors, dtype=np.float32) @ np.asarray(others, dtype=np.float32).T
    return [int(i) for i in np.flatnonzero(likeness.max(axis=1) < alike)]

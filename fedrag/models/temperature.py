"""The temperature that fits a model: by how far its similarities lie apart on texts that ship with fedrag.

A softmax over similarities only tells passages apart where its scale fits their spread. all-MiniLM-L6-v2, trained with
a scale of 20, spreads cosines by 0.18 on these texts, multilingual-e5-small, trained with 100, by 0.04: both times the
scale is 3.8 over the spread. The unnormalised scores of a dot product spread by several units and need a scale near 1.

The texts are the same everywhere and the result is snapped to a short ladder, so all sites of a federation, and a run
that is resumed, find the same number; it tells nothing of a site's own texts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fedrag.types import Array

LARGEST_COSINE_SCALE = 200.0
"""Above what any published encoder was trained with; only vectors that are all but equal would ask for more."""

_SCALE_TIMES_SPREAD = 3.8
_STEPS = (1, 2, 5)


def fitting_scale(similarities: Sequence[Array], similarity: Literal["cosine", "dot"]) -> float:
    """Return the factor on similarities that fits a model: 1, 2 or 5 times a power of ten.

    Args:
        similarities: For each language those of some questions with some passages (questions, passages), one in eight
            of them of a question with its answer. The language that is spread most counts: the model knows it best.
        similarity: What they are; a scale of cosines is at most `LARGEST_COSINE_SCALE`.

    >>> fitting_scale([np.array([[0.6, 0.2], [0.2, 0.6]])], "cosine")
    20.0
    """
    most = LARGEST_COSINE_SCALE if similarity == "cosine" else math.inf
    spread = max(float(np.std(scores, dtype=np.float64)) for scores in similarities)
    if not spread > 0.0 or not math.isfinite(spread):
        return 1.0  # the model tells no text from another, and no scale would help
    return min(nearest_step(_SCALE_TIMES_SPREAD / spread), most)


def nearest_step(value: float) -> float:
    """Return the number nearest to a positive one, as a ratio, of 1, 2 and 5 times all powers of ten.

    >>> nearest_step(14.0), nearest_step(14.2), nearest_step(0.3)
    (10.0, 20.0, 0.2)
    """
    power = math.floor(math.log10(value))
    steps = [float(f"{step}e{p}") for p, step in itertools.product((power, power + 1), _STEPS)]
    return min(steps, key=lambda step: abs(math.log(step / value)))

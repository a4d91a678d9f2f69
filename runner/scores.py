"""Predictions, metrics and scores: what every node of a tree yields and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Output:
    """What a node says of one split of one task: n example ids and float32 scores [n, k]."""

    ids: tuple[str, ...]
    scores: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """All outputs of one node, `outputs[split][task]`; the only thing that ensembles and tables see of a model."""

    outputs: Mapping[str, Mapping[str, Output]]

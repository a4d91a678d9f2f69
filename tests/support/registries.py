"""What tests of registry share."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from runner.registry.registry import PREDICTIONS, WEIGHTS, Registry, Run
from runner.tasks.predictions import Output, Predictions

ID, OTHER = "0123456789ab", "ba9876543210"


def predictions(seed: int = 0) -> Predictions:
    scores = np.random.default_rng(seed).normal(size=(7, 2)).astype(np.float32)
    return Predictions({"dev": {"sentiment": Output(tuple("abcdefg"), scores)}})


def files(seed: int = 0) -> dict[str, bytes]:
    return {PREDICTIONS: predictions(seed).to_bytes(), WEIGHTS: random.Random(seed).randbytes(3000),
            "history.jsonl": b'{"step": 1}\n', "log.txt": b"said\n"}


def manifest(**more: Any) -> dict[str, Any]:
    return {"name": "sum", "what": "sum; linear", "spec": {"train": {"select": "best"}}, "suite": {"sha256": "0" * 64},
            "dev": {"overall": 0.5}, "epoch": 1, "parameters": 10, "seconds": 1.5} | more


def commit(registry: Registry, id: str = ID, seed: int = 0, **more: Any) -> Run:
    return registry.commit(id, files(seed), manifest(), **more)

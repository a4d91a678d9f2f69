"""All dev sets of the course scored by MiniLM-L6: ours against the course's loop and sentence-transformers' `encode`.

Each runs in a process of its own, on one thread; what counts is its processor time.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from runner.tasks.data import Data
from runner.training import memory
from runner.training.evaluation import Evaluation
from runner.training.tokens import Tokens
from runner.training.trainer import Trainer

from . import Case, Ratio, workload
from .apart import apart
from .peers import Course

LOOP, ENCODE = "course loop", "sentence-transformers encode"
RATIOS = [
    Ratio("fp32: course loop / mtrun", LOOP, "mtrun fp32", 4, 5),
    Ratio("fp32: sentence-transformers / mtrun", f"{ENCODE} fp32", "mtrun fp32", 1.5, 2),
    Ratio("bf16: sentence-transformers / mtrun", f"{ENCODE} bf16", "mtrun bf16", 1.5, 2),
]
PART = 8
"""Each measurement takes one row in so many."""


def cases() -> list[Case]:
    """Return the contenders, each in a process of its own."""
    return [apart("scoring", contender) for contender in contenders()]


def contenders() -> list[Case]:
    """Return the processor seconds for one dev row in eight of each task."""
    torch.set_num_threads(1)
    ours = [Case(f"mtrun {p}", timed(lambda p=p: _ours(p))) for p in ("fp32", "bf16")]  # type: ignore[misc]
    theirs = [Case(f"{ENCODE} {p}", timed(lambda p=p: _encoded(p))) for p in ("fp32", "bf16")]  # type: ignore[misc]
    return [*ours, Case(LOOP, timed(_looped)), *theirs]


def gate() -> Iterator[str]:
    """Compare our scores with the course loop's."""
    torch.set_num_threads(1)
    mine, theirs = _ours("fp32"), _looped()
    worst = max(float(np.abs(mine[task] - theirs[task]).max()) for task in mine)
    assert worst <= 1e-4, f"scores differ by {worst:.1e}"
    yield f"the scores of {sum(map(len, mine.values()))} dev rows equal the course loop's within {worst:.1e}"


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return what measures the processor seconds of some work."""
    def sample() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return sample


def _dev() -> Data:
    return workload.dev(PART)


@cache
def _trainer(precision: str) -> Trainer:
    memory.keep_freed()
    return workload.trainer(workload.model("sum", precision, dropout=False))


def _ours(precision: str) -> dict[str, np.ndarray]:
    """Score with MiniLM-L6."""
    return scored(_trainer(precision), _dev())


def scored(trainer: Trainer, data: Data) -> dict[str, np.ndarray]:
    """Tokenize, as if for the first time, and score the dev rows of each task."""
    tokenizer = trainer.model.encoder.tokenizer(data, workload.ROOT)
    with tempfile.TemporaryDirectory() as folder:
        tokens = Tokens.of(data.splits, tokenizer, Path(folder))
    said = Evaluation(data, tokens, tuple(trainer.model.heads), ("dev",))(trainer.network)
    return {task: output.scores for task, output in said.outputs["dev"].items()}


@cache
def _course() -> Course:
    heads = {name: copy.deepcopy(head) for name, head in _trainer("fp32").network.heads.items()}
    made = Course(workload.weights(), heads, 1e-5, 0.0, 0.0)
    made.model.eval()
    return made


@torch.no_grad()
def _looped() -> dict[str, np.ndarray]:
    """Score as the course's loop: batches of 8 in the order of the file, each column of sentences padded by itself."""
    course, found = _course(), {}
    for task, by_split in _dev().splits.items():
        dev, made = by_split["dev"], []
        for start in range(0, len(dev), workload.BATCH):
            part = slice(start, start + workload.BATCH)
            columns = [list(column[part]) for column in (dev.first, dev.second) if column]
            encoded = [course.tokenizer(c, return_tensors="pt", padding=True, truncation=True) for c in columns]
            made.append(course.model.scores(task, [course.model.embed(one) for one in encoded]))
        found[task] = torch.cat(made).numpy()
    return found


@cache
def transformer(folder: Path, precision: str) -> SentenceTransformer:
    """Return a folder's model in sentence-transformers."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": kind})


def encode(model: SentenceTransformer, data: Data) -> None:
    """Encode one column of dev sentences after the other, as one does."""
    for by_split in data.splits.values():
        for column in (by_split["dev"].first, by_split["dev"].second):
            if column:
                model.encode(list(column), show_progress_bar=False, convert_to_tensor=True)


def _encoded(precision: str) -> None:
    encode(transformer(workload.weights(), precision), _dev())

"""BERT-base on a GPU: a training step against the course's loop, a whole run, and leaves at once; nothing without one.

Weights are drawn at random, and the vocabulary is made of the data, so that nothing has to be fetched. On a GPU other
processes are no disturbance, and what counts is the time on the wall.
"""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import count
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from runner.parts.encoders.bert import tokenizer
from runner.training.trainer import Trainer, TrainerCallback

from . import Case, Ratio, leaves, steps, workload
from .peers import Course, DirectPCGrad

STEPS = 20
"""Steps of one measurement."""
BASE, SMALL = "BERT-base", "MiniLM-L6"
SIZES: Mapping[str, Mapping[str, int]] = {
    BASE: {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    SMALL: {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}
PIECES = 30_522
"""Most word pieces."""
RUN = 10 * math.ceil(141_498 / workload.BATCH)
"""Steps of ten epochs of the course's whole Quora file."""
AT_ONCE, FEW, LEAF_STEPS = 12, 2, 400
SUM, SURGERY, COURSE, DIRECT = "mtrun, sum", "mtrun, PCGrad", "course loop, sum", "course loop, direct PCGrad"
WHOLE = "10 epochs of PCGrad on 141,498 pairs, bf16, from 2,000 steps"
RATIOS = [
    Ratio("sum: course loop / mtrun bf16", f"{COURSE} fp32", f"{SUM} bf16", 15, 30),
    Ratio("PCGrad: course loop / mtrun bf16", f"{DIRECT} fp32", f"{SURGERY} bf16", 20, 40),
    Ratio("BERT-base, a leaf: one after another / 12 at once", f"{BASE}, a leaf, one after another",
          f"{BASE}, a leaf, 12 at once", 1.7, 2.2),
    Ratio("MiniLM-L6, a leaf: one after another / 12 at once", f"{SMALL}, a leaf, one after another",
          f"{SMALL}, a leaf, 12 at once", 2.5, 4),
]


def gate() -> Iterator[str]:
    """Compare, without dropout, 20 losses with the course loop's where there is a GPU."""
    if torch.cuda.is_available():
        yield steps.losses_are_equal(BASE, checkpoint(BASE), f"encoder.init={checkpoint(BASE)}")


def cases() -> list[Case]:
    """Return what is measured where there is a GPU."""
    return contenders(BASE) + [case for name in SIZES for case in crowds(name)] if torch.cuda.is_available() else []


def contenders(name: str) -> list[Case]:
    """Return the steps of all, each a mean over some steps in milliseconds, and a whole run in minutes."""
    ours = [Case(f"{label} {precision}", _ours(name, combiner, precision, STEPS), "ms")
            for label, combiner in ((SUM, "sum"), (SURGERY, "pcgrad")) for precision in ("fp32", "bf16")]
    theirs = [Case(f"{label} fp32", _course(name, kind), "ms") for label, kind in ((COURSE, Course),
                                                                                 (DIRECT, DirectPCGrad))]
    step = _ours(name, "pcgrad", "bf16", 100 * STEPS)
    return [*ours, *theirs, Case(WHOLE, lambda: RUN * step() / 60e3, "min", 15, 9)]


def crowds(name: str) -> list[Case]:
    """Return builds of some leaves one after another, and of many at once, in seconds a leaf."""
    return [Case(f"{name}, a leaf, one after another", _built(name, FEW, 1)),
            Case(f"{name}, a leaf, 12 at once", _built(name, AT_ONCE, AT_ONCE))]


@cache
def checkpoint(name: str) -> Path:
    """Return a folder in Hugging Face's form: an encoder of random weights, a vocabulary of the data's words."""
    folder = Path(tempfile.mkdtemp(prefix="mtrun-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    train = [splits["train"] for splits in workload.data().splits.values()]
    pieces = tokenizer.vocabulary((text for part in train for text in (*part.first, *part.second)), PIECES)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(pieces), **SIZES[name])).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    return folder


@cache
def _trainer(name: str, combiner: str, precision: str) -> Trainer:
    return workload.trainer(workload.model(combiner, precision, True, f"encoder.init={checkpoint(name)}"))


def _timed(step: Callable[[], object], number: int) -> float:
    """Return the mean milliseconds of a step, all of its work on the device done."""
    _wait()
    started = time.perf_counter()
    for _ in range(number):
        step()
    _wait()
    return (time.perf_counter() - started) / number * 1e3


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _ours(name: str, combiner: str, precision: str, number: int) -> Callable[[], float]:
    return lambda: _timed(lambda: _trainer(name, combiner, precision)._step(TrainerCallback()), number)


def _course(name: str, kind: type[Course]) -> Callable[[], float]:
    @cache
    def made() -> Course:
        reference = _trainer(name, "sum", "fp32")
        peer = kind(checkpoint(name), steps.copied(reference), steps.RATE)
        peer.model.to(reference.device)
        return peer

    numbers = count()
    return lambda: _timed(lambda: made().step(workload.rows(_trainer(name, "sum", "fp32"), next(numbers))), STEPS)


def _built(name: str, number: int, jobs: int) -> Callable[[], float]:
    def sample() -> float:
        settings = [f"encoder.init={checkpoint(name)}", "train.epochs=1", f"train.steps={LEAF_STEPS}",
                    "train.batch_size=8"]
        return leaves.built(number, jobs, settings) / number

    return sample

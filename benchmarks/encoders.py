"""MPNet (110 M weights): training steps, LoRA, the encoder `hf`, scoring, and the peak memory of training.

A step has three tasks, batch 8 each, on one thread in a process of its own; what counts is its processor time. Needs
the packages of the named checkpoint `mpnet-base`, and 16 GB of memory; `--only "fp32: LoRA"` and the like need less.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from runner.parts.encoders.bert import checkpoints
from runner.tasks.data import Data, Examples
from runner.training import memory
from runner.training.evaluation import Evaluation
from runner.training.tokens import Tokens
from runner.training.trainer import Trainer, TrainerCallback

from . import Case, Ratio, workload
from .apart import apart
from .peers import HuggingFace
from .steps import RATE

STEPS = 2
"""Steps of one measurement."""
MPNET = ("encoder.init=mpnet-base", "encoder.pooling=mean")
LORA = (*MPNET, "adapter.type=lora")
SUM, SURGERY, WITH_LORA, PADDED = "mpnet, sum", "mpnet, PCGrad", "mpnet with LoRA, sum", "mpnet as hf, sum"
SMALL, TRAINER = "minilm, sum", "mpnet, Trainer"
SCORED, ENCODED = "mpnet, scoring", "mpnet, sentence-transformers encode"
RATIOS = [ratio for p in ("fp32", "bf16") for ratio in (
    Ratio(f"{p}: Trainer / mtrun", f"{TRAINER} {p}", f"{SUM} {p}", 2.5),
    Ratio(f"{p}: PCGrad / sum", f"{SURGERY} {p}", f"{SUM} {p}", 1.15, at_least=False),
    Ratio(f"{p}: LoRA / full", f"{WITH_LORA} {p}", f"{SUM} {p}", 0.75, at_least=False),
    Ratio(f"{p}: Trainer / hf", f"{TRAINER} {p}", f"{PADDED} {p}", 1.0),
    Ratio(f"{p}: mpnet / minilm", f"{SUM} {p}", f"{SMALL} {p}"),
    Ratio(f"{p}: sentence-transformers / mtrun", f"{ENCODED} {p}", f"{SCORED} {p}", 1.5),
)] + [Ratio("memory: LoRA / full", "memory, LoRA", "memory, full", 0.5, at_least=False)]
SCORED_PART = 40
"""One dev row in so many is scored."""

PEAK = """
import gc, pathlib, sys, torch
from benchmarks import encoders, workload
from runner.training import memory
from runner.training.trainer import TrainerCallback
torch.set_num_threads(1)
memory.keep_freed()
ours = encoders.trainer(sys.argv[1:], "fp32")
gc.collect()
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
for _ in range(6):
    ours._step(TrainerCallback())
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1e3)
"""


def cases() -> list[Case]:
    """Return the contenders, each in a process of its own."""
    peaks = [Case("memory, full", _peak(*MPNET), "MB"), Case("memory, LoRA", _peak(*LORA), "MB")]
    return [*(apart("encoders", contender) for contender in contenders()), *peaks]


def contenders() -> list[Case]:
    """Return the milliseconds of a step, and the seconds for some dev rows."""
    torch.set_num_threads(1)
    steps = {SUM: MPNET, SURGERY: (*MPNET, "combiner.type=pcgrad"), WITH_LORA: LORA, SMALL: ("encoder.pooling=mean",),
             PADDED: ("encoder.type=hf", f"encoder.init={folder()}", "encoder.pooling=mean")}
    return [case for p in ("fp32", "bf16") for case in (
        *(Case(f"{name} {p}", _step(settings, p), "ms") for name, settings in steps.items()),
        Case(f"{TRAINER} {p}", _trainer(p == "bf16"), "ms"),
        Case(f"{SCORED} {p}", _scoring(p)), Case(f"{ENCODED} {p}", _encoding(p)))]


@cache
def folder() -> Path:
    """Return the folder of MPNet's files."""
    return checkpoints.folder_of("mpnet-base", workload.ROOT)


def trainer(settings: tuple[str, ...], precision: str) -> Trainer:
    """Return our trainer of the three-task model with these settings."""
    return workload.trainer(workload.model("sum", precision, True, *settings))


@cache
def _reference() -> Trainer:
    """Return a small trainer with the same batches."""
    return trainer((), "fp32")


def _heads() -> dict[str, nn.Module]:
    """Return heads of MPNet's width."""
    model = workload.model("sum", "fp32", True, *MPNET)
    return {name: head.build(768, workload.data().tasks[name]) for name, head in model.heads.items()}


def _step(settings: tuple[str, ...], precision: str) -> Callable[[], float]:
    @cache
    def made() -> Trainer:
        memory.keep_freed()
        return trainer(settings, precision)

    def sample() -> float:
        made()
        started = time.process_time()
        for _ in range(STEPS):
            made()._step(TrainerCallback())
        return (time.process_time() - started) / STEPS * 1e3

    return sample


def _trainer(bf16: bool) -> Callable[[], float]:
    made, numbers = cache(lambda: HuggingFace(folder(), _heads(), RATE, bf16, is_mean=True)), count()

    def sample() -> float:
        batches = [workload.rows(_reference(), next(numbers)) for _ in range(STEPS + 1)]
        with tempfile.TemporaryDirectory() as output:
            return made().seconds(batches, Path(output)) * 1e3

    return sample


@cache
def _dev() -> Data:
    """Return a part of the dev rows of each task, without any other split."""
    whole, splits = workload.data(), {}
    for task, by_split in whole.splits.items():
        dev = by_split["dev"]
        columns = [column[::SCORED_PART] for column in (dev.ids, dev.first, dev.second)]
        splits[task] = {"dev": Examples(*columns, dev.labels[::SCORED_PART])}
    return Data(whole.tasks, splits)


def _scoring(precision: str) -> Callable[[], float]:
    """Tokenize and score, as if for the first time."""
    @cache
    def made() -> Trainer:
        memory.keep_freed()
        return trainer(MPNET, precision)

    def sample() -> float:
        ours = made()
        started = time.process_time()
        with tempfile.TemporaryDirectory() as output:
            tokens = Tokens.of(_dev().splits, ours.model.encoder.tokenizer(_dev(), workload.ROOT), Path(output))
        Evaluation(_dev(), tokens, tuple(ours.model.heads), ("dev",))(ours.network)
        return time.process_time() - started

    return sample


def _encoding(precision: str) -> Callable[[], float]:
    """Encode one column of sentences after the other, as one does."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    made = cache(lambda: SentenceTransformer(str(folder()), device="cpu", model_kwargs={"dtype": kind}))

    def sample() -> float:
        model = made()
        started = time.process_time()
        for by_split in _dev().splits.values():
            for column in (by_split["dev"].first, by_split["dev"].second):
                if column:
                    model.encode(list(column), show_progress_bar=False, convert_to_tensor=True)
        return time.process_time() - started

    return sample


def _peak(*settings: str) -> Callable[[], float]:
    def sample() -> float:
        done = subprocess.run([sys.executable, "-c", PEAK, *settings], cwd=workload.ROOT, capture_output=True,
                              text=True, check=True)
        return float(done.stdout.split()[-1])

    return sample

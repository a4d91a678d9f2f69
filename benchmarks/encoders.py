"""MPNet (110 M weights): training steps, LoRA, the encoder `hf`, scoring, and the peak memory of training.

A step has three tasks, batch 8 each, on one thread in a process of its own; what counts is its processor time. Needs
the packages of the named checkpoint `mpnet-base`, and 16 GB of memory; `--only "fp32: LoRA"` and the like need less.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path

import torch
from torch import nn

from runner.parts.encoders.bert import checkpoints
from runner.training import memory
from runner.training.trainer import Trainer, TrainerCallback

from . import Case, Ratio, scoring, workload
from .apart import apart
from .memory import peak
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


def cases() -> list[Case]:
    """Return the contenders, each in a process of its own."""
    peaks = [Case(f"memory, {name}", peak("mtrun", "sum", "fp32", *settings), "MB")
             for name, settings in (("full", MPNET), ("LoRA", LORA))]
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


def _scoring(precision: str) -> Callable[[], float]:
    @cache
    def made() -> Trainer:
        memory.keep_freed()
        return trainer(MPNET, precision)

    return scoring.timed(lambda: scoring.scored(made(), workload.dev(SCORED_PART)))


def _encoding(precision: str) -> Callable[[], float]:
    return scoring.timed(lambda: scoring.encode(scoring.transformer(folder(), precision), workload.dev(SCORED_PART)))

"""One training step of three tasks, batch 8 each, MiniLM-L6: ours against what people use today.

Each runs in a process of its own, on one thread; what counts is its processor time, which other work on the machine
disturbs least. Ours keeps freed memory, as a worker does.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import torch
from torch import nn

from runner.parts.encoders.bert import products
from runner.training import memory
from runner.training.trainer import Trainer, TrainerCallback

from . import Case, Ratio, workload
from .apart import apart
from .peers import Course, DirectPCGrad, HuggingFace

STEPS = 4
"""Steps of one measurement."""
RATE = 2e-5
SUM, SURGERY = "mtrun, sum", "mtrun, PCGrad"
COURSE, DIRECT, TRAINER = "course loop, sum", "course loop, direct PCGrad", "Hugging Face Trainer, sum"
PRODUCTS = "matrix products of a step"
RATIOS = [
    Ratio("sum: course loop / mtrun fp32", f"{COURSE} fp32", f"{SUM} fp32", 2.5, 3),
    Ratio("sum: course loop / mtrun bf16", f"{COURSE} fp32", f"{SUM} bf16", 4, 5.5),
    Ratio("PCGrad: course loop / mtrun fp32", f"{DIRECT} fp32", f"{SURGERY} fp32", 3.5, 4.5),
    Ratio("PCGrad: course loop / mtrun bf16", f"{DIRECT} fp32", f"{SURGERY} bf16", 5, 7),
    Ratio("mtrun fp32: PCGrad / sum", f"{SURGERY} fp32", f"{SUM} fp32", 1.25, 1.10, at_least=False),
    Ratio("mtrun bf16: PCGrad / sum", f"{SURGERY} bf16", f"{SUM} bf16", 1.25, 1.10, at_least=False),
    Ratio("fp32: Trainer / mtrun", f"{TRAINER} fp32", f"{SUM} fp32", 2, 2.5),
    Ratio("bf16: Trainer / mtrun", f"{TRAINER} bf16", f"{SUM} bf16", 2, 2.5),
    Ratio("fp32: products / mtrun, sum", f"{PRODUCTS} fp32", f"{SUM} fp32", 0.70, 0.80),
    Ratio("bf16: products / mtrun, sum", f"{PRODUCTS} bf16", f"{SUM} bf16", 0.50, 0.65),
]


def cases() -> list[Case]:
    """Return the contenders, each in a process of its own."""
    return [apart("steps", contender) for contender in contenders()]


def contenders() -> list[Case]:
    """Return the steps of all, each a mean over some steps in milliseconds."""
    torch.set_num_threads(1)
    ours = [Case(f"{name} {precision}", _ours(combiner, precision), "ms")
            for name, combiner in ((SUM, "sum"), (SURGERY, "pcgrad")) for precision in ("fp32", "bf16")]
    theirs = [Case(f"{COURSE} fp32", _course(Course), "ms"), Case(f"{DIRECT} fp32", _course(DirectPCGrad), "ms")]
    alone = [Case(f"{PRODUCTS} {kind}", _products(dtype), "ms")
             for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))]
    return [*ours, *theirs, *(Case(f"{TRAINER} {p}", _trainer(p == "bf16"), "ms") for p in ("fp32", "bf16")), *alone]


@cache
def _reference() -> Trainer:
    """Return the trainer whose batches all steps take, and whose heads the peers begin with."""
    return workload.trainer(workload.model("sum", "fp32"))


def _heads() -> dict[str, nn.Module]:
    return copied(_reference())


def _timed(step: Callable[[], object]) -> float:
    """Return the mean milliseconds of a step."""
    started = time.process_time()
    for _ in range(STEPS):
        step()
    return (time.process_time() - started) / STEPS * 1e3


def _ours(combiner: str, precision: str) -> Callable[[], float]:
    @cache
    def made() -> Trainer:
        memory.keep_freed()
        return workload.trainer(workload.model(combiner, precision))

    return lambda: _timed(lambda: made()._step(TrainerCallback()))


def _products(dtype: torch.dtype) -> Callable[[], float]:
    """Time the products that a step cannot do without, by the same library: forward, backward by inputs and by weights.

    Of the last layer keys and values are needed for all tokens, all else for the [CLS] rows; those inside attention,
    a hundredth, are left out.
    """
    @cache
    def operands() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]]:
        encoder, tokens = _reference().network.encoder, round(_tokens())
        sentences, width, wide = _reference().batches.batch(0).packed.lengths.numel(), encoder.width, 4 * encoder.width
        whole = [(tokens, width, 3 * width), (tokens, width, width), (tokens, width, wide), (tokens, wide, width)]
        last = [(tokens, width, 2 * width), *((sentences, *shape) for shape in (
            (width, width), (width, width), (width, wide), (wide, width), (width, width)))]
        times = [(shape, len(encoder.blocks) - 1) for shape in whole] + [(shape, 1) for shape in last]
        return [(torch.randn(n, i).to(dtype), torch.randn(o, i).to(dtype), torch.randn(n, o).to(dtype), layers)
                for (n, i, o), layers in times]

    def step() -> None:
        for x, weight, gradient, layers in operands():
            for _ in range(layers):
                products.linear(x, weight)
                products.linear(gradient, weight.t())
                products.weight_gradients(gradient, x, (len(x),))

    return lambda: _timed(step)


def _course(kind: type[Course]) -> Callable[[], float]:
    made, numbers = cache(lambda: kind(workload.weights(), _heads(), RATE)), count()
    return lambda: _timed(lambda: made().step(workload.rows(_reference(), next(numbers))))


def _trainer(bf16: bool) -> Callable[[], float]:
    made, numbers = cache(lambda: HuggingFace(workload.weights(), _heads(), RATE, bf16)), count()

    def sample() -> float:
        batches = [workload.rows(_reference(), next(numbers)) for _ in range(STEPS + 1)]
        with tempfile.TemporaryDirectory() as folder:
            return made().seconds(batches, Path(folder)) * 1e3

    return sample


# That they compute the same ---------------------------------------------------------------------------------------


def gate() -> Iterator[str]:
    """Compare, without dropout, 20 losses with the course loop's and one PCGrad gradient with the direct one."""
    torch.set_num_threads(1)
    yield f"40 sentences a step, {_tokens():.0f} tokens; the course loop pads them to {_padded():.0f}"
    yield losses_are_equal("MiniLM-L6", workload.weights())
    error = _surgery_error()
    assert error <= 1e-5, f"the PCGrad gradient differs by {error:.1e}"
    yield f"the PCGrad gradient equals the direct one within {error:.1e} of its length (at most 1e-5)"


def losses_are_equal(name: str, folder: Path, *settings: str) -> str:
    """Say how close 20 losses of an encoder's training are to the course loop's. Raise AssertionError if too far."""
    ours = workload.trainer(workload.model("sum", "fp32", False, *settings))
    theirs = Course(folder, copied(ours), RATE, 0.0, 0.0)
    theirs.model.to(ours.device)
    worst = 0.0
    for step in range(20):
        mine = _losses(ours)
        wanted = dict(zip(workload.rows(ours, step), theirs.step(workload.rows(ours, step)), strict=True))
        worst = max(worst, *(abs(mine[task] - wanted[task]) for task in mine))
    assert worst <= 1e-4, f"losses differ by {worst:.1e}"
    return f"{name}: 20 losses of three tasks equal the course loop's within {worst:.1e} (at most 1e-4)"


def copied(ours: Trainer) -> dict[str, nn.Module]:
    """Return copies of a trainer's heads, for a peer."""
    return {name: copy.deepcopy(head) for name, head in ours.network.heads.items()}


def _tokens() -> float:
    """Return the mean number of tokens of a step."""
    return sum(float(_reference().batches.batch(step).packed.lengths.sum()) for step in range(50)) / 50


def _padded() -> float:
    """Return the mean number of tokens of a step whose columns are padded one by one."""
    total = 0
    for step in range(50):
        batch = _reference().batches.batch(step)
        sections = batch.packed.lengths.split_with_sizes(batch.packed.sections)
        for lengths, labels in zip(sections, batch.labels.values(), strict=True):
            total += sum(len(column) * int(column.max()) for column in lengths.split(len(labels)))
    return total / 50


def _losses(ours: Trainer) -> dict[str, float]:
    """Do one of our steps and return its losses."""
    before = dict(ours.state.losses)
    ours._step(TrainerCallback())
    return {task: total - before.get(task, 0.0) for task, total in ours.state.losses.items()}


def _surgery_error() -> float:
    """Return how far our PCGrad gradient of the encoder is from the direct one, as a share of its length.

    Two tasks have but one order, so that random orders cannot differ.
    """
    ours = workload.trainer(workload.model("pcgrad", "fp32", False, 'train.tasks=["paraphrase","similarity"]'))
    theirs = DirectPCGrad(workload.weights(), copied(ours), 0.0, 0.0, 0.0)
    ours._step(TrainerCallback())
    theirs.step(workload.rows(ours, 0))
    words = ours.network.words
    assert words is not None and words.rows.grad is not None
    table = torch.zeros_like(words.table).index_copy_(0, words.used, words.rows.grad)
    wanted = {name: p.grad for name, p in theirs.model.bert.named_parameters()}
    pairs = [(table, wanted["embeddings.word_embeddings.weight"])]
    for number, block in enumerate(ours.network.encoder.blocks):
        for own, name in NAMES.items():
            pairs.append((block.get_parameter(own).grad, wanted[f"encoder.layer.{number}.{name}"]))
    difference = sum(float((a - b).double().square().sum()) for a, b in pairs if b is not None)
    length = sum(float(b.double().square().sum()) for _, b in pairs if b is not None)
    return (difference / length) ** 0.5


NAMES = {
    "query.weight": "attention.self.query.weight", "key.weight": "attention.self.key.weight",
    "value.weight": "attention.self.value.weight", "mix.weight": "attention.output.dense.weight",
    "expand.weight": "intermediate.dense.weight", "contract.weight": "output.dense.weight",
}
"""Our names of a layer's matrices and those of transformers."""

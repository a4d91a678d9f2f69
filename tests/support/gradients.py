"""What tests of training share."""

from __future__ import annotations

import numpy as np
import torch

from runner.parts.combiners import Combiner
from runner.training.trainer import Trainer


def separate(trainer: Trainer, step: int) -> list[dict[str, torch.Tensor]]:
    """Each task's own gradient, by a backward pass of its own."""
    network, out = trainer.network, []
    for task in range(3):
        network.zero_grad()
        network.losses(trainer.batches.batch(step))[task].backward()
        out.append({n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                    for n, p in network.named_parameters()})
    return out


def expected(trainer: Trainer, combiner: Combiner, step: int) -> dict[str, torch.Tensor]:
    """The step's gradient by the definition: on the shared parameters as one vector; heads keep their own."""
    tasks = separate(trainer, step)
    shared = [n for n in tasks[0] if n.startswith("encoder.")]
    vectors = torch.stack([torch.cat([task[n].flatten() for n in shared]) for task in tasks]).double()
    weights = combiner.shared((vectors @ vectors.T).numpy(), np.random.default_rng(3))
    factor = weights[0] if not combiner.needs_gram else 1.0
    return {n: sum(float(w) * t[n] for w, t in zip(weights, tasks, strict=True)) if n in shared
            else factor * sum(t[n] for t in tasks) for n in tasks[0]}


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All gradients, that of the word table as a whole, unless it is frozen."""
    network, words = trainer.network, trainer.network.words
    if words is None:
        assert not network.encoder.word.weight.requires_grad
        return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert words.rows.grad is not None
    table = torch.zeros_like(words.table).index_copy_(0, words.used, words.rows.grad)
    found = {n: p.grad for n, p in network.named_parameters() if n != "encoder.word.weight"}
    return {"encoder.word.weight": table, **{n: g for n, g in found.items() if g is not None}}

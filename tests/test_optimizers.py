"""AdamW against the published update; schedules against their definition."""

from __future__ import annotations

import numpy as np
import torch

from runner.optimizers.adamw import AdamW
from runner.schedules.constant import Constant
from runner.schedules.linear import Linear


def test_adamw_is_algorithm_2() -> None:
    """Loshchilov and Hutter 2019, Algorithm 2, in plain numpy."""
    part = AdamW(lr=0.02, lr_scale=0.5, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=5), random.normal(size=(7, 5))
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = part.build([weight])
    x, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for t, gradient in enumerate(gradients, 1):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        x = x - 0.01 * ((m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6) + 0.1 * x)
    np.testing.assert_allclose(weight.detach().numpy(), x, rtol=1e-10)


def test_schedules() -> None:
    assert [Constant().factor(s, 10) for s in (0, 5, 9)] == [1, 1, 1]
    factors = [Linear(warmup=0.2).factor(s, 10) for s in range(10)]
    np.testing.assert_allclose(factors, [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert min(Linear(warmup=0.0).factor(s, 3) for s in range(3)) > 0

"""AdamW of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field

from . import Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2)."""

    type = "adamw"

    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay coefficient, multiplied by the learning rate in each step."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of gradient and squared gradient."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""

    def build(self, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return torch's fused AdamW."""
        return torch.optim.AdamW(
            parameters, lr=self.rate, betas=self.betas, eps=self.eps,
            weight_decay=self.weight_decay, fused=True,
        )

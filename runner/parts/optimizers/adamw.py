"""AdamW by torch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field

from . import BuiltOptimizer, Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm 2)."""

    type = "adamw"

    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay coefficient, multiplied by the learning rate in each step."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of gradient and squared gradient."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""

    def build(self, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]) -> BuiltOptimizer:
        """Return the fused AdamW."""
        return FusedAdamW(parameters, self)


class FusedAdamW:
    """Steps and state of `torch.optim.AdamW(fused=True)`, the same bits.

    The class of torch imports torch's compiler at its first use, which takes a worker longer than a small leaf.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]], options: AdamW) -> None:
        self.options = options
        given = list(parameters)
        groups = [group for group in given if isinstance(group, dict)] or [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [{"lr": options.rate, **group} for group in groups]
        self._parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}

    def step(self) -> None:
        """Update the parameters that have a gradient."""
        from torch.optim.adamw import adamw

        (beta1, beta2), options = self.options.betas, self.options
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state.get(parameter) or self._begin(parameter) for parameter in parameters]
            means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            with torch.no_grad():
                adamw(parameters, [parameter.grad for parameter in parameters], means, squares, [], steps, fused=True,
                      amsgrad=False, maximize=False, beta1=beta1, beta2=beta2, lr=group["lr"], eps=options.eps,
                      weight_decay=options.weight_decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors of each parameter that has had a gradient, `state[number][name]`."""
        return {"state": {number: self._state[parameter] for number, parameter in enumerate(self._parameters)
                          if parameter in self._state}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the tensors of all parameters. Raise KeyError if names or numbers differ, RuntimeError if shapes do."""
        self._state = {}
        for number, tensors in state_dict["state"].items():
            if not 0 <= number < len(self._parameters):
                raise KeyError(f"optimizer/{number}")
            for name, tensor in self._begin(self._parameters[number]).items():
                tensor.copy_(tensors[name])

    def _begin(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the state of a parameter before its first step."""
        self._state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
        return self._state[parameter]

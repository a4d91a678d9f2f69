"""Head for ordered classes: one score and thresholds between the classes."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import Head


class Ordered(Head):
    """Linear score of the sentence embedding, and k - 1 ascending thresholds between k ordered classes.

    P(class > j) = sigmoid(score - threshold j): the proportional-odds model (McCullagh 1980), and the output layer of
    CORAL (Cao et al. 2020, arXiv:1901.07884), whose order of the thresholds is here built in. The scores of the head
    are the logarithms of the class probabilities, so that every loss and ensemble for classes takes them.
    """

    type = "ordered"
    sentences = (1,)
    kinds = ("classification",)

    spread: float = Field(default=1.0, gt=0)
    """Initial distance of neighbouring thresholds."""

    def build(self, width: int, task: Task) -> torch.nn.Module:
        """Return Linear(width, 1) with `first`, the lowest threshold, and `steps` [k - 2] to the next ones."""
        layer = torch.nn.Linear(width, 1, bias=False)
        first = torch.tensor([-self.spread * (task.classes - 2) / 2])
        steps = torch.full((task.classes - 2,), self.spread)
        layer.register_parameter("first", torch.nn.Parameter(first))
        layer.register_parameter("steps", torch.nn.Parameter(steps.expm1().log()))  # softplus of it is the distance
        return layer

    def scores(self, layers: torch.nn.Module, embeddings: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the logarithms of the class probabilities [n, k]."""
        functional, first = torch.nn.functional, layers.get_parameter("first")
        distances = functional.softplus(layers.get_parameter("steps"))
        thresholds = torch.cat([first, first + distances.cumsum(0)])
        above = layers(embeddings[0]) - thresholds  # logits of "above the threshold", [n, k - 1]
        lowest, highest = functional.logsigmoid(-above[:, :1]), functional.logsigmoid(above[:, -1:])
        # log(sigmoid(a) - sigmoid(b)) for neighbours a > b, without a difference of nearly equal numbers
        inner = (functional.logsigmoid(above[:, :-1]) + functional.logsigmoid(-above[:, 1:])
                 + torch.log(-torch.expm1(-distances)))
        return torch.cat([lowest, inner, highest], dim=1)

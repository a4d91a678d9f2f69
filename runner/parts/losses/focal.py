"""Focal loss, which weakens the loss of examples that are predicted well."""

from __future__ import annotations

import torch
from pydantic import Field

from ...tasks.data import Task
from . import ClassLoss


class Focal(ClassLoss):
    """-(1 - p)^gamma log p, in nats, with p the probability of the label (Lin et al. 2017, arXiv:1708.02002, eq. 4).

    With gamma = 0 it is cross-entropy. The loss of a multi-label task is the mean over its labels. The paper's factor
    alpha is `class_weights`.
    """

    type = "focal"
    kinds = ("classification", "binary", "multilabel")

    gamma: float = Field(default=2.0, ge=0)
    """Power that weakens what is predicted well; the paper uses 2."""

    def each(self, scores: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Return the loss of each example: scores [n, k], labels [n] or [n, k] -> [n]."""
        if task.kind == "classification":
            return self._of_logs(scores.log_softmax(1).gather(1, labels.long()[:, None]))[:, 0]
        share = labels.view(len(labels), -1)  # of the answer yes, between 0 and 1 where a teacher gives it
        yes, no = (self._of_logs(torch.nn.functional.logsigmoid(sign * scores)) for sign in (1, -1))
        return (share * yes + (1 - share) * no).mean(1)

    def _of_logs(self, logs: torch.Tensor) -> torch.Tensor:
        """Return the losses of logarithms of probabilities."""
        # At p = 1 a power below 1 has no gradient, which the limit keeps out.
        return -((-logs.expm1()).clamp(min=torch.finfo(logs.dtype).tiny) ** self.gamma) * logs

"""SMART: a small change of the word embeddings is not to change what is said."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from . import Regularizer, Step


class Smart(Regularizer):
    """Adds `alpha` times how far the scores move when word embeddings are moved in the worst direction.

    The smoothness-inducing regularizer of Jiang et al. 2020 (arXiv:1911.03437, section 3.1) with one step of ascent:
    from noise of deviation `sigma`, along the gradient, which is brought to a largest entry of `epsilon` in each token
    as in the authors' code, and back into the cube of that size. Apart is the mean of both KL divergences (the paper
    has their sum), of a regression the squared difference. Every pass draws its own dropout, as in the authors' code.
    A step takes three times the time. The Bregman proximal point method of the paper is not part of it.
    """

    type = "smart"

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the difference; the paper takes 1 to 5 for the sum of both divergences."""
    epsilon: float = Field(default=0.01, gt=0)
    """How far each number of a word embedding is moved at most; those of BERT deviate by about 0.05."""
    sigma: float = Field(default=1e-3, gt=0)
    """Deviation of the noise at which the gradient is taken."""

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        scores = step.scores()
        moved = step.scores(noise=self.worst(step, scores))
        return [loss + self.alpha * apart for loss, apart in zip(step.losses(scores), step.apart(scores, moved),
                                                                 strict=True)]

    def worst(self, step: Step, scores: dict[str, Tensor]) -> Tensor:
        """Return by how much each word embedding is moved [N, width], so that the scores move much."""
        still = step.still()
        said = {task: known.detach() for task, known in scores.items()}
        noise = (self.sigma * torch.randn_like(still.words)).requires_grad_()
        (slope,) = torch.autograd.grad(torch.stack(still.apart(said, still.scores(noise=noise))).sum(), noise)
        steepest = slope.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
        return (noise.detach() + self.epsilon * slope / steepest).clamp(-self.epsilon, self.epsilon)

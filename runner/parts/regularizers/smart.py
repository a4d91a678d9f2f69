"""SMART: smoothness of the scores under adversarial perturbation of the word embeddings."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from . import Regularizer, Step


class Smart(Regularizer):
    """Adds `alpha` times the divergence of the scores under an adversarial perturbation of the word embeddings.

    The smoothness-inducing regularizer of Jiang et al. 2020 (arXiv:1911.03437, section 3.1) with one ascent step from
    Gaussian noise of deviation `sigma` along the gradient, which is scaled to a maximum norm of `epsilon` per token as
    in the authors' code; the result is clipped to [-epsilon, epsilon]. The divergence is the mean of both KL
    divergences (the paper has their sum), for regression the squared difference. Each pass has its own dropout masks,
    as in the authors' code. A step takes three times the time. The paper's Bregman proximal point optimization is not
    included.
    """

    type = "smart"
    needs_words = True

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the divergence; the paper uses 1 to 5 for the sum of both divergences."""
    epsilon: float = Field(default=0.01, gt=0)
    """Maximum change of each entry of a word embedding; BERT's entries have a standard deviation of about 0.05."""
    sigma: float = Field(default=1e-3, gt=0)
    """Standard deviation of the noise at which the gradient is taken."""

    def losses(self, step: Step) -> list[Tensor]:
        """Return the loss of each task."""
        scores = step.scores()
        perturbed = step.scores(noise=self.worst(step, scores))
        return [loss + self.alpha * divergence for loss, divergence in
                zip(step.losses(scores), step.apart(scores, perturbed), strict=True)]

    def worst(self, step: Step, scores: dict[str, Tensor]) -> Tensor:
        """Return the adversarial perturbation [N, width] of the word embeddings."""
        step = step.detached()
        clean = {task: logits.detach() for task, logits in scores.items()}
        noise = (self.sigma * torch.randn_like(step.words)).requires_grad_()
        (gradient,) = torch.autograd.grad(torch.stack(step.apart(clean, step.scores(noise=noise))).sum(), noise)
        largest = gradient.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        return (noise.detach() + self.epsilon * gradient / largest).clamp(-self.epsilon, self.epsilon)

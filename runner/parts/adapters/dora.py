"""DoRA: low-rank updates of the direction of weight matrices, and their magnitude."""

from __future__ import annotations

from .lora import Lora


class Dora(Lora):
    """Learns the length m of each row of a weight matrix, and its direction by a low-rank update.

    Liu et al. 2024, DoRA (arXiv:2402.09353), equation 5: m (W + alpha / rank B A) / ||W + alpha / rank B A||, with the
    norm of each output; it is constant in the backward pass (section 4.3). m begins at the norms of W.
    """

    type = "dora"
    has_magnitude = True

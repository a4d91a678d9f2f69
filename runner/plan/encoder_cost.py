"""Estimates of the cost of training an encoder from its sizes, for one that was never trained here."""

from __future__ import annotations

from math import prod

from ..parts.encoders.bert.architectures import Sizes, shapes_of
from ..specs.spec import Model

ELEMENTWISE = 2270
"""Time of what is no matrix product in a layer (LayerNorm, GELU, dropout, attention) for each element of a row, in
multiplications of the products: on a CPU they take a third of a step of MiniLM-L6."""

PROCESS_MEGABYTES = 600
"""Memory of a worker besides its tensors."""


def step_cost(model: Model, sizes: Sizes) -> float:
    """Return the relative time of a training step with the same sentences.

    It is proportional to the multiplications of the layers' matrix products and to the width of the rows. A third each
    is the forward pass, the gradient of the rows, and that of the weights, which frozen layers save.
    """
    products = sizes.layers * (4 * sizes.width**2 + 2 * sizes.width * sizes.intermediate)
    share = 1.0
    if model.encoder.freeze and not model.adapter:
        share = 1 / 3
    elif model.adapter and (model.adapter.freezes_encoder or model.encoder.freeze):
        share = 2 / 3
    return share * (products + ELEMENTWISE * sizes.layers * sizes.width)


def stored_bytes(model: Model, sizes: Sizes) -> int:
    """Return the approximate bytes of a run: what it stores of encoder and adapter in fp32."""
    return 4 * (weights(sizes) * model.stores_encoder + added(model, sizes))


def peak_megabytes(model: Model, sizes: Sizes) -> float:
    """Return the approximate peak memory of training in megabytes.

    Of each trained weight there are also a gradient, two moments and the best epoch's value, and while a checkpoint is
    written the bytes of all but the gradient.
    """
    is_frozen = model.encoder.freeze or (model.adapter is not None and model.adapter.freezes_encoder)
    return PROCESS_MEGABYTES + 4 * (weights(sizes) * (1 if is_frozen else 9) + 9 * added(model, sizes)) / 1e6


def added(model: Model, sizes: Sizes) -> int:
    """Return the number of weights of the adapter of a model."""
    return model.adapter.weights(sizes, len(model.heads)) if model.adapter else 0


def weights(sizes: Sizes) -> int:
    """Return the number of weights of an encoder."""
    return sum(prod(shape) for shape in shapes_of(sizes, "mean").values())

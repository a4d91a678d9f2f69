"""Combiners: PCGrad against its definition and against torchjd; the mistake that is often made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import PCGradWeighting

from runner.parts.combiners.mean import Mean
from runner.parts.combiners.pcgrad import PCGrad
from runner.parts.combiners.sum import Sum


def by_definition(gradients: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Algorithm 1 of Yu et al. 2020 on the gradients [T, P] themselves, no Gram matrix."""
    projected = gradients.copy()
    for i in range(len(gradients)):
        for j in random.permutation([t for t in range(len(gradients)) if t != i]):
            inner = projected[i] @ gradients[j]
            if inner < 0:
                projected[i] = projected[i] - inner / (gradients[j] @ gradients[j]) * gradients[j]
    return projected.sum(axis=0)


@settings(deadline=None, max_examples=200)
@given(tasks=st.integers(1, 5), size=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_pcgrad_is_algorithm_1(tasks: int, size: int, seed: int) -> None:
    gradients = np.random.default_rng(seed).normal(size=(tasks, size))
    expected = by_definition(gradients, np.random.default_rng(seed))
    weights = PCGrad().shared(gradients @ gradients.T, np.random.default_rng(seed))
    np.testing.assert_allclose(weights @ gradients, expected, rtol=1e-8, atol=1e-8)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10**6))
def test_pcgrad_of_two_tasks_is_torchjds(seed: int) -> None:
    """Two tasks have one order only, so that no random choice can differ."""
    gradients = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gram = gradients @ gradients.T
    weights = PCGrad().shared(gram.numpy(), np.random.default_rng(0))
    np.testing.assert_allclose(weights, PCGradWeighting()(gram).numpy(), rtol=1e-9)


def test_order_is_drawn_for_each_task() -> None:
    """Three conflicting tasks: some draws of the order must give different sums."""
    gradients = np.random.default_rng(5).normal(size=(3, 3))
    gradients -= gradients.mean(axis=0) * 1.2
    gram = gradients @ gradients.T
    found = {tuple(np.round(PCGrad().shared(gram, np.random.default_rng(s)), 9)) for s in range(200)}
    assert len(found) > 2


def test_projecting_each_parameter_alone_is_another_method() -> None:
    """The well-known mistake: projections tensor by tensor in place of the whole gradient vector."""
    gradients = np.array([[1.0, 0.0, 3.0], [-1.0, 0.5, 1.0]])
    tensors = [slice(0, 2), slice(2, 3)]
    wrong = np.concatenate([by_definition(gradients[:, part], np.random.default_rng(0)) for part in tensors])
    right = PCGrad().shared(gradients @ gradients.T, np.random.default_rng(0)) @ gradients
    np.testing.assert_allclose(right, gradients.sum(axis=0))  # as a whole, these two do not conflict
    assert np.abs(wrong - right).max() > 0.1


def test_a_task_without_gradient_does_no_harm() -> None:
    gradients = np.array([[1.0, 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(PCGrad().shared(gradients @ gradients.T, np.random.default_rng(0)), [1, 1])


@pytest.mark.parametrize(("combiner", "expected"), [(Sum(), [1, 1, 1, 1]), (Mean(), [0.25] * 4)])
def test_constants(combiner: Sum | Mean, expected: list[float]) -> None:
    assert combiner.shared(np.zeros((4, 4)), np.random.default_rng(0)).tolist() == expected
    assert not combiner.needs_gram

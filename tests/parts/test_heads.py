"""Heads and losses against torch's own losses and definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from runner.parts.heads.cosine import Cosine
from runner.parts.heads.linear import Linear
from runner.parts.heads.pair import Pair
from runner.parts.losses.bce import BinaryCrossEntropy
from runner.parts.losses.cosine_embedding import CosineEmbedding
from runner.parts.losses.cross_entropy import CrossEntropy
from runner.parts.losses.mse import SquaredError
from runner.parts.losses.ordinal import Ordinal
from runner.tasks.data import Task

FIVE = Task(title="a", kind="classification", classes=5)
YES = Task(title="b", kind="binary", sentences=2)
GRADED = Task(title="c", kind="regression", low=0.0, high=5.0, sentences=2)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 4), torch.randn(6, 4)


def test_linear_head(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    head = Linear(loss=CrossEntropy())
    layers = head.build(4, FIVE)
    scores = head.scores(layers, (pair[0],))
    torch.testing.assert_close(scores, pair[0] @ layers.weight.T + layers.bias)
    labels = torch.tensor([0.0, 4, 2, 1, 3, 3])
    torch.testing.assert_close(head.loss.each(scores, labels, FIVE), -scores.log_softmax(1)[range(6), labels.long()])


def test_pair_head_concatenates_what_is_named(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    u, v = pair
    for features, expected in (
        (("u", "v"), torch.cat([u, v], 1)),
        (("u", "v", "|u-v|", "u*v"), torch.cat([u, v, (u - v).abs(), u * v], 1)),
        (("u*v",), u * v),
    ):
        head = Pair(loss=BinaryCrossEntropy(), features=features)
        layers = head.build(4, YES)
        torch.testing.assert_close(head.scores(layers, pair), expected @ layers.weight.T + layers.bias)


def test_cosine_head_has_no_parameters(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    u, v = pair
    head = Cosine(loss=SquaredError(), scale=5.0)
    layers = head.build(4, GRADED)
    assert not list(layers.parameters())
    expected = 5 * (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    torch.testing.assert_close(head.scores(layers, pair)[:, 0], expected)


@pytest.mark.parametrize("steepness", [0.5, 2.0, 50.0])
def test_ordinal_targets_fall_with_the_distance(steepness: float) -> None:
    scores, labels = torch.randn(20, 5, generator=torch.Generator().manual_seed(1)), torch.arange(20.0) % 5
    found = Ordinal(steepness=steepness).each(scores, labels, FIVE)
    shares = [[math.exp(-steepness * abs(i - y)) for i in range(5)] for y in labels.tolist()]
    expected = [-sum(share / sum(row) * log for share, log in zip(row, logs.tolist(), strict=True))
                for row, logs in zip(shares, scores.log_softmax(1), strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected))
    if steepness > 20:
        torch.testing.assert_close(found, CrossEntropy().each(scores, labels, FIVE))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothed_labels_are_those_of_szegedy_et_al(smoothing: float) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(7, 5), torch.tensor([0.0, 4, 2, 1, 3, 3, 0])
    found = CrossEntropy(smoothing=smoothing).each(scores, labels, FIVE)
    target = (1 - smoothing) * functional.one_hot(labels.long(), 5) + smoothing / 5  # q'(k), their section 7
    torch.testing.assert_close(found, -(target * scores.log_softmax(1)).sum(1))
    whole = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(scores, labels.long())
    torch.testing.assert_close(found.mean(), whole)


def test_bce_of_soft_and_hard_labels() -> None:
    scores = torch.tensor([[0.3], [-2.0], [4.0]])
    graded = torch.tensor([0.0, 2.5, 5.0])
    expected = functional.binary_cross_entropy(torch.sigmoid(scores[:, 0]), graded / 5, reduction="none")
    torch.testing.assert_close(BinaryCrossEntropy().each(scores, graded, GRADED), expected)
    hard = torch.tensor([0.0, 1.0, 1.0])
    expected = functional.binary_cross_entropy(torch.sigmoid(scores[:, 0]), hard, reduction="none")
    torch.testing.assert_close(BinaryCrossEntropy().each(scores, hard, YES), expected)


def test_mse_decides_binary_labels_at_zero() -> None:
    scores = torch.tensor([[0.5], [-1.0]])
    torch.testing.assert_close(SquaredError().each(scores, torch.tensor([3.0, 1.0]), GRADED), torch.tensor([6.25, 4.0]))
    torch.testing.assert_close(SquaredError().each(scores, torch.tensor([1.0, 0.0]), YES), torch.tensor([0.25, 0.0]))


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_cosine_embedding_is_torchs_at_both_ends(pair: tuple[torch.Tensor, torch.Tensor], margin: float) -> None:
    u, v = pair
    head = Cosine(loss=CosineEmbedding(margin=margin), scale=1.0)
    scores = head.scores(head.build(4, GRADED), pair)
    labels = torch.tensor([0.0, 5, 0, 5, 0, 5])
    expected = functional.cosine_embedding_loss(u, v, torch.where(labels > 0, 1.0, -1.0), margin, reduction="none")
    torch.testing.assert_close(head.loss.each(scores, labels, GRADED), expected)
    middle = head.loss.each(scores, torch.full((6,), 2.5), GRADED)
    torch.testing.assert_close(middle, (1 - scores[:, 0]) / 2 + (scores[:, 0] - margin).clamp(min=0) / 2)

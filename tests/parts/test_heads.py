"""Heads and losses against torch's own losses and definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from runner.parts.heads.cosine import Cosine
from runner.parts.heads.linear import Linear
from runner.parts.heads.ordered import Ordered
from runner.parts.heads.pair import Pair
from runner.parts.losses import ClassLoss
from runner.parts.losses.bce import BinaryCrossEntropy
from runner.parts.losses.coral import Coral
from runner.parts.losses.cosine_embedding import CosineEmbedding
from runner.parts.losses.cross_entropy import CrossEntropy
from runner.parts.losses.focal import Focal
from runner.parts.losses.mse import SquaredError
from runner.parts.losses.ordinal import Ordinal
from runner.tasks.data import Task

FIVE = Task(title="a", kind="classification", classes=5)
YES = Task(title="b", kind="binary", sentences=2)
SEVERAL = Task(title="d", kind="multilabel", classes=3, labels=("x", "y", "z"))
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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("task", [YES, SEVERAL], ids=lambda task: task.kind)
def test_binary_cross_entropy_of_smoothed_and_of_several_labels(task: Task, smoothing: float) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(9, task.outputs), torch.randint(0, 2, (9, task.outputs)).float()
    found = BinaryCrossEntropy(smoothing=smoothing).each(scores, labels if task is SEVERAL else labels[:, 0], task)
    target = labels * (1 - smoothing) + smoothing / 2
    wanted = -(target * scores.sigmoid().log() + (1 - target) * (1 - scores.sigmoid()).log()).mean(1)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("task", [FIVE, YES, SEVERAL], ids=lambda task: task.kind)
def test_focal_loss_is_equation_4_of_lin_et_al(task: Task, gamma: float) -> None:
    torch.manual_seed(1)
    scores = 3 * torch.randn(8, task.outputs)
    if task is FIVE:
        labels = torch.tensor([0.0, 4, 2, 1, 3, 3, 0, 1])
        right = scores.softmax(1)[range(8), labels.long()][:, None]
        plain = functional.cross_entropy(scores, labels.long(), reduction="none")
    else:
        truth = torch.randint(0, 2, scores.shape).float()
        labels = truth if task is SEVERAL else truth[:, 0]
        right = torch.where(truth == 1, scores.sigmoid(), 1 - scores.sigmoid())
        plain = BinaryCrossEntropy().each(scores, labels, task)
    found = Focal(gamma=gamma).each(scores, labels, task)
    torch.testing.assert_close(found, -((1 - right) ** gamma * right.log()).mean(1), rtol=1e-4, atol=1e-6)
    if gamma == 0:
        torch.testing.assert_close(found, plain)


def test_focal_loss_of_what_is_certain_has_a_gradient() -> None:
    scores = torch.tensor([[200.0, -200.0, 0.0, 0.0, 0.0]] * 2, requires_grad=True)
    Focal(gamma=0.5).each(scores, torch.tensor([0.0, 1.0]), FIVE).sum().backward()
    assert scores.grad is not None and scores.grad.isfinite().all() and scores.grad[1].abs().sum() > 0


def test_the_ordered_head_is_a_proportional_odds_model() -> None:
    torch.manual_seed(2)
    head = Ordered(loss=Coral(), spread=1.5)
    layers = head.build(4, FIVE)
    embeddings = 2 * torch.randn(50, 4)
    with torch.no_grad():
        layers.get_parameter("steps").add_(torch.randn(3))
    scores = head.scores(layers, (embeddings,))
    thresholds = [layers.get_parameter("first").item()]
    for step in layers.get_parameter("steps").tolist():
        thresholds.append(thresholds[-1] + math.log1p(math.exp(step)))
    above = (embeddings @ layers.get_parameter("weight").T - torch.tensor(thresholds)).sigmoid()
    wanted = torch.cat([torch.ones(50, 1), above], 1) - torch.cat([above, torch.zeros(50, 1)], 1)
    torch.testing.assert_close(scores.exp(), wanted, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(50))
    labels = torch.randint(0, 5, (50,)).float()
    logits = embeddings @ layers.get_parameter("weight").T - torch.tensor(thresholds)
    levels = (labels[:, None] > torch.arange(4)).float()  # equation 4 of Cao et al., with importance 1
    coral = functional.binary_cross_entropy_with_logits(logits, levels, reduction="none").sum(1)
    torch.testing.assert_close(head.loss.each(scores, labels, FIVE), coral, rtol=1e-3, atol=1e-5)


def test_thresholds_begin_evenly_around_zero_and_two_classes_have_one() -> None:
    layers = Ordered(loss=Coral(), spread=2.0).build(3, FIVE)
    assert layers.get_parameter("first").item() == -3.0
    torch.testing.assert_close(functional.softplus(layers.get_parameter("steps")), torch.full((3,), 2.0))
    two = Task(title="t", kind="classification", classes=2)
    layers = Ordered(loss=Coral()).build(3, two)
    assert Ordered(loss=Coral()).scores(layers, (torch.randn(6, 3),)).exp().sum(1).allclose(torch.ones(6))


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_the_loss_of_an_extreme_score_is_finite(extreme: float) -> None:
    head = Ordered(loss=Coral())
    layers = head.build(1, FIVE)
    with torch.no_grad():
        layers.get_parameter("weight").fill_(1.0)
    scores = head.scores(layers, (torch.tensor([[extreme]]),))
    head.loss.each(scores, torch.tensor([2.0]), FIVE).sum().backward()
    assert scores.isfinite().all() and all(p.grad.isfinite().all() for p in layers.parameters() if p.grad is not None)


@pytest.mark.parametrize("loss", [CrossEntropy, Ordinal, Focal, Coral])
def test_balanced_class_weights_are_those_of_scikit_learn(loss: type[ClassLoss]) -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 3, 4, 4, np.nan])
    found = loss(class_weights="balanced").weights(labels, FIVE)
    known = labels[:-1].astype(int)
    wanted = compute_class_weight("balanced", classes=np.arange(5), y=known)[known]
    assert found is not None and found.tolist() == pytest.approx([*wanted, 1.0])
    given = loss(class_weights=(1.0, 2.0, 3.0, 4.0, 5.0)).weights(labels, FIVE)
    assert given is not None and given.tolist() == [1, 1, 1, 1, 2, 2, 3, 4, 5, 5, 1]
    assert loss().weights(labels, FIVE) is None


def test_class_weights_that_do_not_fit_are_told() -> None:
    assert CrossEntropy(class_weights=(1.0, 2.0)).misfit(FIVE) == (
        "class_weights", "there are 2 class weights for 5 classes")
    assert BinaryCrossEntropy(class_weights=(1.0, 2.0)).misfit(YES) is None
    assert BinaryCrossEntropy(class_weights="balanced").misfit(GRADED) is not None
    assert BinaryCrossEntropy(class_weights="balanced").misfit(SEVERAL) is not None


def test_focal_loss_of_a_share_of_yes_is_that_of_both_answers() -> None:
    scores, share = torch.tensor([[0.7], [-1.2]]), torch.tensor([0.25, 0.6])
    both = [Focal().each(scores, torch.full((2,), float(answer)), YES) for answer in (0, 1)]
    torch.testing.assert_close(Focal().each(scores, share, YES), (1 - share) * both[0] + share * both[1])


def test_classes_that_do_not_occur_take_no_part_in_the_balance() -> None:
    found = CrossEntropy(class_weights="balanced").weights(np.array([0.0, 0, 0, 3]), FIVE)
    wanted = compute_class_weight("balanced", classes=np.array([0, 3]), y=np.array([0, 0, 0, 3]))
    assert found is not None and found.tolist() == pytest.approx([*[wanted[0]] * 3, wanted[1]])
    assert found.mean() == pytest.approx(1.0)

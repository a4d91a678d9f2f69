"""The metrics of tasks, each for one set of predictions and for many bootstrap draws at a time.

A draw is a row of counts, how often each example occurs in it. A metric is written once, as a function of counts; its
value for the examples themselves is that of the draw in which each occurs once. All sums over examples are of integers
below 2^53 and thus exact in any order: results depend neither on the threads nor on the kernels of a BLAS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, TypeVar

from ..lazy import deferred
from .data import Task

with deferred("numpy"):
    import numpy as np

Number = TypeVar("Number", float, "np.ndarray")

Name = Literal["accuracy", "balanced_accuracy", "f1", "macro_f1", "micro_f1", "mcc", "quadratic_kappa", "pearson",
               "spearman", "pearson_spearman", "rmse", "auroc", "average_precision", "ece", "brier"]

SYSTEMS = 64
"""Number of systems whose draws are computed at a time."""

GRID = 1 << 14
"""Quantization steps per standard deviation for correlated values."""

FINE = float(1 << 20)
"""Quantization steps per unit of errors and of probabilities."""

BINS = 15
"""Bins of the expected calibration error (Guo et al. 2017, arXiv:1706.04599, section 4)."""


def probabilities(task: Task, scores: np.ndarray) -> np.ndarray:
    """Convert logits [n, k] to class probabilities [n, c]; a binary task has the classes 0 and 1.

    The k probabilities of a multi-label task are independent of one another.
    """
    logits = scores.astype(np.float64)
    if task.kind == "multilabel":
        apart: np.ndarray = np.exp(-np.logaddexp(0, -logits))
        return apart
    logits = logits if task.kind == "classification" else np.hstack([np.zeros_like(logits), logits])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def predict_labels(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return the predicted labels [n] of scores [n, k]: class indices, 0 or 1, or the score of a regression.

    Ties between logits of a classification go to the lower class; a logit above 0 is a yes. Those of a multi-label task
    are [n, k] of 0 and 1.
    """
    if task.kind == "regression":
        return scores[:, 0]
    if task.kind == "classification":
        return np.asarray(scores.argmax(axis=1))
    answers: np.ndarray = (scores > 0).astype(np.int64)
    return answers if task.kind == "multilabel" else answers[:, 0]


class Metric(ABC):
    """A metric: what it needs to know of each example (its outcome), and its value under draws of examples."""

    name: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of task that it is for."""
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    sign: ClassVar[int] = 1
    """-1 where a lower value is better."""
    needs_scale: ClassVar[bool] = False
    """Whether the value changes with the scale of the scores."""

    def outcomes(self, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return what the metric needs of each example, [n] or [n, d], from scores [n, k]: here the predicted label."""
        return predict_labels(task, scores)

    def value(self, task: Task, outcomes: np.ndarray, labels: np.ndarray) -> float:
        """Return the metric of one system."""
        once = np.ones((1, len(labels)))
        return float(self.of_draws(task, outcomes[:, None], labels, once)[0, 0])

    def resampled(self, task: Task, outcomes: np.ndarray, labels: np.ndarray,
                  draws: Iterable[np.ndarray]) -> np.ndarray:
        """Return the metric [B, S] of S systems with outcomes [n, S] or [n, S, d] in draws, blocks of counts [b, n]."""
        blocks = [np.hstack([self.of_draws(task, outcomes[:, start : start + SYSTEMS], labels, counts)
                             for start in range(0, outcomes.shape[1], SYSTEMS)]) for counts in draws]
        return np.concatenate(blocks)

    @abstractmethod
    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the metric [b, S] of S systems with outcomes [n, S] or [n, S, d] under counts [b, n]."""

    def share(self, task: Task, values: Number) -> Number:
        """Return what a value contributes to an overall, in which higher is better: mostly itself, in [0, 1]."""
        return values

    def whole(self, task: Task, labels: np.ndarray) -> int:
        """Return the number of examples behind a perfect value: those of the rarest class; 0 where it says nothing."""
        if task.kind == "multilabel":
            return int(labels.sum(axis=0).min())
        return int(np.unique(labels, return_counts=True)[1].min())


# Decisions -----------------------------------------------------------------------------------------------------------


class Accuracy(Metric):
    """Share of examples that are predicted right; of a multi-label task, with all their labels."""

    name = title = "accuracy"
    kinds = ("classification", "binary", "multilabel")

    def outcomes(self, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return 1 for a right prediction, else 0, float64 [n]."""
        right = predict_labels(task, scores) == labels
        return np.asarray(right.all(axis=1) if right.ndim > 1 else right, np.float64)

    def value(self, task: Task, outcomes: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean of the outcomes."""
        return float(outcomes.mean())

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the share of right predictions."""
        return _sums(counts, outcomes) / len(labels)

    def whole(self, task: Task, labels: np.ndarray) -> int:
        """Return the number of all examples."""
        return len(labels)


class _OfClasses(Metric):
    """A metric of the numbers of hits, predictions and labels of each class; of a class that does not occur, 0 / 0 = 0.

    Of a multi-label task the classes are the labels, each a yes or a no.
    """

    kinds: ClassVar[tuple[str, ...]] = ("classification", "binary")

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the metric of the numbers of each class."""
        return self.of_totals(task, *_totals(task, outcomes, labels, counts))

    @abstractmethod
    def of_totals(self, task: Task, hits: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return the metric [b, S] of `hits`, predictions `given` and labels `wanted`, all [b, S, k]."""


class F1(_OfClasses):
    """F1 of the answer yes: 2 hits / (predicted + labelled)."""

    name, title, kinds = "f1", "F1", ("binary",)

    def of_totals(self, task: Task, hits: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return F1 of class 1."""
        return _over(2 * hits, given + wanted)[..., 1]


class MacroF1(_OfClasses):
    """Mean of F1 over the classes that occur in labels or predictions; over all labels of a multi-label task."""

    name, title, kinds = "macro_f1", "macro F1", ("classification", "binary", "multilabel")

    def of_totals(self, task: Task, hits: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return the mean of F1."""
        counted = task.classes if task.kind == "multilabel" else (given + wanted > 0).sum(axis=2)
        return _over(_over(2 * hits, given + wanted).sum(axis=2), np.asarray(counted))


class MicroF1(_OfClasses):
    """F1 of the hits, predictions and labels of all classes together; that is accuracy where an example has one."""

    name, title, kinds = "micro_f1", "micro F1", ("classification", "binary", "multilabel")

    def of_totals(self, task: Task, hits: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return F1 of the sums over classes."""
        return _over(2 * hits.sum(axis=2), (given + wanted).sum(axis=2))


class BalancedAccuracy(_OfClasses):
    """Mean share of right predictions over the classes that occur in the labels."""

    name, title = "balanced_accuracy", "balanced accuracy"

    def of_totals(self, task: Task, hits: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return the mean recall."""
        return _over(_over(hits, wanted).sum(axis=2), (wanted > 0).sum(axis=2))


class Matthews(_OfClasses):
    """Matthews' correlation of labels and predictions, for k classes by Gorodkin 2004; 0 where one is constant."""

    name, title, low = "mcc", "MCC", -1.0

    def of_totals(self, task: Task, hits: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return the correlation."""
        examples = wanted.sum(axis=2)  # [b, 1]
        covariance = hits.sum(axis=2) * examples - (given * wanted).sum(axis=2)
        spread = (examples**2 - (given**2).sum(axis=2)) * (examples**2 - (wanted**2).sum(axis=2))
        return np.asarray(np.clip(_over(covariance, np.sqrt(spread)), -1.0, 1.0))

    def share(self, task: Task, values: Number) -> Number:
        """Return (r + 1) / 2."""
        return (values + 1) / 2


class QuadraticKappa(Metric):
    """Cohen's kappa (1968) with quadratic weights, for ordered classes; 0 where chance would agree as well."""

    name, title, kinds, low = "quadratic_kappa", "quadratic kappa", ("classification",), -1.0

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return 1 - observed / expected squared distance of label and prediction."""
        wanted = labels[:, None].astype(np.float64)
        observed = _sums(counts, (outcomes - wanted) ** 2) * counts.sum(axis=1)[:, None]
        n = counts.sum(axis=1)[:, None]
        squares = _sums(counts, outcomes**2) + _sums(counts, wanted**2)
        expected = n * squares - 2 * _sums(counts, outcomes) * _sums(counts, wanted)
        return np.where(expected > 0, 1 - _over(observed, expected), 0.0)

    def share(self, task: Task, values: Number) -> Number:
        """Return (kappa + 1) / 2."""
        return (values + 1) / 2


def _totals(task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray,
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of hits and predictions [b, S, k] and of labels [b, 1, k] of each class in draws [b, n]."""
    hits, given, wanted = [], [], []
    for number in range(task.outputs if task.outputs > 1 else 2):
        said = outcomes[..., number] == 1 if task.kind == "multilabel" else outcomes == number  # [n, S]
        true = labels[:, number] == 1 if task.kind == "multilabel" else labels == number  # [n]
        hits.append(_sums(counts[:, true], said[true]))
        given.append(_sums(counts, said))
        wanted.append(counts[:, true].sum(axis=1, dtype=np.float64)[:, None])
    return np.stack(hits, axis=2), np.stack(given, axis=2), np.stack(wanted, axis=2)


# Numbers -------------------------------------------------------------------------------------------------------------


class _Correlation(Metric):
    """A correlation r of score and label, which counts as (r + 1) / 2."""

    kinds, low = ("regression",), -1.0

    def outcomes(self, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the scores, float64 [n]."""
        return np.asarray(scores[:, 0], np.float64)

    def share(self, task: Task, values: Number) -> Number:
        """Return (r + 1) / 2."""
        return (values + 1) / 2

    def whole(self, task: Task, labels: np.ndarray) -> int:
        """Return 0: r = 1 is no matter of right and wrong answers."""
        return 0


class Pearson(_Correlation):
    """Pearson's r of score and label; 0 where one of them is constant."""

    name, title = "pearson", "Pearson r"

    def value(self, task: Task, outcomes: np.ndarray, labels: np.ndarray) -> float:
        """Return r."""
        return pearson(outcomes, labels)

    def resampled(self, task: Task, outcomes: np.ndarray, labels: np.ndarray,
                  draws: Iterable[np.ndarray]) -> np.ndarray:
        """Return r [B, S], of scores and labels that are quantized for all draws alike."""
        x, y = quantized(outcomes), quantized(labels[:, None].astype(np.float64))
        return np.concatenate([_correlations(counts.astype(np.float64), x, y) for counts in draws])

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return r."""
        return self.resampled(task, outcomes, labels, [counts])


class Spearman(_Correlation):
    """Spearman's rank correlation of score and label: Pearson's r of their ranks, equal ones at the mean of theirs."""

    name, title = "spearman", "Spearman rho"

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the correlation of the ranks within each draw."""
        y = _centred_ranks(labels, counts)
        columns = []
        for scores in outcomes.T:
            x = _centred_ranks(scores, counts)
            spread = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
            columns.append(np.clip(_over((counts * x * y).sum(axis=1), np.sqrt(spread)), -1.0, 1.0))
        return np.stack(columns, axis=1)


class PearsonSpearman(_Correlation):
    """Mean of Pearson's and Spearman's correlation, as GLUE has it for STS-B (Wang et al. 2019, arXiv:1804.07461)."""

    name, title = "pearson_spearman", "mean of Pearson and Spearman"

    def value(self, task: Task, outcomes: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean of the two."""
        return (pearson(outcomes, labels) + Spearman().value(task, outcomes, labels)) / 2

    def resampled(self, task: Task, outcomes: np.ndarray, labels: np.ndarray,
                  draws: Iterable[np.ndarray]) -> np.ndarray:
        """Return the mean [B, S] of the two."""
        blocks = list(draws)
        values: np.ndarray = (Pearson().resampled(task, outcomes, labels, blocks)
                              + Spearman().resampled(task, outcomes, labels, blocks)) / 2
        return values

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the mean of the two."""
        return self.resampled(task, outcomes, labels, [counts])


class RootMeanSquare(Metric):
    """Root of the mean squared difference of score and label, in units of the label."""

    name, title, kinds, sign = "rmse", "RMSE", ("regression",), -1
    high = float("inf")
    needs_scale = True

    def outcomes(self, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the squared differences, float64 [n]."""
        return np.asarray((scores[:, 0].astype(np.float64) - labels) ** 2)

    def value(self, task: Task, outcomes: np.ndarray, labels: np.ndarray) -> float:
        """Return the root of the mean."""
        return float(np.sqrt(outcomes.mean()))

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the root of the mean."""
        return np.asarray(np.sqrt(_means(counts, outcomes)))

    def share(self, task: Task, values: Number) -> Number:
        """Return 1 - value / range of the labels."""
        return 1 - values / (task.high - task.low)

    def whole(self, task: Task, labels: np.ndarray) -> int:
        """Return 0: no error is no matter of right and wrong answers."""
        return 0


# Probabilities -------------------------------------------------------------------------------------------------------


class _OfScores(Metric):
    """A metric of how well a score tells the examples of a class from the others; the mean over several classes.

    A classification is scored by the probability of each class against all others, as are the labels of a multi-label
    task. Classes that all examples of a draw have, or none, are left out.
    """

    kinds = ("classification", "binary", "multilabel")
    needs_scale = True  # the probability of a class depends on the logits of all
    nothing: ClassVar[float]
    """Value without any class to tell."""

    def outcomes(self, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the score of each class, [n] or [n, k]."""
        return scores[:, 0] if task.kind == "binary" else probabilities(task, scores)

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the mean over the classes."""
        wide = outcomes if outcomes.ndim == 3 else outcomes[:, :, None]
        total = np.zeros((len(counts), wide.shape[1]))
        told = np.zeros((len(counts), 1))
        for number in range(wide.shape[2]):
            true = (labels == (1 if task.kind == "binary" else number)) if labels.ndim == 1 else labels[:, number] == 1
            yes = counts[:, true].sum(axis=1)
            has_both = ((yes > 0) & (yes < counts.sum(axis=1)))[:, None]
            told += has_both
            for system in range(wide.shape[1]):
                values = self.of_class(wide[:, system, number], true, counts)
                total[:, system] += np.where(has_both[:, 0], values, 0.0)
        return np.where(told > 0, _over(total, told), self.nothing)

    @abstractmethod
    def of_class(self, scores: np.ndarray, true: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the metric [b] of the scores [n] of one class, where `true` [n] tells its examples."""


class Auroc(_OfScores):
    """Area under the ROC curve: how often an example of the class has the higher score, equal ones counted half."""

    name, title, nothing = "auroc", "AUROC", 0.5

    def of_class(self, scores: np.ndarray, true: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the area."""
        yes, no = _grouped(scores, true, counts)
        below = no.cumsum(axis=1) * 2 - no
        return _over((yes * below).sum(axis=1), 2 * yes.sum(axis=1) * no.sum(axis=1))


class AveragePrecision(_OfScores):
    """Mean of the precision at each example of the class, from the highest score down (no interpolation)."""

    name, title, nothing = "average_precision", "average precision", 0.0

    def of_class(self, scores: np.ndarray, true: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the sum of precision times the growth of recall."""
        yes, no = _grouped(-scores, true, counts)
        found = yes.cumsum(axis=1)
        precision = _over(found, found + no.cumsum(axis=1))
        return _over((yes * precision).sum(axis=1), found[:, -1])


class _OfProbabilities(Metric):
    """A measure of wrong probabilities, 0 at best."""

    kinds, sign, needs_scale = ("classification", "binary"), -1, True

    def share(self, task: Task, values: Number) -> Number:
        """Return 1 - value."""
        return 1 - values

    def whole(self, task: Task, labels: np.ndarray) -> int:
        """Return 0: the value says nothing of right and wrong answers."""
        return 0


class Brier(_OfProbabilities):
    """Mean squared error of the probabilities (Brier 1950), in [0, 1]: half the sum over the classes."""

    name, title = "brier", "Brier score"

    def outcomes(self, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return half the squared distance of the probabilities from the label, float64 [n]."""
        shares = probabilities(task, scores)
        off: np.ndarray = shares - np.eye(shares.shape[1])[labels.astype(int)]
        return np.asarray((off * off).sum(axis=1) / 2)

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the mean."""
        return _means(counts, outcomes)


class CalibrationError(_OfProbabilities):
    """Expected calibration error (Guo et al. 2017): |confidence - accuracy| over 15 bins of the confidence, by size."""

    name, title = "ece", "ECE"

    def outcomes(self, task: Task, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return confidence less correctness, and the bin of the confidence, float64 [n, 2]."""
        shares = probabilities(task, scores)
        sure = shares.max(axis=1)
        gap = sure - (predict_labels(task, scores) == labels)
        return np.stack([gap, np.clip(np.ceil(sure * BINS) - 1, 0, BINS - 1)], axis=1)

    def of_draws(self, task: Task, outcomes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the sum over the bins."""
        gaps, bins = np.rint(outcomes[..., 0] * FINE), outcomes[..., 1]
        off = [np.abs(_sums(counts, np.where(bins == number, gaps, 0))) for number in range(BINS)]
        return np.asarray(np.add.reduce(off) / FINE / counts.sum(axis=1)[:, None])


# Sums under counts ---------------------------------------------------------------------------------------------------


def _sums(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the sums [b, S] of whole numbers [n, S] under counts [b, n]; exact, as float32 where these are small."""
    is_small = values.dtype == bool or np.abs(values).max(initial=0) <= 1  # sums of up to 2^24 examples are exact
    kind = np.float32 if is_small else np.float64
    return np.asarray((counts.astype(kind) @ values.astype(kind)).astype(np.float64))


def _means(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the means [b, S] of numbers [n, S] under counts [b, n], to about 6 decimals."""
    means: np.ndarray = _sums(counts, np.rint(values * FINE)) / FINE / counts.sum(axis=1)[:, None]
    return means


def _over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; 0 where the denominator is 0."""
    ratio: np.ndarray = numerator / np.where(denominator > 0, denominator, np.inf)
    return ratio


def _starts(values: np.ndarray) -> np.ndarray:
    """Return where groups of equal numbers start in an ascending array."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def _grouped(scores: np.ndarray, true: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many examples of the class and how many others have each score, by ascending score, [b, g] each."""
    order = np.argsort(scores, kind="stable")
    starts, sorted_counts, is_true = _starts(scores[order]), counts[:, order].astype(np.float64), true[order]
    return (np.add.reduceat(sorted_counts * is_true, starts, axis=1),
            np.add.reduceat(sorted_counts * ~is_true, starts, axis=1))


def _centred_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return twice the rank of each of n values within draws with counts [b, n], less its mean, [b, n].

    Equal values share the mean of their ranks. The sum over a draw is 0.
    """
    order = np.argsort(values, kind="stable")
    starts = _starts(values[order])
    sizes = np.add.reduceat(counts[:, order].astype(np.float64), starts, axis=1)  # [b, groups]
    ranks = 2 * sizes.cumsum(axis=1) - sizes - counts.sum(axis=1)[:, None]
    group_of = np.empty(len(values), np.intp)
    group_of[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    return np.asarray(ranks[:, group_of])


def quantized(values: np.ndarray) -> np.ndarray:
    """Standardize columns [n, S] and round them to integers, GRID steps per deviation; 0 where a column is constant."""
    centred = values - values.mean(axis=0)
    deviation = np.sqrt((centred * centred).mean(axis=0))
    constant = (values == values[:1]).all(axis=0)
    return np.where(constant, 0.0, np.rint(centred * (GRID / np.where(constant | (deviation == 0), 1.0, deviation))))


def _correlations(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's r [b, S] of x [n, S] and y [n, 1] under counts [b, n]; 0 where a draw is constant in x or y."""
    n = x.shape[0]
    sum_x, sum_y = counts @ x, counts @ y
    covariance = n * (counts @ (x * y)) - sum_x * sum_y
    spread = (n * (counts @ (x * x)) - sum_x**2) * (n * (counts @ (y * y)) - sum_y**2)
    r: np.ndarray = np.clip(covariance / np.sqrt(np.where(spread > 0, spread, np.inf)), -1.0, 1.0)
    return r


def pearson(left: np.ndarray, right: np.ndarray) -> float:
    """Return Pearson's r in [-1, 1] of two arrays [n]; 0 if one of them is constant."""
    x, y = standardized(left), standardized(right)
    return min(1.0, max(-1.0, float((x * y).sum())))


def standardized(values: np.ndarray) -> np.ndarray:
    """Return values [n] minus their mean, scaled to norm 1; zeros if they are constant."""
    x = values.astype(np.float64)
    if (x == x[0]).all():
        return np.zeros_like(x)  # the mean of equal numbers may have a rounding error
    x -= x.mean()
    x /= np.abs(x).max()  # prevents over- and underflow of squares
    # numpy's own sum: a BLAS product may change its last bits with the number of threads.
    length: np.ndarray = x / np.sqrt((x * x).sum())
    return length


METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Accuracy(), BalancedAccuracy(), F1(), MacroF1(), MicroF1(), Matthews(), QuadraticKappa(), Pearson(), Spearman(),
    PearsonSpearman(), RootMeanSquare(), Auroc(), AveragePrecision(), CalibrationError(), Brier())}
"""All metrics by name."""

USUAL = {"classification": "accuracy", "binary": "accuracy", "multilabel": "micro_f1", "regression": "pearson"}
"""The metric of each kind of task whose suite names none."""


def wrong_metrics(kind: str, names: Sequence[str]) -> str:
    """Return why a task of a kind cannot have these metrics, or an empty string."""
    fit = [name for name, metric in METRICS.items() if kind in metric.kinds]
    if unknown := [name for name in names if name not in fit]:
        return f"`{unknown[0]}` is no metric of a {kind} task; there are: {', '.join(fit)}"
    repeated = [name for name in names if list(names).count(name) > 1]
    return f"`metrics` has `{repeated[0]}` more than once" if repeated else ""

"""Ensembles: Predictions -> Predictions. One file, one node type."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

from ..errors import TrainingError
from ..parts import Member, Part, deferred
from ..predictions import Output, Predictions
from ..suites import SPLITS, Data

with deferred("numpy"):
    import numpy as np


Choice = Mapping[str, Any]
"""What a node learns from dev, as plain JSON: task -> what holds for it, members by content id."""


class Ensemble(Part):
    """Makes one node's Predictions from those of its members: `fit` learns from dev, `apply` does the rest.

    Its members are the fields annotated `tuple[Member, ...]` or `dict[str, Member]`.
    """

    ordered: ClassVar[bool] = True
    """False where the order of the members does not matter, so that it is not in the id."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Return all that the node learns from the dev rows of `data`; nothing where it learns nothing.

        `members` are the Predictions of `children` and `ids` their content ids, both in their order. Raise
        TrainingError where nothing can be learned.
        """
        return {}

    @abstractmethod
    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the node's Predictions for the examples of `data`, whichever they are; labels are not looked at.

        Raise TrainingError where nothing comes out.
        """

    def combine(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the node's Predictions, by what it learns from the same data's dev rows."""
        return self.apply(self.fit(members, data, ids), members, data, ids)

    def chosen(self, choice: Choice, ids: Sequence[str]) -> list[int] | None:
        """Return the positions of the members that a rule chose, best first; None where none are chosen."""
        return None

    def names_tasks(self) -> dict[str, str]:
        """Return the tasks that the spec names by the key that names each, to be checked before anything is trained."""
        return {}

    def summary(self) -> str:
        """Return what the node is in a few words, for a table."""
        return f"{self.type} of {len(self.children())}"

    def children(self) -> tuple[Any, ...]:
        """Return the members in the order in which `combine` gets their Predictions."""
        return tuple(member for _, _, member in self._held())

    def roles(self) -> tuple[str, ...]:
        """Return the key of each of `children`, such as a route's task; it is empty for one in a list."""
        return tuple(key for _, key, _ in self._held())

    def canonical(self) -> dict[str, Any]:
        """Return what the id is made of apart from the members, for which `signature` stands."""
        fields = _member_fields(type(self))
        return {name: value for name, value in super().canonical().items() if name not in fields}

    def signature(self, ids: Sequence[str]) -> list[list[str]]:
        """Return what the id is made of for the members: field, key and content id of each of `children`."""
        found = [[field, key, name] for (field, key, _), name in zip(self._held(), ids, strict=True)]
        return found if self.ordered else sorted(found)

    def _held(self) -> Iterator[tuple[str, str, Any]]:
        """Yield field, key and member; keys are sorted, since their order in a table means nothing."""
        for field in _member_fields(type(self)):
            held = getattr(self, field)
            pairs = sorted(held.items()) if isinstance(held, dict) else [("", member) for member in held]
            yield from ((field, key, member) for key, member in pairs)


def _member_fields(ensemble: type[Ensemble]) -> list[str]:
    """Return the names of the fields that hold members."""
    return [name for name, field in ensemble.model_fields.items() if Member in get_args(field.annotation)]


def mean(members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
    """Return the mean of the members' logits per task, over the members that have the task.

    A task is there on the splits that all of these members predict, so that it is one system on every split.
    """
    outputs: dict[str, dict[str, Output]] = {}
    for task in data.tasks:
        having = [(member, name) for member, name in zip(members, ids, strict=True) if member.has(task)]
        for split in SPLITS:
            found = [member.find(data, split, task, name) for member, name in having]
            scores = [array for array in found if array is not None]
            if scores and len(scores) == len(found):
                outputs.setdefault(split, {})[task] = Output(data.splits[task][split].ids, _mean(scores))
    if not outputs:
        raise TrainingError("there is nothing to average: no member predicts a task of the suite")
    return Predictions(outputs)


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of arrays [n, k], summed in float64 by the order of their bytes, so that no name changes it."""
    ranked: list[np.ndarray] = sorted(arrays, key=lambda array: array.tobytes())
    means: np.ndarray = np.stack(ranked).mean(axis=0, dtype=np.float64)
    return means.astype(np.float32)

"""Ensembles: combination of the predictions of members. One file per ensemble type."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, get_args

from ...errors import TrainingError
from ...lazy import deferred
from ...part import Member, Part
from ...tasks.data import SPLITS, Data
from ...tasks.predictions import Output, Predictions

with deferred("numpy"):
    import numpy as np


Choice = Mapping[str, Any]
"""Parameters that an ensemble learns from dev, as plain JSON: task -> parameters, with members by content id."""


class Ensemble(Part):
    """Combines the Predictions of members into those of one node: `fit` learns from dev, `apply` combines.

    Members are in the fields annotated `tuple[Member, ...]` or `dict[str, Member]`.
    """

    ordered: ClassVar[bool] = True
    """Whether the order of the members matters, and is part of the id."""

    def fit(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Choice:
        """Learn from the dev rows of `data`; return the learned parameters, {} by default.

        `members` are the Predictions of `children` and `ids` their content ids, in the same order. Raise TrainingError
        if learning is impossible.
        """
        return {}

    @abstractmethod
    def apply(self, choice: Choice, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Return the node's Predictions for the examples of `data`, without use of labels.

        Raise TrainingError if there is nothing to combine.
        """

    def combine(self, members: Sequence[Predictions], data: Data, ids: Sequence[str]) -> Predictions:
        """Fit on the dev rows of `data`, then apply to all of it."""
        return self.apply(self.fit(members, data, ids), members, data, ids)

    @property
    def chooses(self) -> bool:
        """Whether `fit` uses dev labels, so that dev scores are apparent."""
        return type(self).fit is not Ensemble.fit

    def chosen(self, choice: Choice, ids: Sequence[str]) -> list[int] | None:
        """Return the positions of the selected members, best first; None if the ensemble does not select members."""
        return None

    def names_tasks(self) -> dict[str, str]:
        """Return the tasks that the spec names, key.entry -> task, and scores, key -> score; checked early."""
        return {}

    def names_members(self) -> dict[tuple[str, ...], str]:
        """Return the member names in the spec, path of keys -> member, which are checked before training."""
        return {}

    def summary(self) -> str:
        """Return a short description for tables."""
        return f"{self.type} of {len(self.children())}"

    def children(self) -> tuple[Any, ...]:
        """Return the members, in the order of their Predictions in `fit` and `apply`."""
        return tuple(member for _, _, member in self._members())

    def roles(self) -> tuple[str, ...]:
        """Return the key of each of `children`, such as the task of a route; empty for members in lists."""
        return tuple(key for _, key, _ in self._members())

    def shrunk(self, kept: Collection[int]) -> Self:
        """Return a copy with only the `children` at these positions, at least one."""
        fields: dict[str, Any] = {name: {} if isinstance(getattr(self, name), dict) else ()
                                  for name in member_fields(type(self))}
        for position, (name, key, member) in enumerate(self._members()):
            if position in kept:
                fields[name] = {**fields[name], key: member} if key else (*fields[name], member)
        return self.model_copy(update=fields)

    def canonical(self) -> dict[str, Any]:
        """Return the content of the id without the members, which are in `signature`."""
        fields = member_fields(type(self))
        return {name: value for name, value in super().canonical().items() if name not in fields}

    def signature(self, ids: Sequence[str]) -> list[list[str]]:
        """Return the members' part of the id: field, key and content id of each of `children`."""
        entries = [[name, key, id] for (name, key, _), id in zip(self._members(), ids, strict=True)]
        return entries if self.ordered else sorted(entries)

    def _members(self) -> Iterator[tuple[str, str, Any]]:
        """Yield field, key and member; keys are sorted, since the order of keys in TOML has no meaning."""
        for name in member_fields(type(self)):
            value = getattr(self, name)
            pairs = sorted(value.items()) if isinstance(value, dict) else [("", member) for member in value]
            yield from ((name, key, member) for key, member in pairs)


@dataclass
class TreePredictions:
    """Evaluates trees of one suite; the Predictions of each node are computed once, from those of its members."""

    data: Data
    trees: Mapping[str, tuple[Ensemble, Sequence[str]]]
    """Id of each ensemble -> the ensemble and the ids of its members; all other ids are leaves."""
    leaf: Callable[[str], Predictions]
    """Returns a leaf's Predictions by its id."""
    choices: dict[str, Choice] = field(default_factory=dict)
    """Id of each ensemble -> its learned parameters; ensembles in here are not fitted again."""
    known: dict[str, Predictions] = field(default_factory=dict)

    def of(self, id: str) -> Predictions:
        """Return a node's Predictions. Raise TrainingError if an ensemble cannot be fitted."""
        if id not in self.known:
            self.known[id] = self._combined(id) if id in self.trees else self.leaf(id)
        return self.known[id]

    def _combined(self, id: str) -> Predictions:
        ensemble, ids = self.trees[id]
        members = [self.of(member) for member in ids]
        if id not in self.choices:
            self.choices[id] = ensemble.fit(members, self.data, ids)
        return ensemble.apply(self.choices[id], members, self.data, ids)


def member_fields(ensemble: type[Ensemble]) -> list[str]:
    """Return the names of the fields that contain members."""
    return [name for name, field in ensemble.model_fields.items() if Member in get_args(field.annotation)]


def by_task(members: Sequence[Predictions], data: Data, ids: Sequence[str],
            rule: Callable[[str, dict[int, np.ndarray]], np.ndarray],
            used: Mapping[str, Iterable[str]] | None = None) -> Predictions:
    """Combine members task by task: `rule` maps a task's name and the scores [n, k] of members by position to [n, k].

    The members are those that predict the task or, if `used` is given, those whose ids it lists for the task. Splits
    that one of them lacks are left out, so that the system is the same on every split.
    """
    outputs: dict[str, dict[str, Output]] = {}
    for task in data.tasks:
        having = ([p for p, member in enumerate(members) if member.has(task)] if used is None
                  else [ids.index(name) for name in used.get(task, ())])
        for split in SPLITS:
            arrays = {p: members[p].find(data, split, task, ids[p]) for p in having}
            scores = {p: array for p, array in arrays.items() if array is not None}
            if scores and len(scores) == len(arrays):
                combined = rule(task, scores).astype(np.float32)
                outputs.setdefault(split, {})[task] = Output(data.splits[task][split].ids, combined)
    if not outputs:
        raise TrainingError("there is nothing to combine: no member predicts a task of the suite")
    return Predictions(outputs)


def on_dev(members: Sequence[Predictions], data: Data, ids: Sequence[str],
           ) -> Iterator[tuple[str, dict[str, np.ndarray], np.ndarray]]:
    """Yield for each predicted task: its name, the members' dev scores [n, k] by id, sorted, and the labels [n].

    Duplicate members are merged. Raise TrainingError if dev has no labels, or a member of the task lacks dev scores.
    """
    by_id = dict(sorted(zip(ids, members, strict=True), key=lambda pair: pair[0]))
    for task, splits in data.splits.items():
        having = {name: member.find(data, "dev", task, name) for name, member in by_id.items() if member.has(task)}
        scores = {name: array for name, array in having.items() if array is not None}
        labels = splits["dev"].labels if "dev" in splits else None
        if having and labels is None:
            raise TrainingError(f"nothing can be learned for `{task}`: the suite's dev split has no labels of it")
        if silent := sorted(having.keys() - scores.keys()):
            raise TrainingError(f"nothing can be learned for `{task}`: {silent[0]} predicts it, but not on dev")
        if having and labels is not None:
            yield task, scores, labels

"""Ensembles: Predictions -> Predictions. One file, one node type."""

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

    @property
    def chooses(self) -> bool:
        """Whether `fit` looks at dev labels, so that dev scores are apparent."""
        return type(self).fit is not Ensemble.fit

    def chosen(self, choice: Choice, ids: Sequence[str]) -> list[int] | None:
        """Return the positions of the members that a rule chose, best first; None where none are chosen."""
        return None

    def names_tasks(self) -> dict[str, str]:
        """Return the tasks that the spec names by the key that names each, to be checked before anything is trained."""
        return {}

    def names_members(self) -> dict[tuple[str, ...], str]:
        """Return the members that the spec refers to by name, by the keys that lead to each, to be checked likewise."""
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

    def shrunk(self, kept: Collection[int]) -> Self:
        """Return the node with those of `children` alone whose positions are kept, at least one."""
        fields: dict[str, Any] = {name: {} if isinstance(getattr(self, name), dict) else ()
                                  for name in member_fields(type(self))}
        for position, (name, key, member) in enumerate(self._held()):
            if position in kept:
                fields[name] = {**fields[name], key: member} if key else (*fields[name], member)
        return self.model_copy(update=fields)

    def canonical(self) -> dict[str, Any]:
        """Return what the id is made of apart from the members, for which `signature` stands."""
        fields = member_fields(type(self))
        return {name: value for name, value in super().canonical().items() if name not in fields}

    def signature(self, ids: Sequence[str]) -> list[list[str]]:
        """Return what the id is made of for the members: field, key and content id of each of `children`."""
        found = [[name, key, id] for (name, key, _), id in zip(self._held(), ids, strict=True)]
        return found if self.ordered else sorted(found)

    def _held(self) -> Iterator[tuple[str, str, Any]]:
        """Yield field, key and member; keys are sorted, since their order in a table means nothing."""
        for name in member_fields(type(self)):
            held = getattr(self, name)
            pairs = sorted(held.items()) if isinstance(held, dict) else [("", member) for member in held]
            yield from ((name, key, member) for key, member in pairs)


@dataclass
class TreePredictions:
    """Predictions of the nodes of trees of one suite; each node is computed once, from those of its members."""

    data: Data
    trees: Mapping[str, tuple[Ensemble, Sequence[str]]]
    """Each ensemble and the ids of its members, by its id; every other node is a leaf."""
    leaf: Callable[[str], Predictions]
    """Returns a leaf's Predictions by its id."""
    choices: dict[str, Choice] = field(default_factory=dict)
    """What each ensemble learned from dev; one that is here already is applied as it is."""
    known: dict[str, Predictions] = field(default_factory=dict)

    def of(self, id: str) -> Predictions:
        """Return a node's Predictions. Raise TrainingError where an ensemble cannot be fitted."""
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
    """Return the names of the fields that hold members."""
    return [name for name, field in ensemble.model_fields.items() if Member in get_args(field.annotation)]


def by_task(members: Sequence[Predictions], data: Data, ids: Sequence[str],
            rule: Callable[[str, dict[int, np.ndarray]], np.ndarray],
            used: Mapping[str, Iterable[str]] | None = None) -> Predictions:
    """Return what a rule makes of each task: it takes the task's name and the scores [n, k] of members by position.

    These are the members that have the task or, where `used` is given, those whose ids it has under the task. A task
    is there on the splits that all of them predict, so that it is one system on every split.
    """
    outputs: dict[str, dict[str, Output]] = {}
    for task in data.tasks:
        having = ([p for p, member in enumerate(members) if member.has(task)] if used is None
                  else [ids.index(name) for name in used.get(task, ())])
        for split in SPLITS:
            found = {p: members[p].find(data, split, task, ids[p]) for p in having}
            scores = {p: array for p, array in found.items() if array is not None}
            if scores and len(scores) == len(found):
                made = rule(task, scores).astype(np.float32)
                outputs.setdefault(split, {})[task] = Output(data.splits[task][split].ids, made)
    if not outputs:
        raise TrainingError("there is nothing to combine: no member predicts a task of the suite")
    return Predictions(outputs)


def on_dev(members: Sequence[Predictions], data: Data, ids: Sequence[str],
           ) -> Iterator[tuple[str, dict[str, np.ndarray], np.ndarray]]:
    """Yield each task that members predict: its name, their dev scores [n, k] by id, sorted, and the labels [n].

    A member that is there twice is one. Raise TrainingError where dev has no labels, or a member says nothing of it.
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

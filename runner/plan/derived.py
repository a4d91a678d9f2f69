"""Leaves that are made of others: what they are made of, by id, and what keeps them from being made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Place, Problem, RegistryError, SpecError, StorageError
from ..part import Known
from ..parts.ensembles import Ensemble, member_fields
from ..registry.registry import WEIGHTS, Registry, Run
from ..specs.checks import place
from ..specs.spec import Filed, Leaf, Model, SoupModel, Tree
from ..specs.stored_run import shape, trained_as

if TYPE_CHECKING:
    from .plan import PlannedNode


@dataclass(frozen=True)
class DerivedLeaf:
    """A student, a soup or a model that begins with another's weights, with the nodes that it is made of."""

    leaf: Leaf
    needs: Sequence[str]
    """Ids of the teacher and of the model to begin with, or of the members in their order."""
    nodes: Mapping[str, PlannedNode]
    """The nodes planned so far, all of these among them."""
    suite: str
    """Content hash of the suite of the leaf."""
    registry: Registry
    project: Path

    def settled(self) -> Model:
        """Return the leaf's model with content ids in place of nodes, a soup's in order and each once."""
        model = self.leaf.model
        if isinstance(model, SoupModel):
            least = sorted(set(self.needs))
            soup = model.soup.model_copy(update={"members": tuple(Known("", id) for id in least)})
            return SoupModel.of(self._model(least[0]), soup).model_copy(update={"resources": model.resources})
        known: dict[str, Any] = {"start": Known("", self.needs[-1])} if model.start else {}
        if model.teacher:
            known["teacher"] = model.teacher.model_copy(update={"spec": Known("", self.needs[0])})
        return model.model_copy(update=known)

    def trees(self) -> dict[str, Ensemble]:
        """Return the ensembles in a student's teacher by id, with content ids as their members."""
        found = ((id, self.nodes[id].spec) for id in self._below())
        return {id: self._known(node.ensemble, self.nodes[id].members) for id, node in found if isinstance(node, Tree)}

    def check(self) -> list[str]:
        """Return what a person should be told. Raise SpecError with all that keeps the leaf from being made."""
        soup = isinstance(self.leaf.model, SoupModel)
        unfit = self._unlike() if soup else chain(self._untaught(), self._unbegun())
        problems = [*self._foreign(), *self._weightless()] or [*unfit]
        if problems:
            raise SpecError(*problems)
        return list(self._warnings()) if soup else []

    def renewed(self, id: str) -> list[str]:
        """Return what the finished leaf with an id is made of that was trained again since, with other weights."""
        mine = self._run(id)
        made_of = mine.manifest.get("made_of", {}) if mine else {}
        return [self.nodes[other].title for other, weights in made_of.items()
                if other in self.nodes and (run := self._run(other)) and run.weights not in (weights, None)]

    def _known(self, node: Ensemble, ids: Sequence[str]) -> Ensemble:
        """Return an ensemble with content ids, which are in the order of its `children`, in place of its members."""
        fresh = (Known(child.name, id) for id, child in zip(ids, node.children(), strict=True))
        update: dict[str, Any] = {}
        for field in member_fields(type(node)):
            held = getattr(node, field)
            update[field] = ({key: next(fresh) for key in sorted(held)} if isinstance(held, dict)
                             else tuple(next(fresh) for _ in held))
        return node.model_copy(update=update)

    def _below(self) -> list[str]:
        """Return the ids of the needed nodes and of all members below them, members first."""
        wanted = set(self.needs)
        for id in reversed(list(self.nodes)):
            wanted |= set(self.nodes[id].members) if id in wanted else set()
        return [id for id in self.nodes if id in wanted]

    def _model(self, id: str) -> Model:
        """Return what a leaf or a stored run was, or is to be, trained as."""
        return trained_as(self.nodes[id].spec, self.project)

    def _run(self, id: str) -> Run | None:
        """Return a finished run; None where there is none, a damaged one, or one that cannot be read."""
        with contextlib.suppress(RegistryError, StorageError):
            return self.registry.find(id)
        return None

    def _named(self) -> Iterator[tuple[str, Place]]:
        """Yield each needed node with the place where it is named."""
        table, model = self.leaf.table, self.leaf.model
        own = [place(table, "teacher", "spec")] * bool(model.teacher) + [place(table, "start")] * bool(model.start)
        yield from zip(self.needs, self.leaf.member_places or own, strict=True)

    def _foreign(self) -> Iterator[Problem]:
        """Yield what is of another suite; a model may begin with weights of another where both read the same words."""
        named = list(self._named())
        if self.leaf.model.start and self.leaf.model.encoder.inputs(self.project):
            named.pop()  # the start, which comes last
        for id, at in named:
            if self.nodes[id].suite != self.suite:
                yield Problem(f"`{self.nodes[id].title}` is of other data than `{self.leaf.name}`", at, (),
                              "only a `start` may be of another suite, and only where the vocabulary comes with "
                              "pretrained weights")

    def _weightless(self) -> Iterator[Problem]:
        """Yield the leaves whose weights are not kept, or are gone."""
        places = dict(self._named())
        for id in self._below():
            node, at = self.nodes[id].spec, places.get(id, next(iter(places.values())))
            if isinstance(node, Tree):
                continue
            run = self._run(id)
            message = f"`{self.nodes[id].title}` has no weights, which `{self.leaf.name}` is to be made of"
            if isinstance(node, Filed):
                yield Problem(message, at, ("it is a predictions file",))
            if run and WEIGHTS not in run.manifest["files"]:
                yield Problem(message, at, (f"run {id} was made without them, or they were removed",),
                              f"`mtrun rm {id}`, and build again with `resources.keep_weights` at its default")
            elif not run and isinstance(node, Leaf) and not node.model.resources.keep_weights:
                yield Problem(message, at, ("`resources.keep_weights` is false there",), "let the weights be kept")

    def _unlike(self) -> Iterator[Problem]:
        """Yield each member of a soup whose weights cannot be averaged with those of the first."""
        (first, _), *others = self._named()
        first_shape = shape(self._model(first))
        for id, at in others:
            its = shape(self._model(id))
            differing = [key for key in {**first_shape, **its} if first_shape.get(key) != its.get(key)]
            if differing:
                notes = tuple(f"`{key}` is {_said(first_shape.get(key))} there and {_said(its.get(key))} here"
                              for key in differing[:3])
                yield Problem(f"`{self.nodes[id].title}` is of another shape than `{self.nodes[first].title}`: their "
                              "weights have no mean", at, notes, 'an ensemble averages what they predict')

    def _untaught(self) -> Iterator[Problem]:
        """Yield each trained task that a student's teacher lacks, and tasks of unlabelled sentences not trained."""
        model, (teacher, at) = self.leaf.model, next(self._named())
        if not model.teacher:
            return
        predicted = self._predicted(teacher)
        for task in model.trained:
            if task not in predicted:
                yield Problem(f"the teacher does not predict `{task}`, which `{self.leaf.name}` learns", at,
                              (f"it predicts: {', '.join(predicted)}",), "let `train.tasks` name what it can teach")
        for task in model.teacher.unlabelled:
            if task not in model.trained:
                yield Problem(f"`{task}` in `teacher.unlabelled` is not trained",
                              place(self.leaf.table, "teacher", "unlabelled", task),
                              (f"trained tasks: {', '.join(model.trained)}",))

    def _unbegun(self) -> Iterator[Problem]:
        """Yield what keeps a model from beginning with the weights of the one that it names."""
        *_, (id, at) = self._named()
        if not self.leaf.model.start:
            return
        name = self.nodes[id].title
        if isinstance(self.nodes[id].spec, Tree):
            yield Problem(f"`{name}` has no weights to begin with: it is an ensemble", at, (), "name a model or a run")
            return
        model, other = self.leaf.model, self._model(id)
        mine, its = ({key: value for key, value in shape(one).items() if key.startswith("encoder.")}
                     | {"its files": one.encoder.inputs(self.project)} for one in (model, other))
        if differing := [key for key in {**mine, **its} if mine.get(key) != its.get(key)]:
            notes = tuple(f"`{key}` is {_said(its.get(key))} there and {_said(mine.get(key))} here"
                          for key in differing[:3])
            yield Problem(f"`{name}` has another encoder than `{self.leaf.name}`, which is to begin with its weights",
                          at, notes, "give both the same `[encoder]`; dropout may differ")

    def _predicted(self, id: str) -> list[str]:
        """Return the tasks that a node predicts."""
        node, members = self.nodes[id].spec, self.nodes[id].members
        if not isinstance(node, Tree):
            return list(self._model(id).heads)
        pairs = zip(node.ensemble.roles(), members, strict=True)
        return list(dict.fromkeys(task for role, member in pairs for task in ([role] if role else
                                                                              self._predicted(member))))

    def _warnings(self) -> Iterator[str]:
        """Yield what makes a soup unlikely to be any good: members that started from different weights."""
        models = [self._model(id) for id in self.needs]
        seeds = sorted({model.train.seed for model in models})
        files = {tuple(sorted(model.encoder.inputs(self.project).items())) for model in models}
        why = [f"the seeds {', '.join(map(str, seeds))}"] * (len(seeds) > 1)
        why += ["different pretrained weights"] * (len(files) > 1)
        if why:
            yield (f"the members of the soup `{self.leaf.name}` began with {' and '.join(why)}: the mean of weights "
                   "from different starting points is seldom any good")


def _said(value: Any) -> str:
    return "not set" if value is None else f"`{value}`"

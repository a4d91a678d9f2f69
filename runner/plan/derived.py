"""Leaves derived from other nodes (students, soups, warm starts): resolve their sources by id and check them."""

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
from ..specs.stored_run import changed_files, shape, trained_as

if TYPE_CHECKING:
    from .plan import PlannedNode


@dataclass(frozen=True)
class DerivedLeaf:
    """A student, a soup or a model that starts from another's weights, with its source nodes."""

    leaf: Leaf
    needs: Sequence[str]
    """Ids of the teacher and of the start, or of the members of a soup in the order of the spec."""
    nodes: Mapping[str, PlannedNode]
    """The nodes planned so far, which include all sources."""
    suite: str
    """Content hash of the suite of the leaf."""
    registry: Registry
    project: Path

    def resolved(self) -> Model:
        """Return the model of the leaf with content ids in place of nodes; those of a soup are sorted and unique."""
        model = self.leaf.model
        if isinstance(model, SoupModel):
            least = sorted(set(self.needs))
            soup = model.soup.model_copy(update={"members": tuple(Known("", id) for id in least)})
            return SoupModel.of(self._model(least[0]), soup).model_copy(update={"resources": model.resources})
        ids: dict[str, Any] = {"start": Known("", self.needs[-1])} if model.start else {}
        if model.teacher:
            ids["teacher"] = model.teacher.model_copy(update={"spec": Known("", self.needs[0])})
        return model.model_copy(update=ids)

    def trees(self) -> dict[str, Ensemble]:
        """Return the ensembles in the teacher of a student by id, with content ids as their members."""
        specs = ((id, self.nodes[id].spec) for id in self._below())
        return {id: self._with_ids(spec.ensemble, self.nodes[id].members)
                for id, spec in specs if isinstance(spec, Tree)}

    def check(self) -> list[str]:
        """Return warnings for the user. Raise SpecError with all problems that prevent training the leaf."""
        soup = isinstance(self.leaf.model, SoupModel)
        specific = self._unequal_shapes() if soup else chain(self._teacher_problems(), self._start_problem())
        problems = [*self._other_suite(), *self._without_weights()] or [*specific]
        if problems:
            raise SpecError(*problems)
        return list(self._warnings()) if soup else []

    def changed_runs(self, id: str) -> list[str]:
        """Return the titles of source runs whose weights changed after the run with an id was finished."""
        run = self._run(id)
        source_weights = run.manifest.get("made_of", {}) if run else {}
        return [self.nodes[other].title for other, weights in source_weights.items()
                if other in self.nodes and (source := self._run(other)) and source.weights not in (weights, None)]

    def _with_ids(self, node: Ensemble, ids: Sequence[str]) -> Ensemble:
        """Return an ensemble whose members are replaced by content ids, given in the order of its `children`."""
        new_ids = (Known(child.name, id) for id, child in zip(ids, node.children(), strict=True))
        update: dict[str, Any] = {}
        for field in member_fields(type(node)):
            members = getattr(node, field)
            update[field] = ({key: next(new_ids) for key in sorted(members)} if isinstance(members, dict)
                             else tuple(next(new_ids) for _ in members))
        return node.model_copy(update=update)

    def _below(self) -> list[str]:
        """Return the ids of the required nodes and of all members below them, members first."""
        wanted = set(self.needs)
        for id in reversed(list(self.nodes)):
            wanted |= set(self.nodes[id].members) if id in wanted else set()
        return [id for id in self.nodes if id in wanted]

    def _model(self, id: str) -> Model:
        """Return the model of a leaf or of a stored run."""
        return trained_as(self.nodes[id].spec, self.project)

    def _run(self, id: str) -> Run | None:
        """Return a finished run, or None if it is missing, damaged or unreadable."""
        with contextlib.suppress(RegistryError, StorageError):
            return self.registry.find(id)
        return None

    def _places(self) -> Iterator[tuple[str, Place]]:
        """Yield the id of each required node with the place in the spec that names it."""
        table, model = self.leaf.table, self.leaf.model
        own = [place(table, "teacher", "spec")] * bool(model.teacher) + [place(table, "start")] * bool(model.start)
        yield from zip(self.needs, self.leaf.member_places or own, strict=True)

    def _other_suite(self) -> Iterator[Problem]:
        """Yield a problem for each source of another suite; a start may differ if its vocabulary is pretrained."""
        places = list(self._places())
        if self.leaf.model.start and self.leaf.model.encoder.inputs(self.project):
            places.pop()  # the start, which comes last
        for id, at in places:
            if self.nodes[id].suite != self.suite:
                yield Problem(f"`{self.nodes[id].title}` is of other data than `{self.leaf.name}`", at, (),
                              "only a `start` may be of another suite, and only where the vocabulary comes with "
                              "pretrained weights")

    def _without_weights(self) -> Iterator[Problem]:
        """Yield a problem for each source leaf whose weights are missing or will not be kept."""
        places = dict(self._places())
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

    def _unequal_shapes(self) -> Iterator[Problem]:
        """Yield a problem for each member of a soup whose parameter shapes differ from those of the first."""
        yield from self._changed_encoders()
        (first, at_first), *others = self._places()
        expected, adapter = self._weights_of(first), self._model(first).adapter
        if adapter and not adapter.can_be_averaged:
            yield Problem(f"the weights of `{self.nodes[first].title}` have no mean: it has a `{adapter.type}` adapter",
                          at_first, ("the mean of products of matrices is not the product of their means",),
                          'an ensemble averages what they predict')
            return
        for id, at in others:
            actual = self._weights_of(id)
            differing = [key for key in {**expected, **actual} if expected.get(key) != actual.get(key)]
            if differing:
                notes = tuple(f"`{key}` is {_shown(expected.get(key))} there and {_shown(actual.get(key))} here"
                              for key in differing[:3])
                yield Problem(f"`{self.nodes[id].title}` is of another shape than `{self.nodes[first].title}`: their "
                              "weights have no mean", at, notes, 'an ensemble averages what they predict')

    def _weights_of(self, id: str) -> dict[str, Any]:
        """Return what decides shape and meaning of a model's weights; with an adapter, the encoder's files too."""
        model = self._model(id)
        return shape(model) | ({"its files": model.encoder.inputs(self.project)} if model.adapter else {})

    def _changed_encoders(self) -> Iterator[Problem]:
        """Yield a problem for each finished source that has its encoder in files which are others now."""
        for id, at in self._places():
            run = None if isinstance(self.nodes[id].spec, Tree | Filed) else self._run(id)
            if run and (names := changed_files(run.manifest["inputs"], self._model(id), self.project)):
                yield Problem(f"`{self.nodes[id].title}` has only what was added to its encoder, whose files "
                              "are others now",
                              at, (f"of other content: {', '.join(names)}",), "put the files back as they were")

    def _teacher_problems(self) -> Iterator[Problem]:
        """Yield trained tasks that the teacher does not predict, and tasks of unlabelled sentences not trained."""
        model, (teacher, at) = self.leaf.model, next(self._places())
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

    def _start_problem(self) -> Iterator[Problem]:
        """Yield the problem that prevents loading the weights named by `start`, if there is one."""
        *_, (id, at) = self._places()
        if not self.leaf.model.start:
            return
        yield from self._changed_encoders()
        name = self.nodes[id].title
        if isinstance(self.nodes[id].spec, Tree):
            yield Problem(f"`{name}` has no weights to begin with: it is an ensemble", at, (), "name a model or a run")
            return
        model, start = self.leaf.model, self._model(id)
        own, source = ({key: value for key, value in shape(one).items() if key.startswith("encoder.")}
                     | {"its files": one.encoder.inputs(self.project)} for one in (model, start))
        if start.adapter and start.adapter != model.adapter:
            yield Problem(f"`{name}` has a `{start.adapter.type}` adapter, and `{self.leaf.name}` another or none",
                          at, (), "give both the same `[adapter]`, or begin with a model without one")
        if differing := [key for key in {**own, **source} if own.get(key) != source.get(key)]:
            notes = tuple(f"`{key}` is {_shown(source.get(key))} there and {_shown(own.get(key))} here"
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
        """Yield a warning if the members of a soup started from different weights."""
        models = [self._model(id) for id in self.needs]
        seeds = sorted({model.train.seed for model in models})
        files = {tuple(sorted(model.encoder.inputs(self.project).items())) for model in models}
        why = [f"the seeds {', '.join(map(str, seeds))}"] * (len(seeds) > 1)
        why += ["different pretrained weights"] * (len(files) > 1)
        if why:
            yield (f"the members of the soup `{self.leaf.name}` began with {' and '.join(why)}: the mean of weights "
                   "from different starting points is seldom any good")


def _shown(value: Any) -> str:
    """Format the value of a field for a note."""
    return "not set" if value is None else f"`{value}`"

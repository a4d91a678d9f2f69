"""Predict any sentences with stored leaves and trees of them: Examples -> Predictions, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..errors import Problem, UsageError, did_you_mean
from ..parts.ensembles import TreePredictions
from ..plan.plan import Plan, PlannedNode
from ..plan.predict import below, finished, tree_predictions, trees
from ..registry.registry import WEIGHTS
from ..specs.spec import Filed, Tree
from ..tasks.data import Data, Examples
from ..tasks.predictions import Output, Predictions
from ..training.stored_model import StoredModel, no_weights
from .inputs import SPLIT, Input, portions
from .outputs import Answers, OutputBuilder


class System:
    """A node of a plan with all below it, for prediction of any examples; ensembles are fitted on dev."""

    def __init__(self, plan: Plan, root: str) -> None:
        """Load weights and stored Predictions. Raise UsageError if a leaf is not trained or has no weights."""
        self.nodes, self.root = below(plan, root), root
        runs = finished(plan, root)
        problems = [no_weights(run) for run in runs.values() if WEIGHTS not in run.manifest["files"]]
        problems += [Problem(f"`{node.title}` is a predictions file, which says nothing of other sentences",
                             node.spec.place) for node in self.nodes if isinstance(node.spec, Filed)]
        if problems:
            raise UsageError(*problems)
        self.data = plan.data[plan.nodes[root].suite]
        self.tasks = self.data.tasks
        self.leaves = {id: StoredModel.of(run, self.data, plan.project) for id, run in runs.items()}
        self.on_dev = tree_predictions(plan, root)
        """Predictions of the nodes for the examples of the suite, and what the ensembles learned from dev."""

    def _chosen(self, node: PlannedNode) -> Sequence[int] | None:
        """Return the positions of the members that a rule chose on dev, or None if there is no rule."""
        choice = self.on_dev.choices.get(node.id)
        return node.spec.ensemble.chosen(choice, node.members) if choice and isinstance(node.spec, Tree) else None

    def answers(self, inputs: Iterable[Input], tasks: Sequence[str] = (), members: bool = False
                ) -> Iterator[Answers]:
        """Yield the answers for each input, in order, in bounded memory.

        `tasks` are the tasks to answer, by default all; `members` adds the answers of members. Raise UsageError for a
        task that the system does not predict, and for an input that fits no task.
        """
        predicted = [task for task in self.tasks if self.on_dev.of(self.root).has(task)]
        if unknown := [task for task in tasks if task not in predicted]:
            raise UsageError(f"the system does not predict `{unknown[0]}`; it predicts: {', '.join(predicted)}. "
                             f"{did_you_mean(unknown[0], predicted)}".rstrip())
        nodes = {node.id: node for node in self.nodes}
        chosen = {node.id: self._chosen(node) for node in self.nodes}
        builder = OutputBuilder(nodes, self.root, self.tasks, tasks or predicted, members, chosen)
        for portion in portions(inputs):
            yield from builder.answers(portion, self.predict(builder.examples(portion)))

    def predict(self, examples: Mapping[str, Examples]) -> dict[str, Predictions]:
        """Return the Predictions of each node by id for the examples of some tasks, as the split `test`.

        Every task that a node predicts is present, with no rows if there are no examples of it. Memory grows with the
        number of examples: pass a stream in portions.
        """
        none = Examples((), ())
        data = Data(self.tasks, {task: {SPLIT: examples.get(task, none)} for task in self.tasks})
        tree = TreePredictions(data, trees(self.nodes), lambda id: self._of_leaf(self.leaves[id], data),
                               dict(self.on_dev.choices))
        return {node.id: tree.of(node.id) for node in self.nodes}

    def _of_leaf(self, leaf: StoredModel, data: Data) -> Predictions:
        """Return the Predictions of a leaf, with empty outputs for tasks without examples."""
        splits = {task: by_split for task, by_split in data.splits.items() if len(by_split[SPLIT])}
        outputs = leaf.predict(Data(data.tasks, splits), (SPLIT,)).outputs.get(SPLIT, {})
        empty = {task: Output((), np.zeros((0, data.tasks[task].outputs), np.float32)) for task in leaf.model.heads}
        return Predictions({SPLIT: empty | dict(outputs)})

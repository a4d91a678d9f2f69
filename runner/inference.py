"""Stored leaves, and trees of them, on any sentences: Examples -> Predictions, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from tokenizers import Tokenizer

from .answers import Answers, Respondent
from .errors import Place, Problem, RegistryError, UsageError, did_you_mean
from .evaluate import Evaluation
from .machine import computes_bf16
from .network import Network
from .orders import model_of
from .outcomes import Outcomes, below, finished
from .plan import Plan, Planned
from .predictions import Output, Predictions
from .questions import SPLIT, Question, portions
from .registry import MANIFEST, WEIGHTS, Run
from .spec import Filed, Model, Tree
from .suites import Data, Examples, Task
from .tokens import Tokens


@dataclass(frozen=True)
class Trained:
    """A leaf with its weights, ready to read any sentence."""

    model: Model
    tasks: Mapping[str, Task]
    tokenizer: Tokenizer
    network: Network

    @classmethod
    def of(cls, run: Run, data: Data, project: Path) -> Trained:
        """Return a finished run's leaf; `data` is what it was trained on. Raise UsageError where it has no weights."""
        if WEIGHTS not in run.manifest["files"]:
            raise UsageError(no_weights(run))
        model = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), project)
        if model.train.precision == "bf16" and not computes_bf16("auto")[0]:
            model = model.with_precision("fp32")  # emulated, it would be slower and no more exact
        tokenizer = model.encoder.tokenizer(data, project)
        network = Network(model, data.tasks, model.encoder.build(tokenizer, project))
        try:
            network.load_state_dict(load(run.read(WEIGHTS)))
        except RuntimeError as error:
            raise RegistryError(Problem(f"the weights of run {run.id} do not fit its model", notes=(str(error),),
                                        hint="they were made by other code; `mtrun build --rebuild-stale` trains it "
                                             "again")) from None
        return cls(model, data.tasks, tokenizer, network.eval().to(_device()))

    def predict(self, data: Data, splits: Sequence[str]) -> Predictions:
        """Return what the leaf says of the examples that it has a head for; equal sentences are encoded once."""
        tasks = [task for task in self.model.heads if task in data.splits]
        tokens = Tokens.of(data.splits, self.tokenizer, joint=self.model.joint)
        return Evaluation(data, tokens, tasks, splits)(self.network)


def no_weights(run: Run) -> Problem:
    """Return the problem of a run that can say nothing of other sentences."""
    return Problem(f"run {run.id} ({run.manifest['name']}) has no weights, its predictions alone",
                   notes=("it was trained with resources.keep_weights = false, or `mtrun rm --weights` removed them",),
                   hint=f"`mtrun build SPEC --force {run.id}` trains it again, with keep_weights = true")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class System:
    """A node of a plan and all below it, ready for any examples: all that ensembles choose is learnt from dev."""

    def __init__(self, plan: Plan, root: str) -> None:
        """Read weights and stored Predictions. Raise UsageError where a leaf is not trained or has no weights."""
        self.nodes, self.root = below(plan, root), root
        runs = finished(plan, root)
        problems = [no_weights(run) for run in runs.values() if WEIGHTS not in run.manifest["files"]]
        problems += [Problem(f"`{node.title}` is a predictions file, which says nothing of other sentences",
                             node.node.place) for node in self.nodes if isinstance(node.node, Filed)]
        if problems:
            raise UsageError(*problems)
        self.data = plan.data[plan.nodes[root].suite]
        self.tasks = self.data.tasks
        self.leaves = {id: Trained.of(run, self.data, plan.project) for id, run in runs.items()}
        self.stored = Outcomes.of(plan, root)

    def _chosen(self, node: Planned) -> Sequence[int] | None:
        """Return the positions of the members that a rule chose on dev; None where none are chosen."""
        choice = self.stored.choices.get(node.id)
        return node.node.node.chosen(choice, node.members) if choice and isinstance(node.node, Tree) else None

    def answers(self, questions: Iterable[Question], tasks: Sequence[str] = (), members: bool = False
                ) -> Iterator[Answers]:
        """Yield what is said of each question, in their order, in bounded memory.

        `tasks` are those that are answered, all where none is given; with `members` the answers of members are there,
        too. Raise UsageError for a task that the system lacks and for a question that fits no task.
        """
        predicted = [task for task in self.tasks if self.stored.predictions[self.root].has(task)]
        if unknown := [task for task in tasks if task not in predicted]:
            raise UsageError(f"the system does not predict `{unknown[0]}`; it predicts: {', '.join(predicted)}. "
                             f"{did_you_mean(unknown[0], predicted)}".rstrip())
        nodes = {node.id: node for node in self.nodes}
        chosen = {node.id: self._chosen(node) for node in self.nodes}
        respondent = Respondent(nodes, self.root, self.tasks, tasks or predicted, members, chosen)
        for portion in portions(questions):
            yield from respondent.answers(portion, self.predict(respondent.examples(portion)))

    def predict(self, examples: Mapping[str, Examples]) -> dict[str, Predictions]:
        """Return what each node says of the examples of some tasks, by id, under the split `test`.

        Every task that a node predicts is there, with no rows where there are no examples of it. Memory grows with the
        number of examples: give a stream of them in portions.
        """
        none = Examples((), ())
        data = Data(self.tasks, {task: {SPLIT: examples.get(task, none)} for task in self.tasks})
        said: dict[str, Predictions] = {}
        for node in self.nodes:
            if isinstance(node.node, Tree):
                members = [said[m] for m in node.members]
                said[node.id] = node.node.node.apply(self.stored.choices[node.id], members, data, node.members)
            else:
                said[node.id] = self._of_leaf(self.leaves[node.id], data)
        return said

    def _of_leaf(self, leaf: Trained, data: Data) -> Predictions:
        """Return what a leaf says, with outputs of no rows for tasks without examples."""
        asked = {task: by_split for task, by_split in data.splits.items() if len(by_split[SPLIT])}
        said = leaf.predict(Data(data.tasks, asked), (SPLIT,)).outputs.get(SPLIT, {})
        empty = {task: Output((), np.zeros((0, data.tasks[task].outputs), np.float32)) for task in leaf.model.heads}
        return Predictions({SPLIT: empty | dict(said)})

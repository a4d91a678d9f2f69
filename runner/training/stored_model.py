"""A stored leaf with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from tokenizers import Tokenizer

from ..errors import Place, Problem, RegistryError, TrainingError, UsageError
from ..machine import computes_bf16
from ..registry.registry import MANIFEST, WEIGHTS, Registry, Run
from ..specs.spec import Model
from ..specs.stored_run import model_of, shape
from ..tasks.data import Data, Task
from ..tasks.predictions import Predictions
from .evaluation import Evaluation
from .network import Network
from .tokens import Tokens


@dataclass(frozen=True)
class StoredModel:
    """A leaf with its weights, ready to read any sentence."""

    model: Model
    tasks: Mapping[str, Task]
    tokenizer: Tokenizer
    network: Network

    @classmethod
    def of(cls, run: Run, data: Data, project: Path) -> StoredModel:
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


def begin(network: Network, id: str, project: Path) -> None:
    """Give a network the weights of a finished run: those of the encoder, and of each head that is the same there.

    Raise RegistryError where the run or its weights are gone, TrainingError where they are of another shape.
    """
    run = Registry(project / "registry").find(id)
    if run is None or WEIGHTS not in run.manifest["files"]:
        raise RegistryError(f"run {id} or its weights are gone; build again")
    other = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), project)
    same = [task for task in network.heads if _head(task, other) == _head(task, network.model)]
    rooms = ("encoder.", *(f"heads.{task}." for task in same))
    weights = {name: tensor for name, tensor in load(run.read(WEIGHTS)).items() if name.startswith(rooms)}
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items() if name.startswith(rooms)}
    if wrong := sorted(name for name in {*wanted, *weights} if name not in weights
                       or weights[name].shape != wanted.get(name)):
        raise TrainingError(Problem(f"the weights of `{run.manifest['name']}` ({id}) are of another shape",
                                    notes=(f"such as `{wrong[0]}`",),
                                    hint="a model begins with weights of an encoder like its own"))
    network.load_state_dict(weights, strict=False)


def _head(task: str, model: Model) -> dict[str, object]:
    """Return what decides the weights of a head and their meaning; nothing where there is no such head."""
    fields = {key: value for key, value in shape(model).items() if key.startswith(f"heads.{task}.")}
    return fields | {"task": model.suite.meanings()[task]} if fields else {}

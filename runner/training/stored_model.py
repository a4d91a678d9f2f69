"""Load finished runs: as a model for prediction, or as initial weights of a network in training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor

from ..errors import Place, Problem, RegistryError, TrainingError, UsageError
from ..machine import computes_bf16
from ..project import Project
from ..registry.registry import MANIFEST, WEIGHTS, Registry, Run
from ..specs.spec import Model
from ..specs.stored_run import changed_files, model_of, shape
from ..tasks.data import Data, Task
from ..tasks.predictions import Predictions
from .evaluation import Evaluation
from .network import Network
from .tokens import Tokens

POOLINGS = ("encoder.pooler.", "encoder.attention.")
"""Prefixes of the parameters of poolings, which a model has if one of its heads asks for them."""


@dataclass(frozen=True)
class StoredModel:
    """The model of a finished run with its weights, ready for prediction."""

    model: Model
    tasks: Mapping[str, Task]
    tokenizer: Tokenizer
    network: Network

    @classmethod
    def of(cls, run: Run, data: Data, project: Path, device: torch.device | None = None) -> StoredModel:
        """Load a finished run; `data` is the suite it was trained on, `device` defaults to a GPU if there is one.

        Raise UsageError if the run has no weights, RegistryError if they do not fit the code.
        """
        if WEIGHTS not in run.manifest["files"]:
            raise UsageError(no_weights(run))
        model = _model(run, project)
        tokenizer = model.encoder.tokenizer(data, project)
        network = Network(model, data.tasks, model.build_encoder(tokenizer, project))
        network.attach_adapter()
        check_files(run, model, project)
        try:
            network.load_trained(load(run.read(WEIGHTS)))
        except RuntimeError as error:
            raise RegistryError(Problem(f"the weights of run {run.id} do not fit its model", notes=(str(error),),
                                        hint="they were made by other code; `mtrun build --rebuild-stale` trains it "
                                             "again")) from None
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, data.tasks, tokenizer, network.eval().to(device))

    def predict(self, data: Data, splits: Sequence[str], tasks: Collection[str] | None = None,
                cache: Path | None = None, tick: Callable[[], None] = lambda: None) -> Predictions:
        """Predict examples of some tasks, by default of all tasks with a head; equal sentences are encoded once.

        `cache` is the folder of cached token ids; `tick` may raise to stop.
        """
        wanted = [task for task in self.model.heads if task in (data.splits if tasks is None else tasks)]
        tokens = Tokens.of(data.splits, self.tokenizer, cache, self.model.joint)
        return Evaluation(data, tokens, wanted, splits)(self.network, tick)


def check_files(run: Run, model: Model, project: Path) -> None:
    """Raise RegistryError if a run has the encoder's weights in files, and these are others now."""
    if differing := changed_files(run.manifest["inputs"], model, project):
        raise RegistryError(Problem(f"run {run.id} has only what was added to its encoder, whose files are others now",
                                    notes=(f"of other content: {', '.join(differing)}",),
                                    hint="put the files back as they were, or build again"))


def _model(run: Run, project: Path) -> Model:
    """Return the model of a run, in fp32 if bf16 would be emulated, which is slower and not more exact."""
    model = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), project)
    return model if model.train.precision == "fp32" or computes_bf16("auto")[0] else model.with_precision("fp32")


def no_weights(run: Run) -> Problem:
    """Return the problem of a run without weights, which cannot predict new sentences."""
    return Problem(f"run {run.id} ({run.manifest['name']}) has no weights, its predictions alone",
                   notes=("it was trained with resources.keep_weights = false, or `mtrun rm --weights` removed them",),
                   hint=f"`mtrun build SPEC --force {run.id}` trains it again, with keep_weights = true")


def read_run(registry: Registry, id: str) -> Run:
    """Return a finished run with weights. Raise RegistryError if the run or its weights are missing."""
    run = registry.find(id)
    if run is None or WEIGHTS not in run.manifest["files"]:
        raise RegistryError(f"run {id} or its weights are gone; build again")
    return run


def fitting_weights(run: Run, wanted: Mapping[str, Tensor], prefixes: tuple[str, ...], hint: str,
                    optional: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the weights of a run whose names start with a prefix.

    Raise TrainingError, with `hint`, if their names or shapes differ from those of `wanted`; one that begins with a
    prefix in `optional` may be missing on either side.
    """
    stored = load(run.read(WEIGHTS))
    weights = {name: tensor for name, tensor in stored.items()
               if name.startswith(prefixes) and (name in wanted or not name.startswith(optional))}
    shapes = {name: tensor.shape for name, tensor in wanted.items()
              if name.startswith(prefixes) and (name in stored or not name.startswith(optional))}
    if wrong := sorted(name for name in {*shapes, *weights} if name not in weights
                       or weights[name].shape != shapes.get(name)):
        raise TrainingError(Problem(f"the weights of `{run.manifest['name']}` ({run.id}) are of another shape",
                                    notes=(f"such as `{wrong[0]}`",), hint=hint))
    return weights


def initialize(network: Network, id: str, project: Path) -> None:
    """Initialise a network with the encoder of a finished run, and with each head that has the same fields there.

    Also attaches the network's adapter, which the run has with the same fields or not at all. Raise RegistryError if
    the run or its weights are missing, TrainingError if their shapes differ.
    """
    run = read_run(Registry(Project(project).registry), id)
    other = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), project)
    check_files(run, other, project)
    if other.adapter:
        network.attach_adapter()
    same = [task for task in network.heads if _head(task, other) == _head(task, network.model)]
    prefixes = ("encoder.", *(f"heads.{task}." for task in same))
    in_files = frozenset() if other.stores_encoder else frozenset(f"encoder.{name}" for name in network.base)
    own, old = network.weights(), sorted(other.heads)
    private = {f"encoder.{name}" for name in network.private}
    wanted = {name: tensor[:1].expand(len(old), *tensor.shape[1:]) if name in private else tensor
              for name, tensor in own.items() if name not in in_files}
    weights = fitting_weights(run, wanted, prefixes, "a model begins with weights of an encoder like its own",
                              POOLINGS)
    for name in private & weights.keys():
        rows = [weights[name][old.index(task)] if task in old else own[name][number].cpu()
                for number, task in enumerate(network.heads)]
        weights[name] = torch.stack(rows)
    network.load_state_dict(weights, strict=False)
    if not other.adapter:
        network.attach_adapter()


def _head(task: str, model: Model) -> dict[str, object]:
    """Return the fields that determine shape and meaning of the weights of a head; empty if there is no such head."""
    fields = {key: value for key, value in shape(model).items() if key.startswith(f"heads.{task}.")}
    return fields | {"task": model.suite.meanings()[task]} if fields else {}
